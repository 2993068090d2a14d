"""JSON documents of leaks."""

from __future__ import annotations

from typing import Self
from uuid import UUID

from pydantic import Field

from containerstacks_billing.document import Document, Instant, Money
from containerstacks_billing.explain.leaks import Leak, Leaks, ReasonSum


class LeakDocument(Document):
    """An instance or a volume that brings in nothing."""

    reason: str
    organization_id: UUID | None
    organization: str | None
    subject_id: UUID | None = Field(description="The instance or the volume; null: no row is there")
    label: str | None
    provider_instance_id: str | None
    plan: str | None
    status: str | None
    since: Instant | None
    hourly: Money | None = Field(description="null: its price is not known")
    monthly: Money | None
    detail: str


class LeakSumDocument(Document):
    """What one reason comes to."""

    reason: str
    for_nothing: bool = Field(description="Whether customers pay for what does not exist")
    leaks: int
    unknown_price: int = Field(description="How many of them are in no sum, for want of a price")
    hourly: Money
    monthly: Money

    @classmethod
    def of(cls, one: ReasonSum) -> Self:
        """Show the sum of a reason."""
        return cls(
            reason=str(one.reason),
            for_nothing=one.for_nothing,
            leaks=one.leaks,
            unknown_price=one.unknown,
            hourly=one.hourly,
            monthly=one.monthly,
        )


class InventoryDocument(Document):
    """The provider's list that was compared."""

    file: str
    taken_at: Instant
    lines: int
    bad_lines: int


class LeaksDocument(Document):
    """What is not billed, and what is billed for nothing, a month."""

    read_at: Instant
    currency: str
    hours_per_month: int
    unbilled_monthly: Money
    billed_for_nothing_monthly: Money
    exceeds_tolerance: bool
    inventory: InventoryDocument | None
    remarks: list[str]
    reasons: list[LeakSumDocument]
    leaks: list[LeakDocument]

    @classmethod
    def of(cls, found: Leaks, *, exceeds: bool) -> Self:
        """Show all leaks, largest first."""
        inventory = found.inventory
        return cls(
            read_at=found.read_at,
            currency=found.currency,
            hours_per_month=found.hours_per_month,
            unbilled_monthly=found.unbilled.monthly,
            billed_for_nothing_monthly=found.billed_for_nothing.monthly,
            exceeds_tolerance=exceeds,
            inventory=InventoryDocument(
                file=inventory.file,
                taken_at=inventory.taken_at,
                lines=len(inventory.ids),
                bad_lines=inventory.bad_lines,
            )
            if inventory
            else None,
            remarks=found.remarks,
            reasons=[LeakSumDocument.of(one) for one in found.by_reason],
            leaks=[_leak(one) for one in found.leaks],
        )


def _leak(one: Leak) -> LeakDocument:
    return LeakDocument.model_validate(one)
