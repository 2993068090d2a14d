"""Adds up what the batches of a dry run found, and keeps as much of it as will be shown."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from containerstacks_billing.charging.forecast import BatchForecast, OrganizationForecast, Rehearsal, SetAside
from containerstacks_billing.charging.model import Batch, Outcome
from containerstacks_billing.database.ids import FIRST_UUID
from containerstacks_billing.status.model import RunRecord


@dataclass(frozen=True, slots=True)
class Limits:
    """How many rows of each list are kept; None keeps all, and then memory grows with the fleet."""

    largest: int | None = 15
    short: int | None = 1000
    set_aside: int | None = 1000


@dataclass
class _Largest:
    """The organizations with the highest value of something, at most so many of them."""

    limit: int | None
    value: Callable[[OrganizationForecast], Decimal]
    heap: list[tuple[Decimal, int, OrganizationForecast]] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def add(self, one: OrganizationForecast) -> None:
        heapq.heappush(self.heap, (self.value(one), next(self.numbers), one))
        if self.limit is not None and len(self.heap) > self.limit:
            heapq.heappop(self.heap)

    def ordered(self) -> tuple[OrganizationForecast, ...]:
        return tuple(
            one for _, _, one in sorted(self.heap, key=lambda entry: (-entry[0], str(entry[2].name)))
        )


class Forecasts:
    """The forecasts of all batches so far; any thread may add one.

    A large organization comes in slices, each rolled back by itself: they are joined, and it is counted at the end.
    What else stands in the territory of a slice comes with the first one alone.
    """

    def __init__(self, limits: Limits) -> None:
        self._lock = threading.Lock()
        self._limits = limits
        self._sums = _Sums()
        self._largest = _Largest(limits.largest, lambda one: one.amount)
        self._short = _Largest(limits.short, lambda one: one.missing)
        self._set_aside: list[SetAside] = []
        self._reasons: Counter[str] = Counter()
        self._sliced: dict[UUID, OrganizationForecast] = {}

    def add(self, batch: Batch, forecast: BatchForecast) -> None:
        """Add what one batch found."""
        with self._lock:
            self._sums.batches += 1
            is_first = batch.first_instance == FIRST_UUID
            if is_first:
                self._count(forecast)
            for one in forecast.organizations:
                if batch.is_slice and one.organization == batch.first_organization:
                    before = self._sliced.get(one.organization)
                    self._sliced[one.organization] = before.joined(one) if before else one
                elif is_first:
                    self._add_organization(one)

    def total(
        self,
        outcome: Outcome,
        as_of: datetime,
        *,
        error_message: str | None,
        changes: tuple[str, ...],
        last: RunRecord | None,
        billable_instances: int,
        duration_seconds: float,
    ) -> Rehearsal:
        """Return everything as one value."""
        with self._lock:
            for one in self._sliced.values():
                self._add_organization(one)
            self._sliced.clear()
            sums = self._sums
            return Rehearsal(
                outcome=outcome,
                as_of=as_of,
                duration_seconds=duration_seconds,
                batches=sums.batches,
                instances_billed=sums.instances,
                hours=sums.hours,
                amount=sums.amount,
                debited=sums.debited,
                past_due_instances=sums.past_due,
                quarantined_instances=sums.quarantined,
                held_instances=sums.held,
                organizations_billed=sums.billed,
                organizations_short=sums.short,
                largest=self._largest.ordered(),
                short=self._short.ordered(),
                set_aside=tuple(self._set_aside),
                reasons=dict(self._reasons.most_common()),
                changes=changes,
                last=last,
                billable_instances=billable_instances,
                error_message=error_message,
            )

    def _count(self, forecast: BatchForecast) -> None:
        self._sums.past_due += forecast.past_due_instances
        self._sums.quarantined += forecast.quarantined_instances
        self._sums.held += forecast.held_instances
        self._reasons.update(one.reason for one in forecast.set_aside)
        room = None if self._limits.set_aside is None else self._limits.set_aside - len(self._set_aside)
        self._set_aside.extend(forecast.set_aside[:room])

    def _add_organization(self, one: OrganizationForecast) -> None:
        if one.instances:
            self._sums.billed += 1
            self._sums.instances += one.instances
            self._sums.hours += one.hours
            self._sums.amount += one.amount
            self._sums.debited += one.debit
            self._largest.add(one)
        if one.owed:
            self._sums.short += 1
            self._short.add(one)


@dataclass
class _Sums:
    """What is counted of everything, also of what is not kept."""

    batches: int = 0
    instances: int = 0
    hours: Decimal = Decimal(0)
    amount: Decimal = Decimal(0)
    debited: Decimal = Decimal(0)
    billed: int = 0
    short: int = 0
    past_due: int = 0
    quarantined: int = 0
    held: int = 0
