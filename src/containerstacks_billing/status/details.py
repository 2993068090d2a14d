"""What admins see beside the health, as values: runs, what was set aside, debts, runways, prices to come."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from containerstacks_billing.status.model import RunRecord


@dataclass(frozen=True, slots=True)
class SetAsideInstance:
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
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Runway:
    """A wallet that will be empty: its balance, what it burns per hour, and when."""

    organization: str | None
    balance: Decimal
    currency: str
    burn_per_hour: Decimal
    empties_at: datetime


@dataclass(frozen=True, slots=True)
class PriceToCome:
    """An announced price of a plan per month, and the one before it; None where that one cannot be charged."""

    plan: str
    valid_from: datetime
    before: Decimal | None
    after: Decimal | None


@dataclass(frozen=True, slots=True)
class Details:
    """What admins see beside the health: bounded lists, each with the most urgent first."""

    runs: tuple[RunRecord, ...] = ()
    set_aside: tuple[SetAsideInstance, ...] = ()
    past_due: tuple[PastDueWallet, ...] = ()
    runways: tuple[Runway, ...] = ()
    levels: dict[int, int] = field(default_factory=dict)
    prices: tuple[PriceToCome, ...] = ()
