"""Explanations of one id: a ledger entry, a charge, an instance at an instant, or an organization.

Each function reads inside the caller's snapshot and returns a value; what does not add up is in its `findings()`.
The statements, and how they find charges without an index on the ledger entry, are in why.sql.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from psycopg.rows import class_row, dict_row

from containerstacks_billing.database.connection import Connection
from containerstacks_billing.database.statements import ask
from containerstacks_billing.explain.claims import Records, beginnings, periods_of
from containerstacks_billing.explain.model import (
    ZERO,
    Adjustment,
    Charge,
    Entry,
    EntryExplanation,
    Price,
    charge_findings,
    derive,
)
from containerstacks_billing.explain.snapshot import rows_of
from containerstacks_billing.explain.timeline import Period, State
from containerstacks_billing.money import plain

INSTANCES_SHOWN = 500
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Found:
    """What an id names, and when that was read; `kind` is None where no table knows the id."""

    kind: str | None
    read_at: datetime


@dataclass(frozen=True, slots=True)
class ChargeExplanation:
    """A charge, and the ledger entry that pays for it."""

    charge: Charge
    paid_by: EntryExplanation | None

    def findings(self) -> list[str]:
        """Return what does not add up, in sentences."""
        found = self.paid_by.findings() if self.paid_by else charge_findings(self.charge)
        if self.charge.entry_id is not None and self.paid_by is None and not self.charge.by_host:
            return [*found, f"Its ledger entry {self.charge.entry_id} is not there any more."]
        return found


@dataclass(frozen=True, slots=True)
class InstanceExplanation:
    """What became of an instant of an instance, and of the span around it."""

    instance_id: UUID
    label: str | None
    instance: Any | None
    read_at: datetime
    at: datetime
    here: Period
    periods: list[Period]
    charge: ChargeExplanation | None

    def findings(self) -> list[str]:
        """Return what does not add up, in sentences."""
        found = self.charge.findings() if self.charge else []
        return found + [
            f"From {one.starts_at:%Y-%m-%d %H:%M:%S} to {one.ends_at:%Y-%m-%d %H:%M:%S}: {one.detail}"
            for one in self.periods
            if one.state is State.UNKNOWN
        ]


@dataclass(frozen=True, slots=True)
class OrganizationExplanation:
    """The wallets of an organization and what moved them, its instances, and its last ledger entry."""

    organization_id: UUID
    name: str | None
    exists: bool
    read_at: datetime
    at: datetime
    wallets: list[Any]
    entries: list[Any]
    past_due: Any
    instances: list[Any]
    last_entry: EntryExplanation | None

    def findings(self) -> list[str]:
        """Return what does not add up, in sentences."""
        found = self.last_entry.findings() if self.last_entry else []
        for currency in sorted({wallet.currency or "" for wallet in self.wallets}):
            own = [one for one in self.wallets if (one.currency or "") == currency]
            moved = sum((one.amount for one in self.entries if (one.currency or "") == currency), ZERO)
            expected = sum((one.opening for one in own), ZERO) + moved
            balance = sum((one.balance for one in own), ZERO)
            if balance != expected:
                found.append(
                    f"The balance is {plain(balance)} {currency}, but opening and ledger entries make"
                    f" {plain(expected)}: {plain(abs(balance - expected))} differ."
                )
        return found


def find(connection: Connection, identifier: UUID) -> Found:
    """Return what an id names: charge, entry, instance or organization."""
    [row] = rows_of(connection, "identify", {"id": identifier})
    return Found(row.kind, row.read_at)


def explain_entry(connection: Connection, identifier: UUID) -> EntryExplanation | None:
    """Return a ledger entry with its charges and adjustments; None where there is no such entry."""
    entry = ask(connection, "explained_entry", class_row(Entry), {"id": identifier}).fetchone()
    if entry is None:
        return None
    first, last = entry.id_range
    values = {
        "entry": identifier,
        "organization": entry.organization_id,
        "first_id": first,
        "last_id": last,
        "run_id": entry.run_id,
    }
    if not entry.is_own:
        return EntryExplanation(entry=entry, charges=(), adjustments=())
    is_run = entry.run_id is not None
    adjustments = () if is_run else _adjustments(connection, "adjustments_of_entry", values)
    explanation = EntryExplanation(
        entry=entry, charges=_charges(connection, "charges_of_entry", values), adjustments=adjustments
    )
    if not explanation.difference:
        return explanation
    # Before a difference is reported, every place is searched where a part of it may be.
    return EntryExplanation(
        entry=entry,
        charges=_charges(connection, "charges_of_entry_anywhere", values),
        adjustments=_adjustments(connection, "adjustments_of_entry", values),
    )


def explain_charge(connection: Connection, identifier: UUID) -> ChargeExplanation | None:
    """Return a charge with the entry that pays for it; None where there is no such charge."""
    charges = _charges(connection, "charge_by_id", {"id": identifier})
    if not charges:
        return None
    entry_id = charges[0].entry_id
    paid_by = explain_entry(connection, entry_id) if entry_id is not None else None
    return ChargeExplanation(charges[0], paid_by)


def instance_hours(
    connection: Connection, identifier: UUID, starts_at: datetime, ends_at: datetime
) -> list[Period] | None:
    """Return what became of each instant of a span of an instance; None where no table knows the instance."""
    read_at = find(connection, identifier).read_at
    records = _records(connection, identifier, read_at, starts_at, ends_at)
    return None if records is None else periods_of(records, starts_at, ends_at)


def explain_instance(
    connection: Connection, identifier: UUID, at: datetime | None, span: timedelta
) -> InstanceExplanation | None:
    """Return what became of an instance at an instant (None: now), and of the span that ends there.

    None is returned where no table knows the instance.
    """
    read_at = find(connection, identifier).read_at
    at = at or read_at
    records = _records(connection, identifier, read_at, at - span, at + _MICROSECOND)
    if records is None:
        return None
    periods = periods_of(records, at - span, at + _MICROSECOND)
    here = next(one for one in periods if one.starts_at <= at < one.ends_at)
    charge = explain_charge(connection, here.charge_id) if here.charge_id else None
    label = (
        records.instance.label
        if records.instance
        else next((one.label for one in reversed(records.segments)), None)
    )
    return InstanceExplanation(identifier, label, records.instance, read_at, at, here, periods, charge)


def explain_organization(
    connection: Connection, identifier: UUID, at: datetime | None
) -> OrganizationExplanation:
    """Return the wallets, the moves, the instances and the last entry of an organization at an instant (None: now)."""
    read_at = find(connection, identifier).read_at
    at = at or read_at
    values = {
        "organization": identifier,
        "first_organization": identifier,
        "last_organization": identifier,
        "at": at,
        "limit": INSTANCES_SHOWN,
    }
    [record] = rows_of(connection, "organization_record", values)
    last = rows_of(connection, "latest_entry_of", values)
    [past_due] = rows_of(connection, "past_due_of_organization", values)
    return OrganizationExplanation(
        identifier,
        record.name,
        record.exists,
        read_at,
        at,
        rows_of(connection, "wallets_of_organization", values),
        rows_of(connection, "entries_by_kind", values),
        past_due,
        rows_of(connection, "instances_of_organization", values),
        explain_entry(connection, last[0].id) if last else None,
    )


def _records(
    connection: Connection, identifier: UUID, read_at: datetime, starts_at: datetime, ends_at: datetime
) -> Records | None:
    values: dict[str, Any] = {"instance": identifier, "from": starts_at, "until": ends_at}
    instance = next(iter(rows_of(connection, "instance_record", values)), None)
    segments = rows_of(connection, "segments_of_instance", values)
    left = rows_of(connection, "former_organizations_of_instance", values)
    if instance is None and not segments and not left:
        left = rows_of(connection, "organizations_charged_for_instance", values)
        if not left:
            return None
    known = Records(
        read_at=read_at, instance=instance, segments=segments, charges=(), decisions=(), quarantine=()
    )
    values["until"] = min((at for at in beginnings(known) if at > ends_at), default=ends_at)
    values["organizations"] = list(
        {one.organization_id for one in (instance, *segments, *left) if one is not None}
    )

    return replace(
        known,
        charges=rows_of(connection, "charges_of_instance", values),
        decisions=rows_of(connection, "waived_hours_of_instance", values),
        quarantine=rows_of(connection, "quarantine_of_instance", values),
    )


def _adjustments(connection: Connection, statement: str, values: dict[str, Any]) -> tuple[Adjustment, ...]:
    return tuple(ask(connection, statement, class_row(Adjustment), values).fetchall())


def _charges(connection: Connection, statement: str, values: dict[str, Any]) -> tuple[Charge, ...]:
    """Return charges with the prices that their rates follow from, and with their adjustments."""
    rows = ask(connection, statement, dict_row, values).fetchall()
    if not rows:
        return ()
    charges = [Charge(**row) for row in rows]
    prices = _prices(connection, charges)
    divisors = [one.hours_per_month for one in rows_of(connection, "hours_per_month_used", {})]
    adjustments = _adjustments(
        connection,
        "adjustments_of_charges",
        {"organization": charges[0].organization_id, "charges": [one.charge_id for one in charges]},
    )
    return tuple(
        replace(
            charge,
            derivations=_derivations(charge, prices, divisors),
            adjustments=tuple(one for one in adjustments if one.charge_id == charge.charge_id),
        )
        for charge in charges
    )


def _prices(connection: Connection, charges: Sequence[Charge]) -> dict[UUID, list[Price]]:
    plans = sorted({charge.plan_id for charge in charges if charge.plan_id is not None})
    found: dict[UUID, list[Price]] = {}
    for price in ask(connection, "prices_behind", class_row(Price), {"plans": plans}).fetchall():
        found.setdefault(price.plan_id, []).append(price)
    return found


def _derivations(charge: Charge, prices: dict[UUID, list[Price]], divisors: Sequence[int]) -> Any:
    """Return how the rate of a charge came about.

    One that was past due was rated by an earlier run than the one that paid it, so any divisor that a run used will do.
    """
    if charge.by_host or charge.plan_id is None or not charge.starts_at < charge.ends_at:
        return ()
    own = [] if charge.hours_per_month is None else [charge.hours_per_month]
    tried = own if own and charge.past_due_since is None else [*own, *divisors]
    backups = charge.backups if charge.past_due_since is None else None
    return derive(
        charge.hourly_rate, charge.starts_at, charge.ends_at, prices.get(charge.plan_id, []), tried, backups
    )
