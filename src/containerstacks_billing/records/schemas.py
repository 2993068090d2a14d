"""JSON documents of lists: organizations, instances, charges, ledger entries, decisions, runs in detail."""

from __future__ import annotations

from typing import Annotated, Generic, TypeVar
from uuid import UUID

from pydantic import AfterValidator, Field

from containerstacks_billing.charging.schemas import QuarantinedInstance
from containerstacks_billing.document import Document, Instant, Money
from containerstacks_billing.status.schemas import Run

Row = TypeVar("Row", bound=Document)


class Listed(Document, Generic[Row]):
    """A page of a list."""

    data: list[Row]
    has_more: bool = Field(description="Whether there is a next page")
    next_cursor: str | None = Field(description="Pass it as `cursor` for the next page; null on the last one")


class OrganizationDocument(Document):
    """An organization and the wallet that pays; without one, everything about the wallet is null."""

    organization_id: UUID
    name: str
    slug: str
    created_at: Instant | None
    wallet_id: UUID | None
    balance: Money | None
    billing_carry: Money | None = Field(
        serialization_alias="carry", description="Billed and not yet debited: less than a cent"
    )
    currency: str | None
    past_due_since: Instant | None
    burn_per_hour: Money | None
    empties_at: Instant | None = Field(description="null: at the present burn it has no end")


class InstanceDocument(Document):
    """An instance as its row is now."""

    instance_id: UUID
    organization_id: UUID
    label: str | None
    status: str | None
    plan: str | None = Field(description="Its plan, as the host names it")
    created_at: Instant | None
    billed_until: Instant | None


class ChargeDocument(Document):
    """The priced hours of an instance; without a run it is a row of the host application."""

    charge_id: UUID
    organization_id: UUID
    instance_id: UUID
    plan_id: UUID | None
    starts_at: Instant
    ends_at: Instant
    hourly_rate: Money
    amount: Money
    status: str | None = Field(description="billed; failed is past due")
    past_due_since: Instant | None
    entry_id: UUID | None
    run_id: int | None


class LedgerEntryDocument(Document):
    """A line on the wallet of an organization."""

    entry_id: UUID
    organization_id: UUID
    amount: Money
    currency: str | None
    status: str | None
    payment_method: str
    reference: str | None
    description: str | None
    posted_at: Instant


class DecisionDocument(Document):
    """What was decided about money, by whom and why."""

    decision_id: int = Field(
        description="Unique within its kind; of a run it is the run, of a price the correction, of a reversal its id"
    )
    kind: str = Field(description="hours, discrepancy, price, run, reversal, credit or audit")
    decision: str = Field(
        description="charge, cap or waive held hours; accept or restore a discrepancy; correct a price;"
        " release a run; waive or rerate, credit or audit, or undo one of these"
    )
    organization_id: UUID | None
    organization: str | None
    instance_id: UUID | None
    label: str | None
    segment_id: Annotated[int | None, AfterValidator(lambda number: number or None)]
    charge_until: Instant | None
    waived_from: Instant | None
    waived_to: Instant | None
    check_name: str | None
    wallet_id: UUID | None
    amount: Money | None = Field(
        description="Of a correction, reversal or credit: what it changed so far; positive costs more"
    )
    plan_id: UUID | None
    plan: str | None
    run_id: int | None
    message: str | None
    decided_at: Instant
    decided_by: str
    reason: str | None


class RunDetail(Run):
    """A run, what it was held by, who released it, and the fleet that it saw."""

    held_by: int | None = Field(description="The run whose hold bound this one")
    released_at: Instant | None
    released_by: str | None
    release_reason: str | None
    fencing_token: int
    fleet_instances: int
    fleet_hourly_rate: Money


class HeldRun(Document):
    """The hold that stands, or was released and no run completed since."""

    run_id: int
    sentence: str
    held_at: Instant | None
    is_released: bool


class Holds(Listed[QuarantinedInstance]):
    """What waits for a decision: a run, and instances, the longest first."""

    run: HeldRun | None
