"""Leaks: what exists and brings in nothing, by reason, with its price per hour and month.

Reads inside the caller's snapshot and changes nothing; which instance has which reason stands in leaks.sql.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID

from containerstacks_billing.charging.model import Terms, terms_parameters
from containerstacks_billing.charging.policies import policy_in_force
from containerstacks_billing.database.connection import Connection
from containerstacks_billing.database.ids import FIRST_UUID, LAST_UUID
from containerstacks_billing.database.statements import one_row, query
from containerstacks_billing.explain.inventory import Inventory
from containerstacks_billing.explain.snapshot import rows_of
from containerstacks_billing.money import CENT

ZERO = Decimal(0)
_STALE = timedelta(hours=1)


class Reason(StrEnum):
    """Why nothing is billed; the last two are the other way round, customers who pay for nothing."""

    NOT_BILLABLE = "not billable"
    NEVER_BILLED = "never billed"
    NO_PRICE = "no price"
    NO_WALLET = "no wallet"
    QUARANTINED = "quarantined"
    HELD = "held"
    PAST_DUE = "past due"
    BACKUPS = "backups without a price"
    BACKUPS_UNKNOWN = "backups unknown here"
    NOT_HERE = "at the provider, not here"
    VOLUME = "volume"
    NOT_THERE = "here, not at the provider"
    TWICE = "one server, two rows"


FOR_NOTHING = frozenset({Reason.NOT_THERE, Reason.TWICE})


@dataclass(frozen=True, slots=True)
class Leak:
    """An instance or a volume that brings in nothing; `hourly` is None where its price is not known."""

    reason: Reason
    organization_id: UUID | None
    organization: str | None
    subject_id: UUID | None
    label: str | None
    provider_instance_id: str | None
    plan: str | None
    status: str | None
    since: datetime | None
    hourly: Decimal | None
    monthly: Decimal | None
    detail: str


@dataclass(frozen=True, slots=True)
class ReasonSum:
    """What one reason, or several (None), come to; `unknown` counts leaks without a known price, in no sum."""

    reason: Reason | None
    leaks: int
    unknown: int
    hourly: Decimal
    monthly: Decimal

    @property
    def for_nothing(self) -> bool:
        """Whether customers pay for what does not exist, instead of nobody for what does."""
        return self.reason in FOR_NOTHING


@dataclass(frozen=True, slots=True)
class Leaks:
    """All leaks, largest first, with what was wrong with the inventory."""

    read_at: datetime
    currency: str
    hours_per_month: int
    leaks: list[Leak]
    inventory: Inventory | None

    @property
    def by_reason(self) -> list[ReasonSum]:
        """The sums of each reason that occurs, largest first."""
        sums = [
            _sum_of(reason, [one for one in self.leaks if one.reason is reason])
            for reason in Reason
            if any(one.reason is reason for one in self.leaks)
        ]
        return sorted(sums, key=lambda one: (-one.monthly, -one.leaks, str(one.reason)))

    @property
    def unbilled(self) -> ReasonSum:
        """What is not billed, all reasons together."""
        return _sum_of(None, [one for one in self.leaks if one.reason not in FOR_NOTHING])

    @property
    def billed_for_nothing(self) -> ReasonSum:
        """What customers pay for instances that do not exist."""
        return _sum_of(None, [one for one in self.leaks if one.reason in FOR_NOTHING])

    def exceeds(self, tolerance: Decimal | None) -> bool:
        """Whether either sum a month is above the tolerance; without one, any leak is, of unknown price too."""
        if tolerance is None:
            return bool(self.leaks)
        return max(self.unbilled.monthly, self.billed_for_nothing.monthly) > tolerance

    @property
    def remarks(self) -> list[str]:
        """What is to be known about the inventory: its age, and lines that were left out."""
        if self.inventory is None:
            return []
        age = self.read_at - self.inventory.taken_at
        said = [f"{self.inventory.file}: {problem}" for problem in self.inventory.problems]
        hidden = self.inventory.bad_lines - len(self.inventory.problems)
        if hidden:
            said.append(f"{self.inventory.file}: {hidden:,} more bad lines")
        if age > _STALE:
            hours = int(age / timedelta(hours=1))
            said.insert(
                0, f"{self.inventory.file} is {hours} h old: what was made or removed since looks like a leak"
            )
        return said


def find_leaks(
    connection: Connection,
    terms: Terms,
    inventory: Inventory | None = None,
    organization: UUID | None = None,
) -> Leaks:
    """Return every leak of the fleet, or of one organization, largest first."""
    read_at: datetime = one_row(connection, "database_clock")[0]
    values = _parameters(connection, terms, read_at, organization)
    found = [_instance(row) for row in rows_of(connection, "leaking_instances", values)]
    if one_row(connection, "has_volumes")[0]:
        found += [_volume(row) for row in rows_of(connection, "leaking_volumes", values)]
    for row in rows_of(connection, "rows_of_one_server", values):
        detail = f"an older row stands for the server {row.provider_instance_id} too, and both are charged"
        found.append(_leak(Reason.TWICE, row, row.since, detail))
    if inventory is not None:
        found += _beside(connection, values, inventory)
    priced = [_priced(one, terms.hours_per_month) for one in found]
    priced.sort(
        key=lambda one: (-(one.monthly or ZERO), one.monthly is None, one.reason, str(one.subject_id))
    )
    return Leaks(read_at, terms.currency, terms.hours_per_month, priced, inventory)


def _parameters(
    connection: Connection, terms: Terms, read_at: datetime, organization: UUID | None
) -> dict[str, Any]:
    """Return what the statements bind; the statuses are those of the biller, once one has billed."""
    values = terms_parameters(terms) | {
        "as_of": read_at,
        "first_organization": organization or FIRST_UUID,
        "last_organization": organization or LAST_UUID,
    }
    statuses = policy_in_force(connection).billable_statuses
    if statuses and one_row(connection, "has_completed_run")[0]:
        values |= {"every_status": statuses == ("*",), "billable_statuses": list(statuses)}
    rates = connection.execute(query("rates_in_force"), values).fetchall()
    for column, name in enumerate(("plan_names", "rates", "rates_with_backups")):
        values[name] = [row[column] for row in rates]
    return values


def _beside(connection: Connection, values: dict[str, Any], inventory: Inventory) -> Iterator[Leak]:
    """Yield what the provider's list and the rows disagree about."""
    bound = values | inventory.parameters()
    for row in rows_of(connection, "inventory_not_here", bound):
        yield Leak(
            Reason.NOT_HERE, None, None, None, row.label, row.provider_instance_id, row.plan, None, None,
            row.hourly, None, f"the provider has {row.provider_instance_id}, and no row of vps_instances does",
        )  # fmt: skip
    for row in rows_of(connection, "not_in_inventory", bound):
        detail = f"it is billed, and the provider has no {row.provider_instance_id}"
        yield _leak(Reason.NOT_THERE, row, row.since, detail)
    for row in rows_of(connection, "backups_in_inventory_alone", bound):
        detail = "the provider keeps backups, and backup_frequency says none"
        yield _leak(Reason.BACKUPS_UNKNOWN, row, None, detail)


