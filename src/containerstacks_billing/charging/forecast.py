"""The result of a dry run, and the accumulator of what its batches came to. Memory does not grow with the fleet."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from containerstacks_billing.charging.model import Batch, BatchResult, Outcome
from containerstacks_billing.database.ids import FIRST_UUID
from containerstacks_billing.money import floor_to_cent
from containerstacks_billing.status.model import RunRecord


@dataclass(frozen=True, slots=True)
class OrganizationForecast:
    """What a run would bill one organization, and its wallet afterwards.

    `amount` is exact, `debit` its whole cents. `owed` is what would be past due, older charges included.
    """

    organization: UUID
    name: str | None
    instances: int
    hours: Decimal
    amount: Decimal
    debit: Decimal
    balance: Decimal
    carry: Decimal
    owed: Decimal

    @property
    def missing(self) -> Decimal:
        """What the wallet lacks to pay everything that is past due."""
        return max(self.owed - (self.balance - self.carry), Decimal(0)) if self.owed else Decimal(0)

    def joined(self, slice_: OrganizationForecast) -> OrganizationForecast:
        """Add another slice of the same organization, which was rolled back too and so began from the same wallet."""
        amount = self.amount + slice_.amount
        carry_before = self.carry - self.amount + self.debit
        debit = floor_to_cent(carry_before + amount)
        return replace(
            self,
            instances=self.instances + slice_.instances,
            hours=self.hours + slice_.hours,
            amount=amount,
            debit=debit,
            balance=self.balance + self.debit - debit,
            carry=carry_before + amount - debit,
        )


@dataclass(frozen=True, slots=True)
class QuarantineEntry:
    """An instance that would be quarantined or held, and why."""

    organization: UUID
    instance: UUID
    label: str | None
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class BatchForecast:
    """What one rolled-back batch found in the organizations that it reports."""

    result: BatchResult
    organizations: tuple[OrganizationForecast, ...] = ()
    quarantine: tuple[QuarantineEntry, ...] = ()
    past_due_instances: int = 0


@dataclass(frozen=True, slots=True)
class DryRunResult:
    """What a run would do as of now. Lists are bounded; the counts beside them are not."""

    outcome: Outcome
    as_of: datetime
    error_message: str | None = None
    changes: tuple[str, ...] = ()
    last_run: RunRecord | None = None
    billable_instances: int = 0
    duration_seconds: float = 0
    largest: tuple[OrganizationForecast, ...] = ()
    short: tuple[OrganizationForecast, ...] = ()
    quarantine: tuple[QuarantineEntry, ...] = ()
    reasons: Mapping[str, int] = field(default_factory=dict)
    batches: int = 0
    instances_billed: int = 0
    hours: Decimal = Decimal(0)
    amount: Decimal = Decimal(0)
    debited: Decimal = Decimal(0)
    past_due_instances: int = 0
    quarantined_instances: int = 0
    held_instances: int = 0
    organizations_billed: int = 0
    organizations_short: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """How many rows of each list are kept; None keeps all, and then memory grows with the fleet."""

    largest: int | None = 15
    short: int | None = 1000
    quarantine: int | None = 1000


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


class Forecast:
    """The sum of all batches so far; any thread may add one.

    A large organization comes in slices, each rolled back by itself: they are joined, and it is counted at the end.
    What else the first slice reports comes with it alone.
    """

    def __init__(self, limits: Limits) -> None:
        self._lock = threading.Lock()
        self._limits = limits
        self._counts: Counter[str] = Counter()
        self._hours = self._amount = self._debited = Decimal(0)
        self._largest = _Largest(limits.largest, lambda one: one.amount)
        self._short = _Largest(limits.short, lambda one: one.missing)
        self._quarantine: list[QuarantineEntry] = []
        self._reasons: Counter[str] = Counter()
        self._sliced: dict[UUID, OrganizationForecast] = {}

    def add(self, batch: Batch, found: BatchForecast) -> None:
        """Add what one batch found."""
        with self._lock:
            self._counts["batches"] += 1
            is_first = batch.first_instance == FIRST_UUID
            if is_first:
                self._count(found)
            for one in found.organizations:
                if batch.is_slice and one.organization == batch.first_organization:
                    before = self._sliced.get(one.organization)
                    self._sliced[one.organization] = before.joined(one) if before else one
                elif is_first:
                    self._add_organization(one)

    def completed(self, known: DryRunResult) -> DryRunResult:
        """Return what is known of the dry run as a whole, completed with the sum of its batches."""
        with self._lock:
            for one in self._sliced.values():
                self._add_organization(one)
            self._sliced.clear()
            counts: dict[str, Any] = dict(self._counts)
            return replace(
                known,
                largest=self._largest.ordered(),
                short=self._short.ordered(),
                quarantine=tuple(self._quarantine),
                reasons=dict(self._reasons.most_common()),
                hours=self._hours,
                amount=self._amount,
                debited=self._debited,
                **counts,
            )

    def _count(self, found: BatchForecast) -> None:
        held = sum(one.reason == "held" for one in found.quarantine)
        self._counts["past_due_instances"] += found.past_due_instances
        self._counts["held_instances"] += held
        self._counts["quarantined_instances"] += len(found.quarantine) - held
        self._reasons.update(one.reason for one in found.quarantine)
        room = None if self._limits.quarantine is None else self._limits.quarantine - len(self._quarantine)
        self._quarantine.extend(found.quarantine[:room])

    def _add_organization(self, one: OrganizationForecast) -> None:
        if one.instances:
            self._counts["organizations_billed"] += 1
            self._counts["instances_billed"] += one.instances
            self._hours += one.hours
            self._amount += one.amount
            self._debited += one.debit
            self._largest.add(one)
        if one.owed:
            self._counts["organizations_short"] += 1
            self._short.add(one)
