"""Expected charges from the journal: lifetimes and prices. Instants are whole microseconds.

The clock may be set. It then goes through *passes*, one between two settings, and an instant can lie in several of
them. A price is in force at an instant if it was in force there in one of the passes. Where a time comes again, hours
of it that was not charged the first time may also have any price that was set before they were charged.

An instance's own time never goes back: a change begins no earlier than the one before it, nor than the end of what was
charged by then, as far as the clock had really come.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal, localcontext
from math import inf
from typing import Any
from uuid import UUID

import psycopg

HOUR = 3_600_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def instant(microseconds: int) -> str:
    """Return an instant in UTC as short text."""
    at = _EPOCH + timedelta(microseconds=microseconds)
    return at.strftime("%Y-%m-%d %H:%M:%S.%f").rstrip("0").removesuffix(".").removesuffix(":00")


def hours_of(start: int, until: int) -> Iterator[tuple[int, int]]:
    """Yield the hours of [start, until) from its start; the last may be partial."""
    while start < until:
        yield start, min(start + HOUR, until)
        start += HOUR


def minus(span: tuple[int, int], others: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield the parts of a span outside of others."""
    start, end = span
    for first, last in sorted(others):
        if last <= start or first >= end:
            continue
        if first > start:
            yield start, first
        start = max(start, last)
    if start < end:
        yield start, end


@dataclass(frozen=True, slots=True)
class OwedSpan:
    """A span in which an instance owes hours from `start` at the prices of one plan."""

    instance: UUID
    organization: UUID
    plan: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Price:
    number: int
    at: int
    seen_by: float
    monthly: Decimal


@dataclass(frozen=True, slots=True)
class _Pass:
    """One pass of the clock between two settings, and the event numbers in it."""

    first_number: float
    last_number: float
    begins: float
    ends: float


