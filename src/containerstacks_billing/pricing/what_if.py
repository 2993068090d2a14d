"""What another price, or another policy, would do: a month and a runway of every organization, now and then.

`now` is what is in force and announced without the change, `then` is with it, both from the instant at which the change
begins. The changed rates are read in a transaction in which the change was really made, by the statements that make it,
and which is rolled back at once: the rows of plans and prices are held for milliseconds, and what is added up
afterwards are rates.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any
from uuid import UUID

from containerstacks_billing.charging.model import Terms, terms_parameters
from containerstacks_billing.charging.policies import policy_in_force
from containerstacks_billing.database.connection import Connection, bounded_transaction, set_timeouts
from containerstacks_billing.database.ids import FIRST_UUID, LAST_UUID
from containerstacks_billing.database.statements import ask, one_row
from containerstacks_billing.money import CENT
from containerstacks_billing.pricing.model import Plan, Price
from containerstacks_billing.pricing.versions import set_price, show

SHORT_WITHIN = timedelta(hours=72)
_UNIT = Decimal(100_000_000)
_HOUR = timedelta(hours=1)
_LONGEST = Decimal(876_000)
_ADDING_UP = "60s"


@dataclass(frozen=True, slots=True)
class Supposed:
    """A price that a plan might have."""

    plan: Plan
    price: Price


@dataclass(frozen=True, slots=True)
class Rates:
    """The hourly rates of all names of plans at one instant, without and with backups, in hundred-millionths."""

    begins_at: datetime
    names: list[str]
    plain: list[int]
    with_backups: list[int]


@dataclass(frozen=True, slots=True)
class OrganizationWhatIf:
    """What an organization pays a month and how long its wallet lasts; a runway of None has no end.

    `short_*`: it is empty within 72 hours of the beginning.
    """

    organization_id: UUID
    organization: str | None
    balance: Decimal | None
    monthly_now: Decimal
    monthly_then: Decimal
    runway_now: Decimal | None
    runway_then: Decimal | None
    short_now: bool
    short_then: bool

    @property
    def difference(self) -> Decimal:
        """What it pays more a month; negative: less."""
        return self.monthly_then - self.monthly_now


@dataclass(frozen=True, slots=True)
class WhatIf:
    """All organizations that pay something, the largest difference first."""

    as_of: datetime
    begins_at: datetime
    currency: str
    hours_per_month: int
    organizations: list[OrganizationWhatIf]

    @property
    def monthly_now(self) -> Decimal:
        """The sum of a month without the change."""
        return sum((one.monthly_now for one in self.organizations), Decimal(0))

    @property
    def monthly_then(self) -> Decimal:
        """The sum of a month with the change."""
        return sum((one.monthly_then for one in self.organizations), Decimal(0))

    @property
    def changed(self) -> list[OrganizationWhatIf]:
        """Those whose month or runway differs, or whose wallet is short with the change and not without."""
        return [
            one
            for one in self.organizations
            if one.difference or one.short_now != one.short_then or one.runway_now != one.runway_then
        ]

    @property
    def newly_short(self) -> list[OrganizationWhatIf]:
        """Those whose wallet is empty within 72 hours of the beginning with the change alone."""
        return [one for one in self.organizations if one.short_then and not one.short_now]


def suppose(connection: Connection, supposed: Iterable[Supposed], terms: Terms, as_of: datetime) -> None:
    """Write prices into the open transaction as if they were in force for everything not charged yet; roll it back."""
    for one in supposed:
        values = {
            "plan_id": one.plan.plan_id,
            "base_price": one.price.base,
            "markup_price": one.price.markup,
            "as_of": as_of,
            "max_catch_up_hours": terms.max_catch_up_hours,
        }
        ask(connection, "suppose_price", values=values)
        show(connection, one.plan, one.price)


def what_if_priced(
    connection: Connection, terms: Terms, change: Supposed, begins_at: datetime | None
) -> WhatIf:
    """Return what a price from an instant on, or from now, would do; raises what `set_price` raises."""
    as_of = _clock(connection)
    now = _announced_rates(connection, terms, as_of, begins_at)
    with connection.transaction(force_rollback=True):
        set_timeouts(connection)
        set_price(connection, change.plan, change.price, begins_at, by="dry run", reason=None)
        then = [*now[:-1], _rates(connection, terms, begins_at or _clock(connection))]
    in_force = _in_force(connection, terms)
    return _compared(connection, in_force, in_force, now, then)


def what_if_run(
    connection: Connection, terms: Terms, supposed: Sequence[Supposed], organization: UUID | None = None
) -> WhatIf:
    """Return what a run with these terms and prices leads to, beside the policy and the prices in force."""
    as_of = _clock(connection)
    now = [_rates(connection, terms, as_of)]
    then = now
    if supposed:
        with connection.transaction(force_rollback=True):
            set_timeouts(connection)
            suppose(connection, supposed, terms, as_of)
            then = [_rates(connection, terms, as_of)]
    return _compared(connection, _in_force(connection, terms), terms, now, then, organization)


def _in_force(connection: Connection, terms: Terms) -> Terms:
    """Return the terms with the statuses that billing bills, once it has billed."""
    policy = policy_in_force(connection)
    if not one_row(connection, "has_completed_run")[0]:
        return terms
    return replace(terms, **asdict(policy))


def _announced_rates(
    connection: Connection, terms: Terms, as_of: datetime, until: datetime | None
) -> list[Rates]:
    """Return the rates from now on, from each announced price in between, and from the last instant."""
    if until is None:
        return [_rates(connection, terms, as_of)]
    changes = [row[0] for row in ask(connection, "price_changes", values={"as_of": as_of, "until": until})]
    return [_rates(connection, terms, at) for at in (as_of, *changes, until)]


def _rates(connection: Connection, terms: Terms, at: datetime) -> Rates:
    values = {"as_of": at, "hours_per_month": terms.hours_per_month}
    rows = ask(connection, "rates_in_force", values=values).fetchall()
    return Rates(at, [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows])


def _compared(
    connection: Connection,
    terms_now: Terms,
    terms_then: Terms,
    now: Sequence[Rates],
    then: Sequence[Rates],
    organization: UUID | None = None,
) -> WhatIf:
    as_of, begins_at = now[0].begins_at, now[-1].begins_at
    bounds = {
        "as_of": as_of,
        "first_organization": organization or FIRST_UUID,
        "last_organization": organization or LAST_UUID,
    }
    with bounded_transaction(connection, _ADDING_UP):
        burns_now = [_burns(connection, terms_now, rates, bounds) for rates in now]
        shared = len(then) - 1 if terms_now == terms_then else 0
        burns_then = burns_now[:shared] + [
            _burns(connection, terms_then, rates, bounds) for rates in then[shared:]
        ]
        wallets = {
            row[0]: row
            for row in ask(connection, "paying_wallets", values=terms_parameters(terms_now) | bounds)
        }
    starts = [Decimal(str((rates.begins_at - as_of) / _HOUR)) for rates in now]
    soon = starts[-1] + Decimal(SHORT_WITHIN / _HOUR)
    hours = Decimal(terms_then.hours_per_month)
    listed = [
        _organization(one, wallets.get(one), burns_now, burns_then, starts, soon, hours)
        for one in sorted({*burns_now[-1], *burns_then[-1]})
    ]
    listed.sort(key=lambda one: (-abs(one.difference), -one.monthly_then, one.organization_id))
    return WhatIf(as_of, begins_at, terms_then.currency, terms_then.hours_per_month, listed)


def _burns(
    connection: Connection, terms: Terms, rates: Rates, bounds: dict[str, Any]
) -> dict[UUID, tuple[Decimal, Decimal]]:
    """Return by organization what an hour costs, and what was used and is not charged yet."""
    values = (
        terms_parameters(terms)
        | bounds
        | {
            "plan_names": rates.names,
            "rates": rates.plain,
            "rates_with_backups": rates.with_backups,
        }
    )
    rows = ask(connection, "burn_by_organization", values=values)
    return {row[0]: (row[1] / _UNIT, (row[2] or 0) / _UNIT) for row in rows}


def _organization(
    organization: UUID,
    wallet: Any,
    now: Sequence[dict[UUID, tuple[Decimal, Decimal]]],
    then: Sequence[dict[UUID, tuple[Decimal, Decimal]]],
    starts: Sequence[Decimal],
    soon: Decimal,
    hours_per_month: Decimal,
) -> OrganizationWhatIf:
    nothing = (Decimal(0), Decimal(0))

    def runway(burns: Sequence[dict[UUID, tuple[Decimal, Decimal]]]) -> Decimal | None:
        paid = [one.get(organization, nothing) for one in burns]
        if wallet is None or wallet[4] is not None or wallet[3] is None:
            return Decimal(0) if paid[-1][0] else None
        return runway_hours(wallet[3] - paid[0][1], list(zip(starts, (one[0] for one in paid), strict=True)))

    runways = runway(now), runway(then)
    short = [one is not None and one < soon for one in runways]
    monthly = [
        (one[-1].get(organization, nothing)[0] * hours_per_month).quantize(CENT) for one in (now, then)
    ]
    return OrganizationWhatIf(
        organization_id=organization,
        organization=wallet[1] if wallet else None,
        balance=wallet[2] if wallet else None,
        monthly_now=monthly[0],
        monthly_then=monthly[1],
        runway_now=runways[0],
        runway_then=runways[1],
        short_now=short[0],
        short_then=short[1],
    )


def runway_hours(available: Decimal, burns: Sequence[tuple[Decimal, Decimal]]) -> Decimal | None:
    """Return after how many hours an amount is used up, at burns per hour that each begin after so many hours.

    The first begins at 0. None: it has no end, or one in more than a hundred years.
    """
    if available <= 0:
        return Decimal(0) if any(burn for _, burn in burns) else None
    for (start, burn), (end, _) in pairwise(burns):
        used = burn * (end - start)
        if used >= available:
            return round(start + available / burn, 2)
        available -= used
    start, burn = burns[-1]
    hours = start + available / burn if burn else _LONGEST
    return round(hours, 2) if hours < _LONGEST else None


def _clock(connection: Connection) -> datetime:
    return one_row(connection, "database_clock")[0]  # type: ignore[no-any-return]
