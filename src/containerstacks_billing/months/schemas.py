"""JSON documents of `months`."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from containerstacks_billing.document import Document, Hours, Instant, Money
from containerstacks_billing.months.model import MonthStatus


class MonthDocument(Document):
    """One month: an hour belongs to the month in which it starts, in UTC."""

    month: str = Field(description="2026-10")
    state: str = Field(description="open or closable")
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
    return MonthDocument(month=one.sums.name, state=one.state, waiting=list(one.waiting), **sums)
