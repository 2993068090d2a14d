"""The life of one instance as periods: each instant is billed, or there is one reason why it is not.

Several tables claim the same instant: a charge, a usage segment, a decision, the row itself. `lay_out` gives it to
the strongest claim, so the periods never overlap. What no table claims is returned as `UNKNOWN`: a discrepancy.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

from containerstacks_billing.explain.model import hours_of

# Where an open period ends: later than any instant that can be asked for.
FOREVER = datetime.fromisoformat("9999-01-01T00:00:00+00:00")


class State(StrEnum):
    """What became of a period."""

    BILLED = "billed"
    PAST_DUE = "past due"
    BY_HOST = "by the host"
    WAIVED = "waived"
    NOT_BILLABLE = "not billable"
    FREE = "free"
    HELD = "held"
    QUARANTINED = "quarantined"
    DUE = "due"
    NOT_DUE_YET = "not due yet"
    DELETED = "deleted"
    NOT_THERE_YET = "not there yet"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """[starts_at, ends_at) in one state; `detail` says why, in a sentence, and for what waits what to do."""

    starts_at: datetime
    ends_at: datetime
    state: State
    detail: str
    organization_id: UUID | None = None
    hourly_rate: Decimal | None = None
    amount: Decimal | None = None
    charge_id: UUID | None = None
    entry_id: UUID | None = None

    @property
    def hours(self) -> Decimal | None:
        """Return its hours, rounded to six digits; None where it has no end yet."""
        return None if self.ends_at >= FOREVER else hours_of(self.starts_at, self.ends_at)


def lay_out(claims: Iterable[Period], starts_at: datetime, ends_at: datetime) -> list[Period]:
    """Return periods without overlap or gap from `starts_at` to `ends_at`; earlier claims are stronger.

    A charge is never cut: one that reaches beyond the span is returned whole.
    """
    placed: list[Period] = []
    for claim in claims:
        if claim.starts_at >= ends_at or claim.ends_at <= starts_at:
            continue
        whole = (
            claim
            if claim.charge_id is not None
            else replace(
                claim, starts_at=max(claim.starts_at, starts_at), ends_at=min(claim.ends_at, ends_at)
            )
        )
        placed += [
            replace(whole, starts_at=begin, ends_at=end)
            for begin, end in _uncovered(whole.starts_at, whole.ends_at, placed)
        ]
    placed += [
        Period(
            starts_at=begin,
            ends_at=end,
            state=State.UNKNOWN,
            detail="No charge, segment or decision says what became of it; `verify` lists it under gaps.",
        )
        for begin, end in _uncovered(starts_at, ends_at, placed)
    ]
    return sorted(placed, key=lambda one: one.starts_at)


def _uncovered(
    starts_at: datetime, ends_at: datetime, placed: Sequence[Period]
) -> list[tuple[datetime, datetime]]:
    """Return the parts of a span that no period covers."""
    free = []
    for one in sorted(placed, key=lambda one: one.starts_at):
        if one.ends_at <= starts_at:
            continue
        if one.starts_at >= ends_at:
            break
        if one.starts_at > starts_at:
            free.append((starts_at, one.starts_at))
        starts_at = max(starts_at, one.ends_at)
    if starts_at < ends_at:
        free.append((starts_at, ends_at))
    return free


def merged(periods: Iterable[Period]) -> list[Period]:
    """Join neighbours that differ in nothing but the hour: same state, rate and reason. Amounts are added up."""
    joined: list[Period] = []
    for one in periods:
        last = joined[-1] if joined else None
        if last and last.ends_at == one.starts_at and _alike(last, one):
            amount = None if one.amount is None or last.amount is None else last.amount + one.amount
            joined[-1] = replace(last, ends_at=one.ends_at, amount=amount, charge_id=None, entry_id=None)
        else:
            joined.append(one)
    return joined


def _alike(one: Period, other: Period) -> bool:
    return (one.state, one.detail, one.hourly_rate, one.organization_id) == (
        other.state,
        other.detail,
        other.hourly_rate,
        other.organization_id,
    )
