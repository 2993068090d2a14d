"""JSON documents of `months`."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from pydantic import Field

from containerstacks_billing.document import Document, Hours, Instant, Money
from containerstacks_billing.months.model import FrozenSums, KnownMonth, MonthStatus


class MonthDocument(Document):
    """One month: an hour belongs to the month in which it starts, in UTC."""

    month: str = Field(description="2026-10")
    state: str = Field(description="open, closable, closing or closed")
    rows: int = Field(description="Charges whose first hour is in the month")
    bytes: int = Field(description="Their share of the table with its indexes")
    organizations: int
    hours: Hours
    amount: Money = Field(description="Exact sum of the billed hours")
    past_due_rows: int
    past_due_amount: Money
    adjustments: Money = Field(description="Price corrections that were posted in the month")
    debits: Money = Field(description="Ledger entries of billing that were posted in the month")
    credits: Money
    waiting: list[str] = Field(description="Why it is not closable; empty where it is")
    sha256: str | None = Field(description="The hash of a closed month; null before")


class MonthsDocument(Document):
    """Every month from that of the first charge to the present one."""

    as_of: Instant
    months: list[MonthDocument]

    @classmethod
    def of(cls, as_of: datetime, months: list[MonthStatus]) -> MonthsDocument:
        """Return the document of a list of months."""
        return cls(as_of=as_of, months=[_month(one) for one in months])


def _month(one: MonthStatus) -> MonthDocument:
    sums = {name: getattr(one.sums, name) for name in MonthDocument.model_fields if hasattr(one.sums, name)}
    reasons = [*one.waiting, *([one.unverified] if one.unverified else [])]
    return MonthDocument(month=one.sums.name, state=one.state, waiting=reasons, sha256=one.sha256, **sums)


class ClosedMonthDocument(Document):
    """A month that was closed, or with dryRun what closing it would freeze."""

    month: str
    state: str
    dry_run: bool
    organizations: int
    charges: int = Field(description="Charges with billed hours in the month")
    hours: Hours
    amount: Money
    late_amount: Money = Field(description="Billed in it for hours of months that were closed before")
    debits: Money
    credits: Money
    closed_by: str | None
    closed_at: Instant | None
    sha256: str | None

    @classmethod
    def of(cls, month: str, sums: FrozenSums, known: KnownMonth | None) -> ClosedMonthDocument:
        """Return the document of a closed month; of a dry run where it is not known yet."""
        return cls(
            month=month,
            state=known.state if known else "closable",
            dry_run=known is None,
            closed_by=known.closed_by if known else None,
            closed_at=known.closed_at if known else None,
            sha256=known.sha256 if known else None,
            **{name: getattr(sums, name) for name in FrozenSums.__slots__},
        )


class MonthDifferenceDocument(Document):
    """Something of a closed month that is not what was frozen."""

    month: str
    organization_id: UUID | None
    message: str


class MonthsProofDocument(Document):
    """The proof of closed months."""

    ok: bool
    months: list[str]
    sha256: str | None = Field(description="The hash of the last month, which all others lead to")
    discrepancies: list[MonthDifferenceDocument]


class FrozenTotalDocument(Document):
    """What is frozen of one organization; its account is null where it was deleted before."""

    organization_id: UUID
    organization: str | None = Field(description="Its name today; null where it is deleted")
    charges: int
    instances: int
    hours: Hours
    amount: Money
    late_charges: int
    late_amount: Money
    billed: Money | None
    adjustments: Money | None
    debits: Money | None
    credits: Money | None
    carry_in: Money | None
    carry_out: Money | None
    sha256: str = Field(description="Over the lines of its hours, as months export writes them")


class FrozenMonthDocument(Document):
    """A closed month with what is frozen of each organization."""

    month: str
    closed_by: str
    closed_at: Instant
    last_run_id: int
    previous_sha256: str | None
    sha256: str
    organizations: list[FrozenTotalDocument]
