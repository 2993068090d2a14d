"""How billing is, as values: what the tables say, and who bills by it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum

from containerstacks_billing.billing.failover import INTERVAL, Reading, heartbeat_is_fresh, host_bills
from containerstacks_billing.billing.status import RunRecord


class Biller(StrEnum):
    """Who bills at present."""

    DAEMON = "daemon"
    BUILT_IN = "built-in"
    HOST = "host"
    NOBODY = "nobody"


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


def run_is_late(health: Health, failover_after: timedelta) -> bool:
    """Whether the daemon has not finished a run for `failover_after`, or never: what the page warns of."""
    last = health.daemon.last_run_at if health.daemon else None
    return last is None or health.now - last >= failover_after
