"""Values read from the tables: daemon, runs, lease, quarantine, wallets; and the time limits.

Everything is as of one instant of the database's clock. Who bills by these values is derived in verdict.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from containerstacks_billing.settings import Settings
from containerstacks_billing.status.failover import Reading


@dataclass(frozen=True, slots=True)
class Limits:
    """Time limits from the settings; `interval` is the distance of two runs of the daemon.

    A heartbeat older than `silent_after` is missing, though failover waits for `failover_after`. A run is late after
    `late_after`.
    """

    failover_after: timedelta
    silent_after: timedelta
    late_after: timedelta
    interval: timedelta


def limits_of(settings: Settings) -> Limits:
    """Return the time limits of these settings."""
    failover_after = timedelta(minutes=settings.failover_after_minutes)
    interval = timedelta(minutes=settings.billing_interval_minutes)
    return Limits(
        failover_after=failover_after,
        silent_after=max(timedelta(minutes=5), timedelta(seconds=3 * settings.heartbeat_seconds)),
        # With an interval as long as the failover threshold, a run is late when one was left out, and not before.
        late_after=failover_after if interval < failover_after else 2 * interval,
        interval=interval,
    )


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A row of `billing_runs`; outcome, end and duration are None while the run is open."""

    run_id: int
    outcome: str | None
    trigger: str
    holder: str
    organization: UUID | None
    as_of: datetime
    started_at: datetime
    finished_at: datetime | None
    instances_planned: int
    batches_planned: int
    instances_billed: int
    hours: Decimal
    amount: Decimal
    past_due_instances: int
    quarantined_instances: int
    held_instances: int
    batches: int
    duration_seconds: float | None
    error_message: str | None


@dataclass(frozen=True, slots=True)
class DaemonRow:
    """The row of the daemon with the newest heartbeat; `next_run_at` and `process` are as it wrote them."""

    daemon_instance_id: str
    status: str
    error_message: str | None
    last_run_at: datetime | None
    last_run_success: bool | None
    instances_billed: int
    total_amount: Decimal
    total_hours: Decimal
    started_at: datetime | None
    heartbeat_at: datetime | None
    next_run_at: str | None
    process: dict[str, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class Lease:
    """The holder of the lease, and for how many seconds it still holds; without a holder the lease is free."""

    holder: str | None = None
    seconds_left: float = 0.0


@dataclass(frozen=True, slots=True)
class Health:
    """What the tables say of billing at `failover.now`.

    `last_finished` is the last run over the whole fleet that ended, `last_successful` the last that completed. The row
    `daemon` is that of `failover.heartbeat_at`.
    """

    failover: Reading
    daemon: DaemonRow | None = None
    last_finished: RunRecord | None = None
    last_successful: RunRecord | None = None
    in_progress: RunRecord | None = None
    lease: Lease = Lease()
    quarantine: dict[str, int] = field(default_factory=dict)
    events_pending: int = 0
    events_dead: int = 0

    @property
    def now(self) -> datetime:
        """The instant of this health, by the database's clock."""
        return self.failover.now

    @property
    def held_instances(self) -> int:
        """Instances whose hours wait for a decision."""
        return self.quarantine.get("held", 0)

    @property
    def quarantined_instances(self) -> int:
        """Instances set apart for bad data."""
        return sum(self.quarantine.values()) - self.held_instances


@dataclass(frozen=True, slots=True)
class Status:
    """What `status` and `doctor` show: the health, and what needs attention.

    `last_run` is the last that ended, also one over a single organization. `runways` counts the wallets that are empty
    within 3, 24 and 72 hours, each once; one that is empty already counts as within 3.
    """

    health: Health
    last_run: RunRecord | None
    past_due_instances: int
    runways: Mapping[int, int] = field(default_factory=dict)

    @property
    def now(self) -> datetime:
        """The instant of this status, by the database's clock."""
        return self.health.now


@dataclass(frozen=True, slots=True)
class QuarantineEntry:
    """An instance that the last run left out, and why."""

    reason: str
    detail: str
    first_seen_at: datetime
    due_hours: Decimal | None
    organization: str | None
    label: str | None


@dataclass(frozen=True, slots=True)
class PastDueWallet:
    """An organization that owes: since when, for how many instances, how much; `labels` names a few of them."""

    organization: str | None
    past_due_since: datetime
    instances: int
    amount: Decimal
    labels: list[str]


@dataclass(frozen=True, slots=True)
class Runway:
    """A wallet that owes nothing yet: its balance, what it burns per hour, and when it is empty."""

    organization: str | None
    balance: Decimal
    currency: str
    burn_per_hour: Decimal
    empties_at: datetime


@dataclass(frozen=True, slots=True)
class AnnouncedPrice:
    """An announced price of a plan per month, and the one before it; None where that one cannot be charged."""

    plan: str
    valid_from: datetime
    before: Decimal | None
    after: Decimal | None


@dataclass(frozen=True, slots=True)
class LeakSum:
    """What one reason comes to a month; `for_nothing` where customers pay for what does not exist."""

    reason: str
    leaks: int
    unknown_price: int
    monthly: Decimal
    for_nothing: bool


@dataclass(frozen=True, slots=True)
class LeakSums:
    """What the last look for leaks found: money a month that is not billed, by reason, largest first."""

    read_at: datetime
    currency: str
    document: list[dict[str, Any]]

    @property
    def reasons(self) -> list[LeakSum]:
        """The sums by reason."""
        return [
            LeakSum(
                one["reason"],
                int(one["leaks"]),
                int(one["unknownPrice"]),
                Decimal(one["monthly"]),
                bool(one["forNothing"]),
            )
            for one in self.document
        ]

    @property
    def monthly(self) -> Decimal:
        """What is not billed a month, as far as its price is known."""
        return sum((one.monthly for one in self.reasons if not one.for_nothing), Decimal(0))


@dataclass(frozen=True, slots=True)
class Details:
    """What the status page shows to admins beside the health: bounded lists, the most urgent row first."""

    runs: tuple[RunRecord, ...] = ()
    quarantine: tuple[QuarantineEntry, ...] = ()
    past_due: tuple[PastDueWallet, ...] = ()
    runways: tuple[Runway, ...] = ()
    levels: Mapping[int, int] = field(default_factory=dict)
    prices: tuple[AnnouncedPrice, ...] = ()
    leaks: LeakSums | None = None
