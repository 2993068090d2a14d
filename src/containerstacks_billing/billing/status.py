"""What the tables say about billing, as values: for the command, the status page and whoever watches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID


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
class Daemon:
    """The row with the newest heartbeat; its status is what the daemon last wrote."""

    instance: str
    status: str
    heartbeat_at: datetime | None
    started_at: datetime | None
    last_run_at: datetime | None
    last_run_success: bool | None
    error_message: str | None


@dataclass(frozen=True, slots=True)
class Status:
    """Who bills, what the last runs did, what waits for somebody; read at `now`, the database's clock.

    `last_run` is the last that ended, `last_success` the last over the whole fleet that completed, `open_run` one that
    has no end yet. `reasons` counts the instances that are set aside, `runways` the wallets that are empty within 3, 24
    and 72 hours, each once.
    """

    now: datetime
    daemon: Daemon | None
    holder: str | None
    last_run: RunRecord | None
    last_success: RunRecord | None
    open_run: RunRecord | None
    past_due_instances: int
    reasons: Mapping[str, int] = field(default_factory=dict)
    runways: Mapping[int, int] = field(default_factory=dict)

    @property
    def quarantined_instances(self) -> int:
        """How many instances are set aside for bad data."""
        return sum(count for reason, count in self.reasons.items() if reason != "held")

    @property
    def held_instances(self) -> int:
        """How many instances wait for a decision."""
        return self.reasons.get("held", 0)

    def next_due(self, interval: timedelta) -> datetime | None:
        """When the next run is due: an interval after the last success; None when there was none, so now."""
        return self.last_success.as_of + interval if self.last_success else None

    def is_late(self, failover_after: timedelta) -> bool:
        """Whether the last success is so long ago that somebody has to look."""
        return self.last_success is None or self.now - self.last_success.as_of > failover_after

    def daemon_is_active(self, failover_after: timedelta) -> bool:
        """Whether the newest heartbeat is recent."""
        beat = self.daemon.heartbeat_at if self.daemon else None
        return beat is not None and self.now - beat < failover_after
