"""What a dry run finds: what a run would charge now, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from containerstacks_billing.charging.model import BatchResult, Outcome
from containerstacks_billing.money import floor_to_cent
from containerstacks_billing.status.model import RunRecord


@dataclass(frozen=True, slots=True)
class OrganizationForecast:
    """What a run would bill one organization, and how its wallet would stand afterwards.

    `amount` is exact, `debit` its whole cents. `owed` is what would be past due, old debts included.
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
class SetAside:
    """An instance that would be quarantined or held, and why."""

    organization: UUID
    instance: UUID
    label: str | None
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class BatchForecast:
    """What one rolled-back batch found in its organizations; the counts are those of a run's row."""

    result: BatchResult
    organizations: tuple[OrganizationForecast, ...] = ()
    set_aside: tuple[SetAside, ...] = ()
    past_due_instances: int = 0
    quarantined_instances: int = 0
    held_instances: int = 0


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What a run would do as of now. Lists are bounded; the counts beside them are not."""

    outcome: Outcome
    as_of: datetime
    duration_seconds: float
    batches: int
    instances_billed: int
    hours: Decimal
    amount: Decimal
    debited: Decimal
    past_due_instances: int
    quarantined_instances: int
    held_instances: int
    organizations_billed: int
    organizations_short: int
    largest: tuple[OrganizationForecast, ...]
    short: tuple[OrganizationForecast, ...]
    set_aside: tuple[SetAside, ...]
    reasons: Mapping[str, int] = field(default_factory=dict)
    changes: tuple[str, ...] = ()
    last: RunRecord | None = None
    billable_instances: int = 0
    error_message: str | None = None
