"""Charges and ledger entries as JSON documents: one shape for `--json` and for the HTTP API.

Names are camelCase, money is written as decimal strings, instants in ISO 8601.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Literal
from uuid import UUID

from pydantic import Field

from containerstacks_billing.document import Document, Hours, Money
from containerstacks_billing.explain import model, why


class PriceDocument(Document):
    """A price of a plan per month."""

    valid_from: datetime | None = Field(description="null: since ever")
    valid_until: datetime | None = Field(description="null: until further notice")
    base: Money | None
    markup: Money | None
    monthly: Money
    backup_hourly: Money = Field(description="What an hour costs on top when backups are on")
    recorded_at: datetime | None
    recorded_by: str | None
    reason: str | None


class RateDocument(Document):
    """How an hourly rate follows from a price: monthly / hoursPerMonth, and backupHourly with backups."""

    price: PriceDocument
    hours_per_month: int
    backups: bool
    corrected_since: datetime | None = Field(description="When a correction replaced this price")
    before: PriceDocument | None = Field(description="The price of before")

    @classmethod
    def of(cls, one: model.Derivation) -> RateDocument:
        """Show a derivation."""
        return cls(
            price=_price(one.price),
            hours_per_month=one.hours_per_month,
            backups=one.backups,
            corrected_since=one.price.corrected_at,
            before=_price(one.before) if one.before is not None and one.before.monthly.is_finite() else None,
        )


def _price(price: model.Price) -> PriceDocument:
    return PriceDocument.model_validate(price)


class AdjustmentDocument(Document):
    """What a correction or an order changed about hours of a charge; a positive amount: the customer pays more."""

    adjustment_id: int
    kind: str = Field(description="correction, reversal, credit or audit")
    is_undo: bool
    correction_id: int | None
    order_id: int | None
    charge_id: UUID | None
    instance_id: UUID | None
    starts_at: datetime | None
    ends_at: datetime | None
    old_rate: Money | None
    new_rate: Money | None
    amount: Money
    entry_id: UUID | None
    posted_at: datetime
    decided_by: str
    reason: str | None


class RunDocument(Document):
    """The run that billed a charge."""

    run_id: int
    as_of: datetime | None
    trigger: str | None
    holder: str | None = Field(description="The process that held the lease")
    fencing_token: int | None = Field(description="The number of its lease")


class SegmentDocument(Document):
    """The closed part of the life of an instance that a charge is for."""

    segment_id: int
    status: str | None
    reason: str | None = Field(
        description="What closed it: status, plan, organization, backups, deleted or policy"
    )
    backups: bool | None
    closed_at: datetime | None


class ChargeDocument(Document):
    """A charge: its hours at its rate, where the rate comes from, and what became of it."""

    kind: Literal["charge"] = "charge"
    charge_id: UUID
    organization_id: UUID
    instance_id: UUID
    label: str | None
    plan_id: UUID | None
    plan: str | None
    starts_at: datetime
    ends_at: datetime
    hours: Hours
    hourly_rate: Money
    amount: Money
    stands_at: Money = Field(description="The amount after all adjustments")
    status: str
    by_host: bool = Field(description="Whether the host application wrote it by itself")
    entry_id: UUID | None = Field(description="null: past due, or below a cent and carried on")
    past_due_since: datetime | None
    paid_late_at: datetime | None
    rates: list[RateDocument]
    segment: SegmentDocument | None = Field(description="null: the instance ran on unchanged")
    run: RunDocument | None
    adjustments: list[AdjustmentDocument]

    @classmethod
    def of(cls, one: model.Charge) -> ChargeDocument:
        """Show a charge."""
        segment = None
        if one.segment_id is not None:
            segment = SegmentDocument(
                segment_id=one.segment_id,
                status=one.segment_status,
                reason=one.segment_reason,
                backups=one.backups,
                closed_at=one.closed_at,
            )
        return cls(
            charge_id=one.charge_id,
            organization_id=one.organization_id,
            instance_id=one.instance_id,
            label=one.label,
            plan_id=one.plan_id,
            plan=one.plan_name,
            starts_at=one.starts_at,
            ends_at=one.ends_at,
            hours=one.hours,
            hourly_rate=one.hourly_rate,
            amount=one.amount,
            stands_at=one.stands_at,
            status=one.status,
            by_host=one.by_host,
            entry_id=one.entry_id,
            past_due_since=one.past_due_since,
            paid_late_at=one.paid_late_at,
            rates=[RateDocument.of(derived) for derived in one.derivations],
            segment=segment,
            run=RunDocument.model_validate(one) if one.run_id is not None else None,
            adjustments=[AdjustmentDocument.model_validate(adjusted) for adjusted in one.adjustments],
        )


class EntryDocument(Document):
    """A ledger entry, and the charges and adjustments that it moves whole cents for."""

    kind: Literal["entry"] = "entry"
    entry_id: UUID
    organization_id: UUID
    organization: str | None
    amount: Money
    currency: str | None
    status: str | None
    payment_method: str
    reference: str | None
    description: str | None
    posted_at: datetime | None
    ours: bool = Field(description="Whether billing posted it; the host's entries name no charges")
    balance_before: Money | None
    balance_after: Money | None
    carry_before: Money | None
    exact_amount: Money = Field(description="The exact sum of its charges and adjustments")
    carry_after: Money | None
    adds_up: bool
    difference: Money = Field(description="By how much it debits more than its charges come to")
    findings: list[str]
    charges: list[ChargeDocument]
    adjustments: list[AdjustmentDocument]

    @classmethod
    def of(cls, one: model.EntryExplanation) -> EntryDocument:
        """Show an entry."""
        entry, findings = one.entry, one.findings()
        return cls(
            entry_id=entry.entry_id,
            organization_id=entry.organization_id,
            organization=entry.organization,
            amount=entry.amount,
            currency=entry.currency,
            status=entry.status,
            payment_method=entry.payment_method,
            reference=entry.reference,
            description=entry.description,
            posted_at=entry.posted_at,
            ours=entry.is_own,
            balance_before=entry.balance_before,
            balance_after=entry.balance_after,
            carry_before=entry.carry_before,
            exact_amount=one.exact,
            carry_after=one.carry_after if entry.is_own else None,
            adds_up=not findings,
            difference=one.difference if entry.is_own else Decimal(0),
            findings=findings,
            charges=[ChargeDocument.of(charge) for charge in one.charges],
            adjustments=[AdjustmentDocument.model_validate(adjusted) for adjusted in one.adjustments],
        )


class ExplainedCharge(ChargeDocument):
    """A charge with the ledger entry that pays for it."""

    adds_up: bool
    findings: list[str]
    entry: EntryDocument | None

    @classmethod
    def with_entry(cls, one: why.ChargeExplanation) -> ExplainedCharge:
        """Show a charge and its entry."""
        findings = one.findings()
        return cls(
            **ChargeDocument.of(one.charge).model_dump(),
            adds_up=not findings,
            findings=findings,
            entry=EntryDocument.of(one.paid_by) if one.paid_by else None,
        )
