"""Comparison of a history on both sides: every hour, wallet, watermark, closed segment, held and quarantined instance.

The rows that the product writes may be merged as it likes, so they are taken apart into hours before they are compared. A
piece that costs nothing is neither paid nor owed: a correction may settle it together with the hours beside it, or leave
it at the rate before, at which a microsecond costs as little.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

from tests.fleet import Fleet
from tests.reference.model import Model
from tests.reference.values import HOUR

if TYPE_CHECKING:
    from tests.histories import History

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Row = tuple[Any, ...]


def micros(at: datetime) -> int:
    """Count the microseconds since 1970."""
    return (at - EPOCH) // timedelta(microseconds=1)


def compare(history: History, after_run: bool = True) -> None:
    """Compare everything, to the last digit; raises with the rows that only one side has.

    Which wallet is marked as owing is known after a run, which looks who has to pay now.
    """
    model, fleet = history.model, history.fleet
    same("units", _expected_units(model), _actual_units(fleet))
    same("adjustments", _expected_adjustments(model), _actual_adjustments(fleet))
    owing = {unit.organization for unit in model.units if unit.status == "failed"}
    surely = {unit.organization for unit in model.units if unit.status == "failed" and unit.amount}
    unknown = owing - surely if after_run else set(model.organizations)
    same("wallets", _expected_wallets(model, surely - unknown), _actual_wallets(fleet, unknown))
    # Where a watermark was written with our triggers off, it and what was closed from it are right once they are due.
    unknown_rows = history.set_back
    same("instances", _expected_instances(model, unknown_rows), _actual_instances(fleet, unknown_rows))
    same("segments", _expected_segments(model, unknown_rows), _actual_segments(fleet, unknown_rows))
    same(
        "quarantine", {(*key, reason) for key, reason in model.quarantine.items()}, _actual_quarantine(fleet)
    )
    assert [] == fleet.rows("select * from billing_metering_failures")
    _compare_ledgers(history)


def same(what: str, expected: Any, actual: Any) -> None:
    """Fail with the rows that only one side has."""
    if expected == actual:
        return
    rows = [list(side.items()) if isinstance(side, dict) else list(side) for side in (expected, actual)]
    only = [[row for row in rows[side] if row not in rows[1 - side]] for side in (0, 1)]
    raise AssertionError(
        f"{what} differ\n  the model says:\n{_listed(only[0])}\n  the database says:\n{_listed(only[1])}"
    )


def _listed(rows: list[Row]) -> str:
    return "\n".join(f"    {', '.join(_written(value) for value in row)}" for row in rows) or "    nothing"


def _written(value: Any) -> str:
    """Write identifiers short and microseconds as dates."""
    if isinstance(value, UUID):
        return str(value)[:8]
    if isinstance(value, int) and value > 10**12:
        return f"{EPOCH + timedelta(microseconds=value):%m-%d %H:%M:%S.%f}"
    return f"({', '.join(map(_written, value))})" if isinstance(value, tuple) else str(value)


def _expected_units(model: Model) -> list[Row]:
    return sorted(
        (
            u.organization,
            u.instance,
            u.start,
            u.end,
            u.hourly_rate if u.amount else Decimal(0),
            u.amount,
            u.status if u.amount else "free",
        )
        for u in model.units
    )


def _actual_units(fleet: Fleet) -> list[Row]:
    rows = fleet.rows(
        "select organization_id, vps_instance_id, billing_period_start as start, billing_period_end as until,"
        " hourly_rate, total_amount, status from vps_billing_cycles where run_id is not null"
    )
    units = []
    for row in rows:
        start, until = micros(row.start), micros(row.until)
        left = row.total_amount
        while start < until:
            end = min(start + HOUR, until)
            amount = left if end == until else row.hourly_rate
            left -= amount
            status = row.status if amount else "free"
            rate = row.hourly_rate if amount else Decimal(0)
            units.append((row.organization_id, row.vps_instance_id, start, end, rate, amount, status))
            start = end
    return sorted(units)


def _expected_adjustments(model: Model) -> dict[Row, Decimal]:
    """Add up what corrections changed, by instance; hours whose adjustments cancel each other count as none."""
    sums: dict[Row, Decimal] = {}
    for unit in model.units:
        key = (unit.organization, unit.instance)
        sums[key] = sums.get(key, Decimal(0)) + unit.adjustment
    return {key: amount for key, amount in sums.items() if amount}


def _actual_adjustments(fleet: Fleet) -> dict[Row, Decimal]:
    rows = fleet.rows(
        "select organization_id, instance_id, sum(amount) as amount from billing_adjustments group by 1, 2"
    )
    return {(row.organization_id, row.instance_id): row.amount for row in rows if row.amount}


def _expected_wallets(model: Model, owing: set[UUID]) -> dict[UUID, Row]:
    """Return balance and carry of each wallet; whether it owes is known of the one that pays."""
    return {
        identifier: (
            wallet.balance,
            wallet.carry,
            wallet.organization in owing and wallet is model.payer(wallet.organization, "USD"),
        )
        for identifier, wallet in model.wallets.items()
    }


def _actual_wallets(fleet: Fleet, unknown: set[UUID]) -> dict[UUID, Row]:
    payers = {
        row.id
        for row in fleet.rows(
            "select distinct on (organization_id) id from wallets where currency = 'USD'"
            " order by organization_id, created_at, id"
        )
    }
    rows = fleet.rows("select *, past_due_since is not null as owes from wallets")
    return {
        row.id: (
            row.balance,
            row.billing_carry,
            row.owes and row.id in payers and row.organization_id not in unknown,
        )
        for row in rows
    }


def _expected_instances(model: Model, unknown: set[UUID]) -> dict[UUID, Row]:
    return {
        identifier: (
            one.organization,
            one.plan,
            one.status,
            one.backups,
            None if identifier in unknown else one.watermark,
        )
        for identifier, one in model.instances.items()
    }


def _actual_instances(fleet: Fleet, unknown: set[UUID]) -> dict[UUID, Row]:
    rows = fleet.rows("select *, coalesce(last_billed_at, created_at) as watermark from vps_instances")
    assert [] == [row for row in rows if row.watermark != row.rated_until and row.id not in unknown]
    return {
        row.id: (
            row.organization_id,
            row.plan_id,
            row.status,
            row.backup_frequency != "none",
            None if row.id in unknown else micros(row.watermark),
        )
        for row in rows
    }


def _expected_segments(model: Model, unknown: set[UUID]) -> list[Row]:
    return sorted(
        (s.organization, s.instance, s.start, s.until, s.plan, s.backups, s.due)
        for s in model.segments
        if s.instance not in unknown
    )


def _actual_segments(fleet: Fleet, unknown: set[UUID]) -> list[Row]:
    return sorted(
        (
            row.organization_id,
            row.instance_id,
            micros(row.started_at),
            micros(row.charge_until),
            row.plan_id,
            row.backups,
            row.outcome is None,
        )
        for row in fleet.rows("select * from billing_closed_segments()")
        if row.instance_id not in unknown
    )


def _actual_quarantine(fleet: Fleet) -> set[Row]:
    rows = fleet.rows("select * from billing_quarantine where reason <> 'future watermark'")
    return {(row.organization_id, row.instance_id, row.reason) for row in rows}


def _compare_ledgers(history: History) -> None:
    """Prove that exact charges and adjustments are debits and carry, and that the balance is opening and entries."""
    entries = {
        row.organization_id: row
        for row in history.fleet.rows(
            "select organization_id, sum(amount) as total,"
            " coalesce(-sum(amount) filter (where payment_method in ('wallet_debit', 'manual_adjustment')), 0) as debits"
            " from payment_transactions group by organization_id"
        )
    }
    for organization in history.model.organizations - history.lost_wallets:
        own = [one for one in history.model.wallets.values() if one.organization == organization]
        entry = entries.get(organization)
        paid = [u for u in history.model.units if u.organization == organization]
        billed = sum((u.amount for u in paid if u.status == "billed"), Decimal(0))
        billed += sum((u.adjustment for u in paid), Decimal(0))
        assert billed == (entry.debits if entry else 0) + sum(one.carry for one in own)
        assert sum(one.balance for one in own) == history.opening[organization] + (
            entry.total if entry else 0
        )
