"""What becomes of an hour in which an instance changes, told as ledgers; and that the host never notices us.

The plans cost one cent and ten cents an hour.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from tests.fleet import Fleet

from containerstacks_billing.charging.returned import flush_segments
from containerstacks_billing.database.ids import FIRST_UUID, LAST_UUID

DAY = "2026-03-01 "


@pytest.fixture
def fleet(conn: psycopg.Connection[Any]) -> Fleet:
    return Fleet(conn)


@pytest.fixture
def begin(fleet: Fleet) -> Callable[[str], tuple[UUID, UUID]]:
    """A function that makes PARTIAL_HOUR what it says and starts an instance at midnight; it returns organization and instance."""

    def chosen(partial_hour: str) -> tuple[UUID, UUID]:
        fleet.terms = replace(fleet.terms, partial_hour=partial_hour)
        fleet.bill()
        organization = fleet.organization("10.00")
        return organization, fleet.instance(organization, fleet.plan("7.30"))

    return chosen


def segments(fleet: Fleet) -> list[tuple[str, str, str, str | None]]:
    """Return the closed segments: from, until when they are charged, why they were closed, what came of them."""
    return [
        (f"{row.started_at:%d %H:%M}", f"{row.charge_until:%d %H:%M}", row.reason, row.outcome)
        for row in fleet.rows("select * from billing_closed_segments() order by started_at, id")
    ]


def test_prorate_charges_every_change_to_the_microsecond(fleet: Fleet, begin: Any) -> None:
    """Resized at half past, stopped a third of an hour and a microsecond later: each part at its own price, the gap at none."""
    _, web = begin("prorate")
    fleet.at(DAY + "00:30")
    fleet.set(web, plan_id=fleet.plan("73.00"))
    fleet.at(DAY + "00:50:00.000001")
    fleet.set(web, status="stopped")
    fleet.at(DAY + "05:00")
    fleet.bill()

    assert [
        ("01 00:00", "01 00:30", "0.005", "billed"),
        ("01 00:30", "01 00:50", "0.03333333", "billed"),
    ] == fleet.charges()


def test_full_charges_a_started_hour_once(fleet: Fleet, begin: Any) -> None:
    """Stopped at 01:20, running again from 01:40 to 01:50 in the hour that is paid, and from 02:30 to its deletion at 02:45."""
    _, web = begin("full")
    for moment, status in (
        ("01:20", "stopped"),
        ("01:40", "running"),
        ("01:50", "stopped"),
        ("02:30", "running"),
    ):
        fleet.at(DAY + moment)
        fleet.set(web, status=status)
    fleet.at(DAY + "02:45")
    fleet.delete(web)
    fleet.at(DAY + "03:00")
    fleet.bill()

    assert [
        ("01 00:00", "01 02:00", "0.02", "billed"),
        ("01 02:30", "01 03:30", "0.01", "billed"),
    ] == fleet.charges()


@pytest.mark.parametrize("restarts", [0, 3])
def test_full_never_charges_an_hour_at_two_prices(fleet: Fleet, begin: Any, restarts: int) -> None:
    """An hour that began at one cent stays at one cent, whatever it is resized to inside; the next costs ten."""
    _, web = begin("full")
    small, large = fleet.plan("7.30"), fleet.plan("73.00")
    fleet.at(DAY + "00:30")
    fleet.set(web, plan_id=large)
    for _ in range(restarts):
        fleet.hours(0.1)
        fleet.set(web, plan_id=small)
        fleet.set(web, plan_id=large, status="stopped")
        fleet.set(web, status="running")
    fleet.at(DAY + "03:00")
    fleet.bill()

    assert [
        ("01 00:00", "01 01:00", "0.01", "billed"),
        ("01 01:00", "01 03:00", "0.2", "billed"),
    ] == fleet.charges()


def test_full_is_at_most_an_hour_ahead(fleet: Fleet, begin: Any) -> None:
    """Stopped a microsecond after it began: one hour is charged at once, its watermark is ahead, and nothing is wrong with it."""
    organization, web = begin("full")
    fleet.at(DAY + "00:00:00.000001")
    fleet.set(web, status="stopped")
    fleet.set(web, status="running")
    result = fleet.bill()

    assert [("01 00:00", "01 01:00", "0.01", "billed")] == fleet.charges()
    assert (Decimal("9.99"), Decimal(0)) == fleet.balance(organization)
    assert ({}, 0) == (fleet.quarantine(), result.quarantined_instances)
    fleet.at(DAY + "02:00")
    fleet.bill()
    assert [("01 00:00", "01 01:00"), ("01 01:00", "01 02:00")] == [charge[:2] for charge in fleet.charges()]


def test_full_charges_an_hour_of_a_moved_instance_to_one_organization(fleet: Fleet, begin: Any) -> None:
    """The owner at the start of the hour pays the hour; the new owner begins with the next."""
    old, web = begin("full")
    new = fleet.organization("10.00")
    fleet.at(DAY + "00:30")
    fleet.set(web, organization_id=new)
    fleet.at(DAY + "02:00")
    fleet.bill()

    assert (Decimal("9.99"), Decimal("9.99")) == (fleet.balance(old)[0], fleet.balance(new)[0])


def test_free_charges_whole_hours_only(fleet: Fleet, begin: Any) -> None:
    """One hour of the 100 minutes until its stop, none of the 59 until its deletion."""
    _, web = begin("free")
    fleet.at(DAY + "01:40")
    fleet.set(web, status="stopped")
    fleet.at(DAY + "02:00")
    fleet.set(web, status="running")
    fleet.at(DAY + "02:59")
    fleet.delete(web)
    fleet.hours(5)
    fleet.bill()

    assert [("01 00:00", "01 01:00", "0.01", "billed")] == fleet.charges()
    assert [
        ("01 00:00", "01 01:00", "status", "charged"),
        ("01 01:40", "01 02:00", "status", "not billable"),
        ("01 02:00", "01 02:00", "deleted", "free"),
    ] == segments(fleet)


def test_a_change_that_is_rolled_back_never_happened(fleet: Fleet, begin: Any) -> None:
    """A stop and a deletion that the host takes back leave neither segment nor watermark behind."""
    _, web = begin("prorate")
    fleet.at(DAY + "00:30")
    with fleet.conn.transaction(force_rollback=True):
        fleet.set(web, status="stopped")
        fleet.delete(web)
    fleet.at(DAY + "02:00")
    fleet.bill()

    assert [] == segments(fleet)
    assert [("01 00:00", "01 02:00", "0.02", "billed")] == fleet.charges()


def test_what_is_not_metered_closes_nothing(fleet: Fleet, begin: Any) -> None:
    """A new label, or a status that is written again, is no change."""
    _, web = begin("full")
    fleet.at(DAY + "00:30")
    fleet.set(web, label="another", status="running")

    assert [] == segments(fleet)


# What can go wrong with our side of a statement of the host. Each is followed by updates and deletions that must succeed.
SABOTAGE = {
    "no table for segments": "drop table billing_usage_segments",
    "no table for failures either": "drop table billing_usage_segments; drop table billing_metering_failures",
    "no policy": "delete from billing_policies",
    "no table of policies": "alter table billing_policies rename to lost",
    "a constraint that refuses everything": "alter table billing_usage_segments add check (false) not valid",
    "no prices": "alter table plan_price_versions rename to lost",
    "infinite watermark": "update vps_instances set last_billed_at = 'infinity'",
    "watermark before all time": "update vps_instances set last_billed_at = '-infinity', rated_until = '-infinity'",
    "watermark at the end of time": "update vps_instances set last_billed_at = '294276-12-31', rated_until = '294276-12-31'",
    "watermark in antiquity": "update vps_instances set last_billed_at = '4000-01-01 BC', rated_until = '4000-01-01 BC'",
    "no dates at all": "update vps_instances set last_billed_at = null, created_at = null, rated_until = null",
    "no status": "update vps_instances set status = null",
    "a price that is no number": "update vps_plans set base_price = 'NaN'",
}


@pytest.mark.parametrize("policy", ["prorate", "full"])
@pytest.mark.parametrize("damage", SABOTAGE)
def test_the_hosts_statements_never_fail(fleet: Fleet, damage: str, policy: str) -> None:
    """Whatever is wrong with our tables or its data: instances change and go, plans change, an organization is deleted."""
    fleet.conn.execute("update billing_policies set partial_hour = %s", (policy,))
    organization, plan = fleet.organization("10.00"), fleet.plan("7.30")
    web, db = fleet.instance(organization, plan), fleet.instance(organization, plan)
    fleet.hours(1.5)
    for statement in SABOTAGE[damage].split(";"):
        fleet.conn.execute(statement)
    fleet.set(web, status="stopped")
    fleet.set(web, plan_id=fleet.plan("73.00"), organization_id=fleet.organization("1.00"))
    fleet.conn.execute("update vps_instances set status = 'paused'")
    fleet.reprice(plan, "14.60")
    fleet.delete(db)
    fleet.conn.execute("delete from organizations")
    fleet.conn.execute("delete from vps_plans")

    assert [] == fleet.rows("select from vps_instances")


def test_what_could_not_be_metered_is_kept(fleet: Fleet) -> None:
    """Without the table of segments a segment that has to be filed stands in billing_metering_failures, for doctor and verify."""
    web = fleet.instance(fleet.organization("10.00"), fleet.plan("7.30"))
    fleet.hours(1.5)
    fleet.conn.execute("drop table billing_usage_segments")
    fleet.set(web, status="stopped")
    fleet.set(web, organization_id=fleet.organization("1.00"))
    fleet.delete(web)

    failures = fleet.rows("select * from billing_metering_failures")
    assert [True, True] == [
        str(web) in row.segment and "billing_usage_segments" in row.error for row in failures
    ]


def test_a_host_without_any_right_on_our_tables_is_metered(fleet: Fleet, role: str) -> None:
    """The role of the host application owns nothing and may read nothing of ours; its changes become segments all the same."""
    web = fleet.instance(fleet.organization("10.00"), fleet.plan("7.30"))
    plan = fleet.plan("7.30")
    fleet.conn.execute(
        sql.SQL(
            "grant select, insert, update, delete on vps_instances, vps_plans, organizations, wallets, users to {}"
        ).format(sql.Identifier(role))
    )
    fleet.conn.execute("revoke all on all tables in schema public from public")
    fleet.hours(0.5)
    with psycopg.connect(make_conninfo(fleet.conninfo, user=role, password=role), autocommit=True) as host:
        host.execute("update vps_instances set status = 'stopped' where id = %s", (web,))
        host.execute("update vps_plans set base_price = 73 where id = %s", (plan,))
        host.execute("delete from vps_instances")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            host.execute("select from billing_usage_segments")

    assert [("01 00:00", "01 00:30", "status", None)] == segments(fleet)[:1]
    assert 2 == len(fleet.rows("select from plan_price_versions where plan_id = %s", plan))


def test_an_organization_that_is_deleted_leaves_its_segments(fleet: Fleet) -> None:
    """The instances go with their organization in one statement; what they ran is kept, and the next run is not disturbed."""
    organization = fleet.organization("10.00")
    fleet.instance(organization, fleet.plan("7.30"))
    fleet.hours(1.5)
    fleet.conn.execute("delete from organizations")
    result = fleet.bill()

    assert [("01 00:00", "01 01:30", "deleted", None)] == segments(fleet)
    assert ("completed", 0, 0) == (result.outcome, result.instances_billed, result.quarantined_instances)


@pytest.mark.slow
def test_a_bulk_change_stays_set_based(fleet: Fleet) -> None:
    """100,000 instances in one UPDATE, with our triggers and without, in turns, beside the host's trigger for updated_at.

    Counted in CPU seconds of the server process where they can be read. What is asked for every row shows here as ten
    times, and so does writing the segments while the host waits.
    """
    organization, plan = fleet.organization("10.00"), fleet.plan("7.30")
    fleet.conn.execute(
        "create or replace function billing_clock() returns timestamptz language sql volatile return clock_timestamp();"
        "create function update_updated_at_column() returns trigger language plpgsql as"
        " 'begin new.updated_at = now(); return new; end';"
        "create trigger update_vps_instances_updated_at before update on vps_instances for each row"
        " execute function update_updated_at_column()"
    )
    fleet.conn.execute(
        "insert into vps_instances (organization_id, plan_id, provider_instance_id, label, status, created_at)"
        " select %s, %s, 'p-' || n, 'vps-' || n, 'running', now() - interval '1 hour' from generate_series(1, 100000) n",
        (organization, plan),
    )
    fleet.conn.execute("set statement_timeout = '60s'")
    fleet.conn.execute("update vps_instances set status = 'stopped' where label = 'vps-1'")
    used = seconds_of(fleet)
    seconds: dict[str, list[float]] = {"enable": [], "disable": []}
    for turn in range(5):
        for verb in ("enable", "disable"):
            for trigger in ("billing_read_policies", "billing_move_watermark", "billing_keep_rated"):
                fleet.conn.execute(f"alter table vps_instances {verb} trigger {trigger}")
            file_kept(fleet)
            fleet.conn.execute("vacuum (analyze) vps_instances")
            began = used()
            fleet.conn.execute("update vps_instances set status = %s", (f"{verb} {turn}",))
            seconds[verb].append(used() - began)
    ratio = median(seconds["enable"]) / median(seconds["disable"])
    print(f"with triggers {median(seconds['enable']):.2f} s, {ratio:.1f} times the same without")

    assert 500_001 == len(fleet.rows("select from billing_closed_segments()"))
    assert ratio < 2.5, seconds


def seconds_of(fleet: Fleet) -> Callable[[], float]:
    """A function that says how long the server has worked for this connection, or what the clock says, where that is hidden."""
    stat = Path(f"/proc/{fleet.conn.info.backend_pid}/stat")
    if not (stat.exists() and b"postgres" in stat.with_name("cmdline").read_bytes()):
        return perf_counter
    return lambda: sum(map(int, stat.read_text().rsplit(")", 1)[1].split()[11:13])) / os.sysconf("SC_CLK_TCK")


def file_kept(fleet: Fleet) -> None:
    """Move all pending segments to where segments are, as a run does."""
    with fleet.conn.transaction():
        fleet.conn.execute("set local containerstacks_billing.advancing = 'on'")
        flush_segments(fleet.conn, {
            "first_organization": FIRST_UUID, "last_organization": LAST_UUID,
            "first_instance": FIRST_UUID, "last_instance": LAST_UUID,
            "every_status": False, "billable_statuses": ["running"], "as_of": fleet.now, "hours_per_month": 730,
        })  # fmt: skip
