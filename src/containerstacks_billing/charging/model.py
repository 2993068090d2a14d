"""What a run is made of, as values: its terms, its batches, what came of them.

The data of a run travels one way: settings → terms → plan → batches → batch results → run record → status.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

from containerstacks_billing.database.ids import FIRST_UUID, LAST_UUID


class Outcome(StrEnum):
    """How a run ended."""

    COMPLETED = "completed"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    HELD = "held"


@dataclass(frozen=True, slots=True)
class Terms:
    """The settings that decide what is charged, fixed for one run.

    `billable_statuses` is `("*",)` when every status is billed; `max_catch_up_hours` bounds what one instance may
    have due.
    """

    billable_statuses: tuple[str, ...] = ("running",)
    partial_hour: str = "prorate"
    hours_per_month: int = 730
    max_catch_up_hours: int = 72
    currency: str = "USD"
    brake_factor: Decimal = Decimal(3)


@dataclass(frozen=True, slots=True)
class Batch:
    """What one transaction charges: the organizations of a range, or a slice of one organization's instances.

    Both ends belong to the range. A slice holds only instances of one large organization, whose wallet covered all
    of it when the run was planned. A batch is ordinary when nothing but one hour was due of any instance then.
    """

    number: int
    first_organization: UUID
    last_organization: UUID
    instances: int
    first_instance: UUID = FIRST_UUID
    last_instance: UUID = LAST_UUID
    is_ordinary: bool = False

    @property
    def is_slice(self) -> bool:
        """Whether this is a part of one organization."""
        return (self.first_instance, self.last_instance) != (FIRST_UUID, LAST_UUID)


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What one transaction billed: instances, their hours, the exact amount."""

    instances: int = 0
    hours: Decimal = Decimal(0)
    amount: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A run whose row stands in the tables: the number it has, the instant it bills, the terms it bills by.

    `begins_policy` where BILLABLE_STATUSES or PARTIAL_HOUR are others than at the last run: they hold from `as_of` on.
    """

    run_id: int
    as_of: datetime
    terms: Terms
    fencing_token: int
    nonce: UUID
    organization: UUID | None = None
    begins_policy: bool = False


@dataclass(frozen=True, slots=True)
class RunResult:
    """A finished run, as its row in `billing_runs` says it."""

    run_id: int
    outcome: Outcome
    trigger: str
    as_of: datetime
    instances_billed: int
    hours: Decimal
    amount: Decimal
    past_due_instances: int
    quarantined_instances: int
    held_instances: int
    batches: int
    duration_seconds: float
    error_message: str | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: instances charged and planned, batches done and planned, the amount so far."""

    instances: int
    instances_planned: int
    batches: int
    batches_planned: int
    amount: Decimal
