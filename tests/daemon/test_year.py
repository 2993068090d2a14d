"""A year has 8,760 hours and a month of hourly runs costs what the plan says, wherever the database thinks it is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg import sql
from tests.fleet import Fleet
from tests.stateful_test import connections_reused

from containerstacks_billing.database.connection import connect

# Both hemispheres, half an hour of daylight saving, a quarter of an hour beside the others, none at all.
ZONES = (
    "UTC",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "Europe/Berlin",
    "America/St_Johns",
)


@pytest.mark.parametrize(
    "zone", ["America/New_York", *(pytest.param(zone, marks=pytest.mark.slow) for zone in ZONES)]
)
def test_a_year_has_8760_hours_in_every_time_zone(database: str, zone: str) -> None:
    """365 days with daylight saving, in runs 30 days and some hours apart: every instance pays 8,760 hours, without a gap."""
    with psycopg.connect(database, autocommit=True) as admin:
        name = sql.Identifier(admin.info.dbname)
        admin.execute(sql.SQL("alter database {} set timezone = {}").format(name, sql.Literal(zone)))
    with psycopg.connect(database, autocommit=True) as conn:
        assert [zone] == [row[0] for row in conn.execute("show timezone")]
        fleet = Fleet(conn, at="2026-01-01 00:00", max_catch_up_hours=24 * 40)
        organization = fleet.organization("10000.00")
        plan = fleet.plan("7.30")
        instances = [fleet.instance(organization, plan)]
        fleet.at("2026-01-01 00:17:29.5")
        instances.append(fleet.instance(organization, plan))
        year_end = datetime(2027, 1, 1, 0, 30, tzinfo=UTC)
        while fleet.now < year_end:
            fleet.at(min(fleet.now + timedelta(days=30, hours=7, minutes=40), year_end))
            fleet.bill()
        charges = fleet.rows(
            "select vps_instance_id as instance, min(billing_period_start) as start, max(billing_period_end) as until,"
            " sum(extract(epoch from billing_period_end - billing_period_start)) / 3600 as hours, sum(total_amount) as amount"
            " from vps_billing_cycles group by 1 order by 2"
        )

    first, second = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 0, 17, 29, 500_000, tzinfo=UTC)
    year = timedelta(days=365)
    assert [
        (instances[0], first, first + year, 8760, Decimal("87.60")),
        (instances[1], second, second + year, 8760, Decimal("87.60")),
    ] == [tuple(charge) for charge in charges]


@pytest.mark.parametrize(
    "zone", ["Australia/Lord_Howe", pytest.param("America/St_Johns", marks=pytest.mark.slow)]
)
def test_hourly_runs_over_a_change_of_clocks_charge_every_hour_once(database: str, zone: str) -> None:
    """In the night when clocks go forward, and in the one when they go back, ten hourly runs charge ten hours."""
    with psycopg.connect(database, autocommit=True) as admin:
        name = sql.Identifier(admin.info.dbname)
        admin.execute(sql.SQL("alter database {} set timezone = {}").format(name, sql.Literal(zone)))
    nights = {
        "Australia/Lord_Howe": ("2026-04-04 10:00", "2026-10-03 10:00"),
        "America/St_Johns": ("2026-03-08 00:30", "2026-11-01 00:30"),
    }[zone]
    for night in nights:
        with psycopg.connect(database, autocommit=True) as conn, connections_reused():
            fleet = Fleet(conn, at=night, brake_factor=Decimal(10_000))
            conn.execute("delete from vps_instances")
            instance = fleet.instance(fleet.organization("10.00"), fleet.plan("7.30"))
            for _ in range(10):
                fleet.hours(1)
                fleet.bill()
            rows = fleet.rows(
                "select billing_period_start as start, billing_period_end as until from vps_billing_cycles"
                " where vps_instance_id = %s order by 1",
                instance,
            )
        # Across zones Python takes no time of a repeated hour for equal to another.
        charged = [(row.start.astimezone(UTC), row.until.astimezone(UTC)) for row in rows]
        start = datetime.fromisoformat(night).replace(tzinfo=UTC)
        assert [(start + timedelta(hours=n), start + timedelta(hours=n + 1)) for n in range(10)] == charged


def test_an_hour_lasts_an_hour_when_clocks_change(database: str) -> None:
    """Python subtracts two times of one zone by the wall clock; so our connections read instants in UTC."""
    with psycopg.connect(database, autocommit=True) as admin:
        name = sql.Identifier(admin.info.dbname)
        admin.execute(sql.SQL("alter database {} set timezone = 'Europe/Berlin'").format(name))
    with connect(database, purpose="reading") as connection:
        row = connection.execute("select '2026-03-29 00:30Z'::timestamptz, '2026-03-29 01:30Z'::timestamptz")
        before, after = row.fetchone() or (None, None)

    assert after - before == timedelta(hours=1)
    assert (UTC, UTC) == (before.tzinfo, after.tzinfo)


@pytest.mark.slow
def test_730_hourly_runs_debit_the_monthly_price(conn: psycopg.Connection[Any]) -> None:
    """One run an hour for 730 hours: a $6 plan debits $6.00, a $3 plan $3.00, an $11 plan $10.99 and carries the rest."""
    fleet = Fleet(conn)
    wallets = {}
    for monthly in ("6.00", "3.00", "11.00"):
        wallets[monthly] = fleet.organization("100.00")
        fleet.instance(wallets[monthly], fleet.plan(monthly))
    with connections_reused():
        for _ in range(730):
            fleet.hours(1)
            fleet.bill(workers=1)

    assert {
        "6.00": (Decimal("94.00"), Decimal("0.0000014")),
        "3.00": (Decimal("97.00"), Decimal("0.0000007")),
        "11.00": (Decimal("89.01"), Decimal("0.0099977")),
    } == {monthly: fleet.balance(wallet) for monthly, wallet in wallets.items()}
    assert [2190] == [row.n for row in fleet.rows("select count(*) as n from vps_billing_cycles")]
