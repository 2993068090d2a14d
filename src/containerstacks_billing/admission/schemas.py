"""JSON documents of admission."""

from __future__ import annotations

from uuid import UUID

from pydantic import Field

from containerstacks_billing.document import Document, Instant, Money


class Admission(Document):
    """Whether an organization may create an instance."""

    allowed: bool
    reason: str = Field(description="A sentence that may be shown to the customer")
    hours: float | None = Field(
        description="How long the balance lasts with the instance; null: without an end"
    )
    minimum_balance: Money | None = Field(
        description="What has to be available; null where the plan or wallet is missing"
    )
    short_by: Money | None = Field(description="What has to be paid in before it is allowed")
    currency: str


class Minimum(Document):
    """A minimum balance; without a plan it holds for every plan that has none of its own."""

    plan_id: UUID | None
    plan: str | None
    amount: Money
    set_at: Instant
    set_by: str
    reason: str


class Minimums(Document):
    """The minimum balances that are set."""

    minimums: list[Minimum]
