"""Months of charges as values: their sums, and what keeps one from being complete."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID

from containerstacks_billing.database.ids import FIRST_UUID, LAST_UUID
from containerstacks_billing.text import counted, minute


class MonthState(StrEnum):
    """How far the closing of a month is."""

    OPEN = "open"
    CLOSABLE = "closable"
    CLOSING = "closing"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class MonthSums:
    """What the hours that start in one month come to, and what was posted in it.

    `rows` are charges whose first hour is in the month, `bytes` their share of the table with its indexes. `hours` and
    `amount` are those of billed charges; past-due ones are counted by themselves. `debits`, `credits` and
    `adjustments` count by the instant at which they were posted.
    """

    starts_at: datetime
    ends_at: datetime
    rows: int
    bytes: int
    organizations: int
    hours: Decimal
    amount: Decimal
    past_due_rows: int
    past_due_amount: Decimal
    adjustments: Decimal
    debits: Decimal
    credits: Decimal

    @property
    def name(self) -> str:
        """Return its name: 2026-10."""
        return f"{self.starts_at.astimezone(UTC):%Y-%m}"


@dataclass(frozen=True, slots=True)
class Waiting:
    """What of an ended month is neither charged nor decided."""

    uncharged_instances: int
    unsettled_segments: int
    unposted_corrections: int

    def sentences(self) -> list[str]:
        """Return one sentence for each thing that waits."""
        found = []
        if self.uncharged_instances:
            found.append(
                f"{counted(self.uncharged_instances, 'instance')} not charged to the end of the month"
            )
        if self.unsettled_segments:
            found.append(f"{counted(self.unsettled_segments, 'usage segment')} not charged yet")
        if self.unposted_corrections:
            found.append(f"{counted(self.unposted_corrections, 'price correction')} not posted in full")
        return found


@dataclass(frozen=True, slots=True)
class LastVerification:
    """When all the books were compared last, and how many discrepancies there were."""

    read_at: datetime
    discrepancies: int


@dataclass(frozen=True, slots=True)
class MonthStatus:
    """A month, its state, and the sentences that say what it waits for.

    `unverified` says why the last result of verify does not do; `sha256` is the hash of a closed month.
    """

    sums: MonthSums
    state: MonthState
    waiting: tuple[str, ...] = ()
    unverified: str | None = None
    sha256: str | None = None


def status_of(
    sums: MonthSums, waiting: Waiting | None, verified: LastVerification | None, now: datetime
) -> MonthStatus:
    """Return the state of a month: closable once it ended, nothing of it waits, and verify found nothing since."""
    if now < sums.ends_at:
        return MonthStatus(sums, MonthState.OPEN, (f"it ends at {minute(sums.ends_at)} UTC",))
    found = tuple(waiting.sentences()) if waiting else ()
    unverified = None
    if verified is None or verified.read_at < sums.ends_at:
        unverified = "not verified since it ended: containerstacks-billing verify"
    elif verified.discrepancies:
        unverified = (
            f"verify found {counted(verified.discrepancies, 'discrepancy')} at {minute(verified.read_at)} UTC"
        )
    state = MonthState.OPEN if found or unverified else MonthState.CLOSABLE
    return MonthStatus(sums, state, found, unverified)


@dataclass(frozen=True, slots=True)
class Span:
    """A month, its instants, and the last run whose charges for its hours are frozen in it."""

    month: str
    starts_at: datetime
    ends_at: datetime
    last_run_id: int

    def values(self, first: UUID = FIRST_UUID, last: UUID = LAST_UUID) -> dict[str, Any]:
        """Return what the statements of a month bind, for a range of organizations."""
        return {
            "month": self.month,
            "from": self.starts_at,
            "until": self.ends_at,
            "last_run_id": self.last_run_id,
            "first_organization": first,
            "last_organization": last,
        }


@dataclass(frozen=True, slots=True)
class KnownMonth:
    """A month that is closed or being closed, as its row says."""

    month: str
    starts_at: datetime
    ends_at: datetime
    state: str
    last_run_id: int
    closed_by: str
    closing_since: datetime
    closed_at: datetime | None
    previous_sha256: str | None
    sha256: str | None

    @property
    def span(self) -> Span:
        """Return what its statements bind."""
        return Span(self.month, self.starts_at, self.ends_at, self.last_run_id)


@dataclass(frozen=True, slots=True)
class FrozenSums:
    """What is, or would be, frozen of a month; `late_amount` was billed in it for hours of months closed before."""

    organizations: int
    charges: int
    hours: Decimal
    amount: Decimal
    late_amount: Decimal
    debits: Decimal
    credits: Decimal
