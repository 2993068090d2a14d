"""Decisions about held hours and their effect, as values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

MOST_LISTED = 1000
EVERY_HOUR = 2**31 - 1
HELD = "held"


class Decision(StrEnum):
    """Charge all hours due, the most recent ones only, or none."""

    CHARGE = "charge"
    CAP = "cap"
    WAIVE = "waive"


@dataclass(frozen=True, slots=True)
class ReleaseDecision:
    """A decision about held instances (one, of an organization, or all), its author and reason.

    `kept_hours` are the most recent hours of each instance, which stay due; older ones are waived. `passed_over` means
    the hours that the host could not collect before adoption (passed_over.sql), of instances held or not.
    """

    decision: Decision
    decided_by: str
    reason: str
    kept_hours: int = EVERY_HOUR
    organization: UUID | None = None
    instance: UUID | None = None
    dry_run: bool = False
    passed_over: bool = False


@dataclass(frozen=True, slots=True)
class HeldHours:
    """Effect of a decision on one instance; amounts are exact, None without a usable price.

    `quarantine_reason` is the reason that `quarantine` shows for it, None where it shows none: every instance with too
    many hours due is held, also one with another fault, and also before the next run.
    """

    organization: UUID
    instance: UUID
    label: str | None
    hours_due: Decimal
    amount_due: Decimal | None
    hours_approved: Decimal
    amount_approved: Decimal | None
    quarantine_reason: str | None = HELD

    @property
    def other_reason(self) -> str:
        """Why the instance is not listed as held."""
        return self.quarantine_reason or "not quarantined by the last run"

    @property
    def hours_waived(self) -> Decimal:
        """Hours that will not be charged."""
        return self.hours_due - self.hours_approved

    @property
    def amount_waived(self) -> Decimal | None:
        """Amount of the waived hours."""
        if self.amount_due is None or self.amount_approved is None:
            return None
        return self.amount_due - self.amount_approved


@dataclass(frozen=True, slots=True)
class ReleaseResult:
    """Result of a release: sums over all instances, and the first of them individually.

    `other_reasons` counts the instances that are not listed as held.
    """

    as_of: datetime
    instances: int = 0
    unpriced_instances: int = 0
    hours_approved: Decimal = Decimal(0)
    amount_approved: Decimal = Decimal(0)
    hours_waived: Decimal = Decimal(0)
    amount_waived: Decimal = Decimal(0)
    listed: tuple[HeldHours, ...] = field(default=())
    other_reasons: Mapping[str, int] = field(default_factory=dict)

    def with_held_hours(self, held: list[HeldHours]) -> ReleaseResult:
        """Return the result with instances added to the sums, and to the list up to its limit."""
        return replace(
            self,
            instances=self.instances + len(held),
            unpriced_instances=self.unpriced_instances + sum(one.amount_due is None for one in held),
            hours_approved=self.hours_approved + sum(one.hours_approved for one in held),
            amount_approved=self.amount_approved + sum(one.amount_approved or Decimal(0) for one in held),
            hours_waived=self.hours_waived + sum(one.hours_waived for one in held),
            amount_waived=self.amount_waived + sum(one.amount_waived or Decimal(0) for one in held),
            listed=self.listed + tuple(held[: MOST_LISTED - len(self.listed)]),
            other_reasons=Counter(self.other_reasons)
            + Counter(one.other_reason for one in held if one.quarantine_reason != HELD),
        )