def _instance(row: Any) -> Leak:
    reason = Reason(row.reason)
    at = f"{row.since:%Y-%m-%d %H:%M}" if row.since else "ever"
    shown_plan = f"plan {row.plan!r}" if row.plan else "its plan"
    detail = {
        Reason.NOT_BILLABLE: f"its status is {row.status or 'null'}, which is not billed, since {at}",
        Reason.NEVER_BILLED: f"it is billable since {at}, and no hour of it was ever charged",
        Reason.NO_PRICE: row.detail or f"{shown_plan} has no price above 0",
        Reason.NO_WALLET: row.detail or "its organization has no wallet in this currency",
        Reason.QUARANTINED: f"{row.quarantined_for} since {at}: {row.detail}",
        Reason.HELD: f"held since {at}: {row.detail}",
        Reason.PAST_DUE: f"its wallet cannot pay since {at}, and it is still {row.status}",
        Reason.BACKUPS: f"it has backups, and {shown_plan} has no price for them",
    }[reason]
    return _leak(reason, row, row.since, detail)


def _volume(row: Any) -> Leak:
    detail = "a volume of the host, which nothing charges" + ("" if row.hourly else ", and it has no price")
    return Leak(
        Reason.VOLUME, row.organization_id, row.organization, row.volume_id, row.label, None, None, None,
        row.since, row.hourly, None, detail,
    )  # fmt: skip


def _leak(reason: Reason, row: Any, since: datetime | None, detail: str) -> Leak:
    return Leak(
        reason, row.organization_id, row.organization, row.instance_id, row.label, row.provider_instance_id,
        row.plan, row.status, since, row.hourly, None, detail,
    )  # fmt: skip


def _priced(leak: Leak, hours_per_month: int) -> Leak:
    if leak.hourly is None:
        return leak
    return replace(leak, monthly=(leak.hourly * hours_per_month).quantize(CENT))


def _sum_of(reason: Reason | None, leaks: Iterable[Leak]) -> ReasonSum:
    listed = list(leaks)
    return ReasonSum(
        reason,
        len(listed),
        sum(one.hourly is None for one in listed),
        sum((one.hourly or ZERO for one in listed), ZERO),
        sum((one.monthly or ZERO for one in listed), ZERO),
    )
