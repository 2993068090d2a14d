"""Values of a billing run: terms, rates, batches, results.

The data of a run travels one way: settings → terms → plan → batches → batch results → run record → status.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID

from containerstacks_billing.database.ids import FIRST_UUID, LAST_UUID
from containerstacks_billing.settings import TRANSIENT_STATUSES


class Outcome(StrEnum):
    """How a run ended."""

    COMPLETED = "completed"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    HELD = "held"


@dataclass(frozen=True, slots=True)
class Policy:
    """The dated settings: what is billable, how a started hour ends, what continues, what the host's fee pays for.

    Statuses are sorted, so that equal policies compare equal.
    """

    billable_statuses: tuple[str, ...]
    partial_hour: str
    transient_statuses: tuple[str, ...]
    creation_fee: str


@dataclass(frozen=True, slots=True)
class Terms:
    """The settings that decide what is charged, fixed for one run.

    `billable_statuses` is `("*",)` when every status is billed; `transient_statuses` continue the status before them;
    `max_catch_up_hours` bounds what one instance may have due.
    """

    billable_statuses: tuple[str, ...] = ("running",)
    transient_statuses: tuple[str, ...] = TRANSIENT_STATUSES
    partial_hour: str = "prorate"
    creation_fee: str = "extra"
    hours_per_month: int = 730
    max_catch_up_hours: int = 72
    currency: str = "USD"
    brake_factor: Decimal = Decimal(3)
    shrink_brake: bool = False

    @property
    def policy(self) -> Policy:
        """What of them is dated. A status that is billable by name is not transient: what is named is meant."""
        billable = set(self.billable_statuses)
        transient = set(self.transient_statuses) - billable
        return Policy(tuple(sorted(billable)), self.partial_hour, tuple(sorted(transient)), self.creation_fee)


def terms_parameters(terms: Terms) -> dict[str, Any]:
    """Return the values that statements about what is due bind, whatever their range."""
    return {
        "every_status": terms.billable_statuses == ("*",),
        "billable_statuses": list(terms.billable_statuses),
        "hours_per_month": terms.hours_per_month,
        "max_catch_up_hours": terms.max_catch_up_hours,
        "currency": terms.currency,
    }


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long a charging transaction may wait for a lock, a statement, its own process; enforced by the server."""

    lock: str = "5s"
    statement: str = "30s"
    idle: str = "15s"


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
class Rates:
    """The hourly rates of all plans as a JSON document, and the fingerprint of the prices and plans behind them.

    It stays text: PostgreSQL writes and reads it, and the first price of a plan begins at an instant that no datetime
    can hold.
    """

    document: str
    fingerprint: Decimal


@dataclass(frozen=True, slots=True)
class BatchScope:
    """What one attempt to charge a batch binds: the run, the range, the rates that were read for it."""

    run: OpenRun
    batch: Batch
    rates: Rates | None = None

    @property
    def key(self) -> str:
        """The sixteen hexadecimal digits that every identifier of this attempt begins with (billing_batch_uuid)."""
        number = self.batch.number
        return f"{self.run.run_id % 2**32:08x}{number >> 12:04x}8{number % 2**12:03x}"

    def parameters(self) -> dict[str, Any]:
        """Return the values that the statements of a batch bind."""
        return terms_parameters(self.run.terms) | {
            "run_id": self.run.run_id,
            "as_of": self.run.as_of,
            "fencing_token": self.run.fencing_token,
            "nonce": self.run.nonce,
            "batch": self.batch.number,
            "batch_key": self.key,
            "first_id": UUID(f"{self.key}8{0:015x}"),
            "last_id": UUID(f"{self.key}8{2**60 - 1:015x}"),
            "first_organization": self.batch.first_organization,
            "last_organization": self.batch.last_organization,
            "first_instance": self.batch.first_instance,
            "last_instance": self.batch.last_instance,
            "include_pending": False,
            "has_invoices": self.run.has_invoices,
            "rates": self.rates.document if self.rates else None,
            "rates_fingerprint": self.rates.fingerprint if self.rates else None,
        }


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What one transaction billed: instances, their hours, the exact amount."""

    instances: int = 0
    hours: Decimal = Decimal(0)
    amount: Decimal = Decimal(0)

    def __add__(self, other: BatchResult) -> BatchResult:
        return BatchResult(
            self.instances + other.instances, self.hours + other.hours, self.amount + other.amount
        )


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A run whose row stands in the tables: the number it has, the instant it bills, the terms it bills by.

    `begins_policy` where BILLABLE_STATUSES or PARTIAL_HOUR are others than at the last run: they hold from `as_of` on.
    `has_invoices` where the host makes invoices of the metadata of charges, so they are described.
    """

    run_id: int
    as_of: datetime
    terms: Terms
    fencing_token: int
    nonce: UUID
    organization: UUID | None = None
    begins_policy: bool = False
    has_invoices: bool = False


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
