"""Instances and organizations as JSON documents: one shape for `--json` and for the HTTP API."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import Field

from containerstacks_billing.document import Document, Hours, Money
from containerstacks_billing.explain import why
from containerstacks_billing.explain.charge_schemas import EntryDocument, ExplainedCharge
from containerstacks_billing.explain.timeline import FOREVER, Period


class PeriodDocument(Document):
    """A period of the life of an instance in one state, and why."""

    starts_at: datetime
    ends_at: datetime | None = Field(description="null: it goes on")
    hours: Hours | None
    state: str = Field(description="billed, past due, by the host, waived, not billable, free, held, quarantined,"
        " due, not due yet, deleted, not there yet or unknown")  # fmt: skip
    detail: str
    organization_id: UUID | None
    hourly_rate: Money | None
    amount: Money | None
    charge_id: UUID | None
    entry_id: UUID | None

    @classmethod
    def of(cls, one: Period) -> PeriodDocument:
        """Show a period."""
        shown = cls.model_validate(one)
        return shown.model_copy(update={"ends_at": None}) if one.ends_at >= FOREVER else shown


class InstanceHours(Document):
    """What became of each instant of a span of an instance."""

    instance_id: UUID
    starts_at: datetime
    ends_at: datetime
    stretches: list[PeriodDocument]


class InstanceDocument(Document):
    """What became of an instance at an instant, and in the span that ends there."""

    kind: Literal["instance"] = "instance"
    instance_id: UUID
    label: str | None
    organization_id: UUID | None
    plan: str | None
    status: str | None = Field(description="Its status at present; null: it is deleted")
    at: datetime
    state: str
    detail: str
    adds_up: bool
    findings: list[str]
    stretches: list[PeriodDocument]
    charge: ExplainedCharge | None

    @classmethod
    def of(cls, one: why.InstanceExplanation) -> InstanceDocument:
        """Show an instance."""
        findings = one.findings()
        return cls(
            instance_id=one.instance_id,
            label=one.label,
            organization_id=one.instance.organization_id if one.instance else one.here.organization_id,
            plan=one.instance.plan_name or one.instance.plan if one.instance else None,
            status=one.instance.status if one.instance else None,
            at=one.at,
            state=one.here.state,
            detail=one.here.detail,
            adds_up=not findings,
            findings=findings,
            stretches=[PeriodDocument.of(one) for one in one.periods],
            charge=ExplainedCharge.with_entry(one.charge) if one.charge else None,
        )


class WalletDocument(Document):
    """A wallet as it stands."""

    wallet_id: UUID
    currency: str | None
    balance: Money
    opening: Money = Field(description="What the balance was beyond its entries when billing first saw it")
    carry: Money
    past_due_since: datetime | None


class EntrySum(Document):
    """What the entries of one kind come to."""

    currency: str | None
    kind: str
    entries: int
    amount: Money


class InstanceNow(Document):
    """An instance at present, and why it is not billed where it is not."""

    instance_id: UUID
    label: str | None
    status: str | None
    billable: bool | None
    reason: str | None
    detail: str | None
    billed_until: datetime | None


class OrganizationDocument(Document):
    """The wallets of an organization, what moved them, its instances, and its last ledger entry."""

    kind: Literal["organization"] = "organization"
    organization_id: UUID
    name: str | None
    exists: bool
    at: datetime
    adds_up: bool
    findings: list[str]
    wallets: list[WalletDocument]
    entries: list[EntrySum]
    past_due_amount: Money
    past_due_charges: int
    instances: list[InstanceNow]
    last_entry: EntryDocument | None

    @classmethod
    def of(cls, one: why.OrganizationExplanation) -> OrganizationDocument:
        """Show an organization."""
        findings = one.findings()
        return cls(
            organization_id=one.organization_id,
            name=one.name,
            exists=one.exists,
            at=one.at,
            adds_up=not findings,
            findings=findings,
            wallets=[WalletDocument.model_validate(wallet) for wallet in one.wallets],
            entries=[EntrySum.model_validate(entry) for entry in one.entries],
            past_due_amount=one.past_due.amount,
            past_due_charges=one.past_due.charges,
            instances=[
                InstanceNow(
                    instance_id=instance.instance_id,
                    label=instance.label,
                    status=instance.status,
                    billable=instance.billable,
                    reason=instance.reason,
                    detail=instance.detail,
                    billed_until=instance.watermark,
                )
                for instance in one.instances
            ],
            last_entry=EntryDocument.of(one.last_entry) if one.last_entry else None,
        )
