"""Dated prices as values: price versions and the effect of corrections."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from containerstacks_billing.money import plain

# What the charging statements accept as a price; also the limit where a column sets none.
LARGEST_PRICE = Decimal(100_000_000)


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan; a deleted plan has no name and no provider_plan_id but keeps its prices."""

    plan_id: UUID
    name: str | None
    provider_plan_id: str | None
    active: bool
    on_sale: bool

    @property
    def title(self) -> str:
        """Display name."""
        return self.name or f"deleted plan {self.plan_id}"


@dataclass(frozen=True, slots=True)
class Price:
    """A monthly price: base price and markup, which may be negative."""

    base: Decimal
    markup: Decimal


@dataclass(frozen=True, slots=True)
class PriceVersion:
    """A price version and its period; None for infinite dates, and for the rate of an unusable price."""

    plan_id: UUID
    version_id: int
    valid_from: datetime | None
    valid_to: datetime | None
    base: Decimal | None
    markup: Decimal | None
    hourly_rate: Decimal | None
    hourly_rate_with_backups: Decimal | None
    backup_hourly: Decimal
    announced: bool
    in_force: bool
    recorded_at: datetime
    recorded_by: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class PriceColumn:
    """Precision and scale of a price column of `vps_plans`; None for unconstrained."""

    digits: int | None
    decimals: int | None


@dataclass(frozen=True, slots=True)
class Correction:
    """A price that replaces another for hours that were rated already.

    The span `[corrected_from, corrected_until)` lies within one recorded version. `version_until` is where that version
    ends, None if it does not. `correction_id` is None while it is only looked at.
    """

    plan: Plan
    corrected_from: datetime
    corrected_until: datetime
    version_until: datetime | None
    old: tuple[Decimal | None, Decimal | None]
    new: Price
    backup_hourly: Decimal
    decided_at: datetime
    correction_id: int | None = None

    @property
    def reaches_into_the_future(self) -> bool:
        """Whether the corrected price is in force now."""
        return self.version_until is None or self.version_until > self.decided_at


@dataclass(frozen=True, slots=True)
class OrganizationDifference:
    """Effect of a correction on one organization, in exact amounts.

    Billed hours become adjustments; those of `unposted_charges` do not, because the wallet cannot bear the
    `unposted_amount` (`balance` None: it has no wallet). Past-due hours are rated anew and move no money.
    """

    organization_id: UUID
    name: str
    currency: str
    instances: int
    hours: Decimal
    old_amount: Decimal
    new_amount: Decimal
    unposted_charges: int
    unposted_amount: Decimal
    balance: Decimal | None
    past_due_instances: int
    past_due_hours: Decimal
    past_due_old_amount: Decimal
    past_due_new_amount: Decimal

    @property
    def difference(self) -> Decimal:
        """Difference of the billed hours; positive when they cost more."""
        return self.new_amount - self.old_amount

    @property
    def why_unposted(self) -> str:
        """Why adjustments cannot be posted yet."""
        if self.balance is None:
            return f"it has no {self.currency} wallet"
        return f"wallet holds {plain(self.balance) if self.balance.is_finite() else self.balance}"


def price_problem(price: Price, columns: dict[str, PriceColumn]) -> str | None:
    """Return why a price is unusable or does not fit `vps_plans`; None when it is valid."""
    if price.base < 0:
        return "The base price is negative."
    if price.base + price.markup < 0:
        return "Base and markup together are negative."
    for name, amount in (("base", price.base), ("markup", price.markup)):
        column = columns.get(f"{name}_price", PriceColumn(None, None))
        if column.decimals is not None and amount != round(amount, column.decimals):
            return f"vps_plans.{name}_price holds {column.decimals} decimals; {amount} has more."
        limit = LARGEST_PRICE
        if column.digits is not None and column.decimals is not None:
            limit = min(limit, Decimal(10) ** (column.digits - column.decimals))
        if abs(amount) >= limit:
            return f"The {name} price is out of range: it has to be below {limit:,f}."
    return None
