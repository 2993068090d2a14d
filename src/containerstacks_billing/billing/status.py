"""What the tables say about billing, as values: for the command, the status page and whoever watches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from containerstacks_billing.billing.health import Health


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
