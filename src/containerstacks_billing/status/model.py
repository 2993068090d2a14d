"""How billing is, as values: what the tables say, and who bills by it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

from containerstacks_billing.settings import Settings
from containerstacks_billing.status.failover import INTERVAL, Reading, heartbeat_is_fresh, host_bills


@dataclass(frozen=True, slots=True)
class Limits:
    """How long is too long, from the settings; `interval` is how often the daemon bills.

    A heartbeat older than `silent_after` was missed more than once: somebody should look, though nobody takes over
    before `failover_after`. A run is late after `late_after`.
    """

    failover_after: timedelta
    silent_after: timedelta
    late_after: timedelta
    interval: timedelta


def limits_of(settings: Settings) -> Limits:
    """Read the limits off the settings."""
    failover_after = timedelta(minutes=settings.failover_after_minutes)
    interval = timedelta(minutes=settings.billing_interval_minutes)
    return Limits(
        failover_after=failover_after,
        silent_after=max(timedelta(minutes=5), timedelta(seconds=3 * settings.heartbeat_seconds)),
        # A daemon that bills more seldom than others would take over is late when it left out a run, and not before.
        late_after=failover_after if interval < failover_after else 2 * interval,
        interval=interval,
    )


class Biller(StrEnum):
    """Who bills at present."""

    DAEMON = "daemon"
    BUILT_IN = "built-in"
    HOST = "host"
    NOBODY = "nobody"


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
    """The row of the daemon with the newest heartbeat; `next_run_at` is the text that it wrote."""

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


@dataclass(frozen=True, slots=True)
class Lease:
    """Who holds the right to bill now, and for how many seconds still; without a holder it is free."""

    holder: str | None = None
    seconds_left: float = 0.0


@dataclass(frozen=True, slots=True)
class Health:
    """Everything that is shown of billing, read at `failover.now` by the database's clock."""

    failover: Reading
    daemon: DaemonRow | None = None
    last_finished: RunRecord | None = None
    last_successful: RunRecord | None = None
    in_progress: RunRecord | None = None
    lease: Lease = Lease()
    set_aside: dict[str, int] = field(default_factory=dict)
    events_pending: int = 0
    events_dead: int = 0

    @property
    def now(self) -> datetime:
        """The instant of this health."""
        return self.failover.now

    @property
    def held_instances(self) -> int:
        """Instances that wait for a decision about their hours."""
        return self.set_aside.get("held", 0)

    @property
    def quarantined_instances(self) -> int:
        """Instances set aside for bad data."""
        return sum(self.set_aside.values()) - self.held_instances


def biller(health: Health, failover_after: timedelta) -> Biller:
    """Tell who bills: a living daemon, else built-in billing if it did lately, else the host by itself, else nobody.

    Says it of the database, not of this process: any replica may be the one.
    """
    reading = health.failover
    if heartbeat_is_fresh(reading, failover_after):
        return Biller.DAEMON
    if reading.last_run_at is not None and reading.now - reading.last_run_at < 2 * INTERVAL:
        return Biller.BUILT_IN
    return Biller.HOST if host_bills(reading) else Biller.NOBODY


def silent_for(health: Health, limits: Limits) -> timedelta | None:
    """How long a daemon that should live has been silent, while nobody takes over yet; None when it is not.

    A daemon that somebody stopped says so itself.
    """
    if biller(health, limits.failover_after) is not Biller.DAEMON or is_stopped(health):
        return None
    beat = health.failover.heartbeat_at
    silence = health.now - beat if beat is not None else timedelta(0)
    return silence if silence >= limits.silent_after else None


def is_stopped(health: Health) -> bool:
    """Whether the daemon was stopped by somebody: it ended in order, and said so."""
    return health.daemon is not None and health.daemon.status == "stopped"


def run_is_late(health: Health, late_after: timedelta) -> bool:
    """Whether the daemon has not finished a run for so long; without a daemon, whether nobody has.

    One that never ran had time since it started.
    """
    row, last = health.daemon, health.last_finished
    if row is None:
        since = (last.finished_at or last.started_at) if last else None
    else:
        since = row.last_run_at or row.started_at
    return since is None or health.now - since >= late_after


@dataclass(frozen=True, slots=True)
class Status:
    """What `status` shows: the health, and what waits for somebody.

    `last_run` is the last that ended, also one over a single organization. `runways` counts the wallets that are empty
    within 3, 24 and 72 hours, each once.
    """

    health: Health
    last_run: RunRecord | None
    past_due_instances: int
    runways: Mapping[int, int] = field(default_factory=dict)

    @property
    def now(self) -> datetime:
        """The instant of this status, by the database's clock."""
        return self.health.now

    @property
    def last_success(self) -> RunRecord | None:
        """The last run over the whole fleet that completed."""
        return self.health.last_successful

    @property
    def reasons(self) -> Mapping[str, int]:
        """How many instances are set aside, by reason."""
        return self.health.set_aside

    def is_late(self, late_after: timedelta) -> bool:
        """Whether the last success is so long ago that somebody has to look."""
        return self.last_success is None or self.now - self.last_success.as_of > late_after