@dataclass
class History:
    """The journal in memory."""

    now: int
    statuses: frozenset[str]
    partial_hour: str
    hours_per_month: int
    currency: str
    instances: list[tuple[Any, ...]]
    steps: list[tuple[int, int, int]]
    prices: dict[UUID, list[_Price]] = field(default_factory=lambda: defaultdict(list))
    _names: dict[str, UUID] = field(default_factory=dict)
    _passes: list[_Pass] = field(default_factory=list)
    _known_rates: dict[tuple[str, int], frozenset[Decimal]] = field(default_factory=dict)
    _charged_until: dict[UUID, int] = field(default_factory=dict)

    @classmethod
    def read(cls, conn: psycopg.Connection[Any]) -> History:
        """Read the journal, and beside it the end of the last charge of every instance that is still there."""
        terms: tuple[Any, ...] = conn.execute(
            "select (extract(epoch from billing_clock()) * 1000000)::bigint, statuses, partial_hour, hours_per_month,"
            " currency from oracle.terms"
        ).fetchone() or (0, [], "", 1, "")
        instances = conn.execute(
            """
            select number, (extract(epoch from at) * 1000000)::bigint, instance_id, exists_now, organization_id, plan,
                status, (extract(epoch from starts_at) * 1000000)::bigint,
                (extract(epoch from charged_until) * 1000000)::bigint
            from oracle.instances order by number
            """
        ).fetchall()
        steps = conn.execute(
            "select number, (extract(epoch from before) * 1000000)::bigint,"
            " (extract(epoch from after) * 1000000)::bigint from oracle.steps order by number"
        ).fetchall()
        history = cls(terms[0], frozenset(terms[1]), terms[2], terms[3], terms[4], instances, steps)
        for number, at, seen_by, plan, name, monthly in conn.execute(
            """
            select number, (extract(epoch from at) * 1000000)::bigint,
                case when isfinite(seen_by) then (extract(epoch from seen_by) * 1000000)::bigint end,
                plan_id, name, monthly
            from oracle.prices order by number
            """
        ):
            history.prices[plan].append(_Price(number, at, inf if seen_by is None else seen_by, monthly))
            history._names.setdefault(name, plan)
        history._names.update({str(plan): plan for plan in history.prices})
        history._passes = list(history._find_passes())
        history._charged_until = dict(
            conn.execute(
                "select vps_instance_id, (extract(epoch from max(billing_period_end)) * 1000000)::bigint"
                " from vps_billing_cycles where run_id is not null group by 1"
            ).fetchall()
        )
        return history

    def owed_spans(self) -> Iterator[OwedSpan]:
        """Yield the owed spans: closed ones as the policy ends them, whole hours of open ones."""
        states: dict[UUID, tuple[int, UUID, str, str | None]] = {}
        for (
            number,
            at,
            identifier,
            exists,
            organization,
            plan,
            status,
            starts_at,
            charged_until,
        ) in self.instances:
            start = starts_at
            if before := states.pop(identifier, None):
                since, payer, its_plan, its_status = before
                start = self._end(since, its_status, max(at, min(charged_until or 0, self._highest(number))))
                if until := self._charged_to(since, its_status, start):
                    yield OwedSpan(identifier, payer, its_plan, since, until)
            if exists:
                states[identifier] = (start, organization, plan, status)
        for identifier, (start, organization, plan, status) in states.items():
            now = max(self.now, min(self._charged_until.get(identifier, 0), self._highest(inf)))
            hours = (now - start) // HOUR
            if hours > 0 and self._bills(status):
                yield OwedSpan(identifier, organization, plan, start, start + hours * HOUR)

    def rates(self, plan: str, at: int) -> frozenset[Decimal]:
        """Return the hourly rates that are right for an hour of a plan that starts at an instant; nearly always one."""
        key = (plan, at)
        if key not in self._known_rates:
            with localcontext(Context(prec=60)):
                self._known_rates[key] = frozenset(
                    (monthly / self.hours_per_month).quantize(Decimal("0.00000001"), ROUND_HALF_UP)
                    for monthly in self._monthly(plan, at)
                )
        return self._known_rates[key]

    def _monthly(self, plan: str, at: int) -> Iterator[Decimal]:
        versions = self.prices.get(self._names.get(plan, UUID(int=0)), [])
        # Set in a time that comes again, a price holds for hours that had passed already and were not charged yet.
        yield from (v.monthly for v in versions if v.at <= at <= self._highest(v.number))
        for one in self._passes:
            if not one.begins <= at <= one.ends:
                continue
            for version in reversed(versions):
                if version.number > one.last_number:
                    continue
                # The first price was in force since ever; what came before this pass holds when it begins.
                if version is versions[0] or version.number < one.first_number or version.at <= at:
                    yield version.monthly
                    if at >= version.seen_by or version is versions[0]:
                        break

    def _find_passes(self) -> Iterator[_Pass]:
        number, begins = -inf, -inf
        for step, before, after in self.steps:
            yield _Pass(number, step, begins, before)
            # An instant that the clock jumped over belongs to the pass after it.
            number, begins = step, min(before, after)
        yield _Pass(number, inf, begins, inf)

    def _highest(self, number: float) -> int:
        """Return how far the clock had come at most when something happened, as far as it was set back since."""
        count = bisect_left(self.steps, number, key=lambda step: step[0])
        return max((before for _, before, _ in self.steps[:count]), default=0)

    def _bills(self, status: str | None) -> bool:
        return "*" in self.statuses or status in self.statuses

    def _end(self, start: int, status: str | None, at: int) -> int:
        """Return where a span ends that is closed at an instant: under `full` with its started hour."""
        if at > start and self.partial_hour == "full" and self._bills(status):
            return start - (start - at) // HOUR * HOUR
        return max(at, start)

    def _charged_to(self, start: int, status: str | None, end: int) -> int:
        """Return until when a closed span is charged, 0 where it is not."""
        if not self._bills(status):
            return 0
        if self.partial_hour == "free":
            end = start + (end - start) // HOUR * HOUR
        return end if end > start else 0
