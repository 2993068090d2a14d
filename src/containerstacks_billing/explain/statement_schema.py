"""A statement of account as one JSON document, and its fingerprint.

What is hashed is the document without what issuing adds: its number, when it was issued, and the hash itself.
Instants are in UTC and money is a decimal string, so equal books give equal bytes.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

from pydantic import Field

from containerstacks_billing.document import Document, Hours, Money

_SUBTRACTED = ("debited_later", "past_due", "debited_earlier", "carry_out")
ISSUED_FIELDS = ("number", "issued_at", "sha256", "changes")


class EntrySum(Document):
    """The ledger entries of one kind that were posted in the month."""

    kind: str = Field(
        description="opening (of a new wallet), billing, correction, reversal, credit, other billing, top-up,"
        " host billing, host debit or accepted (a difference between balance and entries that an operator accepted)"
    )
    entries: int
    amount: Money


class SingleEntry(Document):
    """One ledger entry that is not an hourly debit."""

    posted_at: datetime
    kind: str
    amount: Money
    description: str | None


class UsageLine(Document):
    """The hours of one instance at one rate: wholeHours x hourlyRate + partAmount = amount."""

    instance_id: UUID
    label: str | None
    deleted: bool
    plan_id: UUID | None
    plan: str | None
    first_at: datetime
    last_at: datetime
    hours: Hours
    hourly_rate: Money
    whole_hours: int
    part_seconds: Hours = Field(
        description="Begun hours, in seconds; each was rounded to eight digits by itself"
    )
    part_amount: Money
    amount: Money
    past_due: Money = Field(description="What of it the wallet could not pay by the end of the month")
    debited_later: Money = Field(description="What of it was charged after the end of the month")


class UsageAdjustment(Document):
    """An adjustment posted in the month; a positive amount: the customer pays more. A repayment names no instance."""

    instance_id: UUID | None
    label: str | None
    kind: str = Field(description="correction, reversal, credit or audit")
    correction_id: int | None
    order_id: int | None
    posted_at: datetime
    first_at: datetime
    last_at: datetime
    hours: Hours
    months: list[str] = Field(description="The months whose hours it is about")
    reason: str | None
    amount: Money


class HostLine(Document):
    """What the host application billed for an instance by itself; part of neither account of ours."""

    instance_id: UUID
    label: str | None
    first_at: datetime
    last_at: datetime
    periods: int
    hours: Hours
    amount: Money


class Usage(Document):
    """The hours that start in the month, and the corrections posted in it: charges + adjusted = amount."""

    lines: list[UsageLine]
    adjustments: list[UsageAdjustment]
    hours: Hours
    charges: Money
    adjusted: Money
    amount: Money
    by_the_host: list[HostLine]
    by_the_host_amount: Money


class Reconciling(Document):
    """From the usage of the month to its debits.

    usage - debitedLater - pastDue - debitedEarlier + forEarlierMonths + pastDueCollected + aheadOfMonth + carryIn
    - carryOut = debits, of which debitsInOtherCurrencies are on other wallets.
    """

    usage: Money
    debited_later: Money = Field(description="Hours of the month that were charged after its end")
    past_due: Money = Field(description="Hours of the month that the wallet could not pay by its end")
    debited_earlier: Money = Field(description="Hours of the month that were charged before it began")
    for_earlier_months: Money = Field(description="Hours of earlier months that were charged in this one")
    past_due_collected: Money = Field(
        description="Past-due hours of earlier months that were paid in this one"
    )
    ahead_of_month: Money = Field(description="Hours of later months that were charged in this one")
    carry_in: Money = Field(description="Below a cent: billed before the month and not debited by then")
    carry_out: Money = Field(description="The same at the end of the month")
    debits: Money
    debits_in_other_currencies: Money
    difference: Money = Field(description="0, or the books are damaged")

    def steps(self) -> list[tuple[str, Decimal]]:
        """Return the steps from usage to debits with their signs, so that they add up, without those of nothing."""
        found = [
            (name, -amount if name in _SUBTRACTED else amount)
            for name, amount in self
            if amount and name not in ("debits", "debits_in_other_currencies", "difference")
        ]
        if not self.usage:
            found.insert(0, ("usage", self.usage))
        return [*found, ("debits", self.debits)]


class Statement(Document):
    """One month of an organization: a cash account, a usage account, and what connects them."""

    kind: Literal["statement"] = "statement"
    version: Literal[1] = 1
    number: int | None = Field(default=None, description="Given when it is issued; null: a preview")
    issued_at: datetime | None = None
    sha256: str | None = None
    organization_id: UUID
    organization: str | None
    address: str | None
    tax_id: str | None
    deleted: bool = Field(description="Whether the organization, and its ledger with it, is gone")
    month: str
    timezone: str
    starts_at: datetime
    ends_at: datetime
    currency: str
    complete: bool = Field(description="Whether the month is over and its last hour was billed")
    opening: Money | None = Field(description="null: there is no wallet")
    entries: list[EntrySum]
    single_entries: list[SingleEntry]
    closing: Money | None
    usage: Usage
    reconciling: Reconciling | None = Field(description="null: the organization and its ledger are deleted")
    findings: list[str] = Field(description="What does not add up, in sentences; empty where all does")
    changes: list[str] = Field(default=[], description="What the books say otherwise since it was issued")

    @property
    def is_empty(self) -> bool:
        """Whether nothing was used, nothing moved and nothing stands on the wallet."""
        usage = self.usage
        used = usage.lines or usage.adjustments or usage.by_the_host
        return not (self.opening or self.closing or self.entries or used)


def content(statement: Statement) -> dict[str, Any]:
    """Return what is hashed, as values of JSON."""
    return statement.model_dump(mode="json", by_alias=True, exclude=set(ISSUED_FIELDS))


def fingerprint(statement: Statement) -> str:
    """Return the SHA-256 of the content: keys sorted, no blanks, UTF-8."""
    text = json.dumps(content(statement), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
