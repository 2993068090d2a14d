"""Price versions: listing, and new prices for now or the future."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from containerstacks_billing.database.connection import Connection, set_timeouts
from containerstacks_billing.database.statements import query
from containerstacks_billing.errors import InvariantBroken, WorkFailed
from containerstacks_billing.pricing.model import Plan, Price, PriceColumn, PriceVersion


@dataclass(frozen=True, slots=True)
class VersionInForce:
    """The version that a new price replaces, locked."""

    version_id: int
    valid_from: datetime | None
    valid_to: datetime | None
    base: Decimal | None
    markup: Decimal | None
    backup_hourly: Decimal


def find_plans(connection: Connection, text: str | None) -> list[Plan]:
    """Return the plans matching an id, provider_plan_id or exact name; all for None."""
    return [Plan(*row) for row in connection.execute(query("find_plans"), {"plan": text}).fetchall()]


def price_versions(
    connection: Connection, plans: Sequence[Plan], hours_per_month: int
) -> dict[UUID, list[PriceVersion]]:
    """Return the versions of each plan, oldest first, with their hourly rates."""
    found: dict[UUID, list[PriceVersion]] = {plan.plan_id: [] for plan in plans}
    values = {"plans": list(found), "hours_per_month": hours_per_month}
    for row in connection.execute(query("price_versions"), values).fetchall():
        found[row[0]].append(PriceVersion(*row))
    return found


def price_columns(connection: Connection) -> dict[str, PriceColumn]:
    """Return precision and scale of the price columns of `vps_plans`; the successor widens them."""
    return {name: PriceColumn(*width) for name, *width in connection.execute(query("price_columns"))}


def database_clock(connection: Connection) -> datetime:
    """Return the time of the database."""
    row = connection.execute(query("database_clock")).fetchone()
    if row is None:
        raise InvariantBroken("the database does not say what time it is")
    return row[0]  # type: ignore[no-any-return]


def set_price(
    connection: Connection, plan: Plan, price: Price, at: datetime | None, *, by: str, reason: str | None
) -> PriceVersion | None:
    """Start a price now (`at` None) or later, until the next recorded version; return None when it is in force already.

    A price for later is announced: `vps_plans` shows it from the first run after it began. An announcement for the same
    instant is replaced. Raises WorkFailed for a deleted plan, and for an instant that has passed.
    """
    with connection.transaction():
        set_timeouts(connection)
        if connection.execute(query("lock_plan"), {"plan_id": plan.plan_id}).fetchone() is None:
            raise WorkFailed(f"the {plan.title} has no row in vps_plans any more, so no price can begin")
        now = database_clock(connection)
        connection.execute(query("sync_prices"), {"as_of": now})
        if at is not None and at <= now:
            raise WorkFailed(
                f"{at:%Y-%m-%d %H:%M:%S} UTC has passed meanwhile", "give a later --from, or none"
            )
        version = lock_version(connection, plan, at or now)
        if at is None and (version.base, version.markup) == (price.base, price.markup):
            return None
        enter(
            connection,
            version,
            price,
            at or now,
            announced=at is not None,
            begins_at_commit=at is None,
            by=by,
            reason=reason,
        )
        if at is None:
            show(connection, plan, price)
        found = price_versions(connection, [plan], 1)[plan.plan_id]
    return next(one for one in found if one.valid_from == (at or now))


def lock_version(connection: Connection, plan: Plan, at: datetime) -> VersionInForce:
    """Lock and return the version in force at an instant; versions cover all time, so there is one."""
    row = connection.execute(query("lock_version"), {"plan_id": plan.plan_id, "at": at}).fetchone()
    if row is None:
        raise InvariantBroken(f"the {plan.title} has no recorded price at {at:%Y-%m-%d %H:%M} UTC")
    return VersionInForce(*row)


def enter(
    connection: Connection,
    version: VersionInForce,
    price: Price,
    at: datetime,
    *,
    announced: bool = False,
    begins_at_commit: bool = False,
    by: str,
    reason: str | None,
) -> None:
    """Replace a version by a price from an instant, or from the next commit, to the end of the version."""
    values: dict[str, Any] = {
        "version_id": version.version_id,
        "at": at,
        "base_price": price.base,
        "markup_price": price.markup,
        "announced": announced,
        "begins_at_commit": begins_at_commit,
        "recorded_by": by,
        "reason": reason,
    }
    connection.execute(query("replace_version" if version.valid_from == at else "split_version"), values)


def show(connection: Connection, plan: Plan, price: Price) -> None:
    """Write a price in force to `vps_plans`."""
    values = {"plan_id": plan.plan_id, "base_price": price.base, "markup_price": price.markup}
    connection.execute(query("show_price"), values)
