"""Where a closed segment is until a run charges it: in the row of its instance, in one place or the other, and never lost.

The plans cost one cent and ten cents an hour.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from tests.fleet import Fleet

from containerstacks_billing.charging.dry_run import dry_run
from containerstacks_billing.charging.forecast import Limits
from containerstacks_billing.charging.returned import flush_segments
from containerstacks_billing.database.ids import FIRST_UUID, LAST_UUID
from containerstacks_billing.database.statements import query
from containerstacks_billing.holds.model import Decision, ReleaseDecision
from containerstacks_billing.holds.release import release
from containerstacks_billing.verification.verify import verify

DAY = "2026-03-01 "
EVERYWHERE = {
    "first_organization": FIRST_UUID, "last_organization": LAST_UUID,
    "first_instance": FIRST_UUID, "last_instance": LAST_UUID,
    "every_status": False, "billable_statuses": ["running"], "hours_per_month": 730,
}  # fmt: skip


@pytest.fixture
def fleet(conn: psycopg.Connection[Any]) -> Fleet:
    return Fleet(conn)


@pytest.fixture
def shop(fleet: Fleet) -> tuple[UUID, UUID]:
    """An organization with ten dollars and an instance at one cent an hour since midnight."""
    organization = fleet.organization("10.00")
    return organization, fleet.instance(organization, fleet.plan("7.30"))


def kept(fleet: Fleet) -> list[tuple[str, str, str]]:
    """Return what stands in the rows of instances: from, until, why it was closed."""
    return [
        (f"{row.started_at:%d %H:%M}", f"{row.ended_at:%d %H:%M}", row.reason)
        for row in fleet.rows("select s.* from vps_instances, unnest(pending_segments) s order by started_at")
    ]


def filed(fleet: Fleet) -> list[tuple[str, str, str, str | None]]:
    """Return the segments: from, until when they are charged, why they were closed, what came of them."""
    return [
        (f"{row.started_at:%d %H:%M}", f"{row.charge_until:%d %H:%M}", row.reason, row.outcome)
        for row in fleet.rows("select * from billing_usage_segments order by started_at, id")
    ]


def sound(fleet: Fleet) -> bool:
    """Whether the books are right."""
    return verify(fleet.conninfo).ok


def test_a_run_files_and_charges_what_rows_have_kept(fleet: Fleet, shop: tuple[UUID, UUID]) -> None:
    """Two changes within the hour stand in the row until the run, which charges them with the hours that followed."""
    _, web = shop
    fleet.at(DAY + "00:15")
    fleet.set(web, plan_id=fleet.plan("73.00"))
    fleet.at(DAY + "00:45")
    fleet.set(web, status="stopped")
    assert [("01 00:00", "01 00:15", "plan"), ("01 00:15", "01 00:45", "status")] == kept(fleet)
    assert [] == filed(fleet)
    assert sound(fleet)
    fleet.at(DAY + "01:45")
    fleet.set(web, status="running")
    fleet.at(DAY + "04:00")
    fleet.bill()

    assert [] == kept(fleet)
    assert [
        ("01 00:00", "01 00:15", "plan", "charged"),
        ("01 00:15", "01 00:45", "status", "charged"),
        ("01 00:45", "01 01:45", "status", "not billable"),
    ] == filed(fleet)
    assert [
        ("01 00:00", "01 00:15", "0.0025", "billed"),
        ("01 00:15", "01 00:45", "0.05", "billed"),
        ("01 01:45", "01 03:45", "0.2", "billed"),
    ] == fleet.charges()
    assert sound(fleet)


def test_an_instance_that_changes_all_the_time_is_filed_in_between(
    fleet: Fleet, shop: tuple[UUID, UUID]
) -> None:
    """Twenty changes in twenty minutes: a row keeps at most eight, and every minute is charged once."""
    _, web = shop
    plans = [fleet.plan("73.00"), fleet.plan("7.30")]
    for minute in range(20):
        fleet.at(DAY + f"00:{minute + 1:02}")
        fleet.set(web, plan_id=plans[minute % 2])
        assert len(kept(fleet)) <= 8
    assert 18 == len(filed(fleet))
    fleet.at(DAY + "01:20")
    fleet.bill()

    charges = fleet.charges()
    assert [f"01 00:{minute:02}" for minute in range(21)] == [since for since, *_ in charges]
    assert ("01 00:20", "01 01:20", "0.01", "billed") == charges[-1]
    assert sound(fleet)


@pytest.mark.parametrize("gone", ["instance", "organization"])
def test_what_is_deleted_pays_what_it_kept(fleet: Fleet, shop: tuple[UUID, UUID], gone: str) -> None:
    """The pending segment and the last one become segments in the statement that deletes the row."""
    organization, web = shop
    fleet.at(DAY + "00:30")
    fleet.set(web, plan_id=fleet.plan("73.00"))
    fleet.at(DAY + "00:40")
    if gone == "instance":
        fleet.delete(web)
    else:
        fleet.conn.execute("delete from organizations where id = %s", (organization,))
    assert [("01 00:00", "01 00:30", "plan", None), ("01 00:30", "01 00:40", "deleted", None)] == filed(fleet)
    fleet.bill()

    assert (["0.005", "0.01666667"] if gone == "instance" else []) == [
        amount for *_, amount, _ in fleet.charges()
    ]
    assert sound(fleet)


def test_what_was_kept_stays_with_the_organization_that_used_it(
    fleet: Fleet, shop: tuple[UUID, UUID]
) -> None:
    """A pending segment and the one that the move closes are filed at once, under the old organization."""
    old, web = shop
    new = fleet.organization("10.00")
    fleet.at(DAY + "01:00")
    fleet.set(web, plan_id=fleet.plan("73.00"))
    fleet.at(DAY + "02:00")
    fleet.set(web, organization_id=new)
    assert [] == kept(fleet)
    assert [("01 00:00", "01 01:00", "plan", None), ("01 01:00", "01 02:00", "organization", None)] == filed(
        fleet
    )
    fleet.at(DAY + "03:00")
    fleet.set(web, status="stopped")
    fleet.bill()

    assert (Decimal("9.89"), Decimal("9.90")) == (fleet.balance(old)[0], fleet.balance(new)[0])
    assert sound(fleet)


def test_what_was_kept_moves_with_an_instance_that_has_no_dates(
    fleet: Fleet, shop: tuple[UUID, UUID]
) -> None:
    """An infinite watermark closes nothing more; what was closed before stays due to the old organization."""
    _, web = shop
    fleet.at(DAY + "00:30")
    fleet.set(web, status="stopped")
    fleet.set(web, last_billed_at="infinity")
    fleet.set(web, organization_id=fleet.organization("10.00"))

    assert [("01 00:00", "01 00:30", "status", None)] == filed(fleet)


def test_a_row_that_is_written_back_neither_loses_nor_revives_a_segment(
    fleet: Fleet, shop: tuple[UUID, UUID]
) -> None:
    """A program reads the whole row and writes all of it later; in between, the instance changed, or was billed."""
    _, web = shop
    columns = ("label", "plan_id", "status", "pending_segments")

    def read() -> Any:
        return fleet.rows(f"select {', '.join(columns)} from vps_instances where id = %s", web)[0]

    def write_back(row: Any) -> None:
        assignments = ", ".join(f"{column} = %s" for column in columns)
        fleet.conn.execute(f"update vps_instances set {assignments} where id = %s", (*row, web))

    before = read()
    fleet.at(DAY + "00:30")
    fleet.set(web, plan_id=fleet.plan("73.00"))
    large = read()
    write_back(large._replace(pending_segments=before.pending_segments))
    assert [("01 00:00", "01 00:30", "plan")] == kept(fleet)
    fleet.at(DAY + "01:30")
    fleet.bill()
    write_back(large._replace(label="renamed"))
    assert [] == kept(fleet)
    fleet.at(DAY + "02:00")
    write_back(large._replace(status="stopped"))
    fleet.bill()

    assert [("01 01:30", "01 02:00", "status", "charged")] == filed(fleet)[1:]
    assert ["0.005", "0.1", "0.05"] == [amount for *_, amount, _ in fleet.charges()]
    assert sound(fleet)


def test_a_copied_row_brings_no_segments_along(fleet: Fleet, shop: tuple[UUID, UUID]) -> None:
    """What one instance ran is not due a second time because its row was taken for a pattern."""
    _, web = shop
    fleet.at(DAY + "00:30")
    fleet.set(web, status="stopped")
    fleet.conn.execute(
        "insert into vps_instances (organization_id, plan_id, provider_instance_id, label, status, created_at, pending_segments)"
        " select organization_id, plan_id, 'another', 'copy', 'running', %s, pending_segments from vps_instances",
        (fleet.now,),
    )
    fleet.at(DAY + "01:30")
    fleet.bill()

    assert ["0.005", "0.01"] == sorted(amount for *_, amount, _ in fleet.charges())


def test_a_host_without_any_right_on_our_tables(fleet: Fleet, shop: tuple[UUID, UUID], role: str) -> None:
    """It changes an instance ten times, moves it, and deletes it; everything is filed by then."""
    _, web = shop
    new = fleet.organization("10.00")
    fleet.conn.execute(
        sql.SQL("grant select, insert, update, delete on vps_instances, organizations to {}").format(
            sql.Identifier(role)
        )
    )
    fleet.conn.execute("revoke all on all tables in schema public from public")
    with psycopg.connect(make_conninfo(fleet.conninfo, user=role, password=role), autocommit=True) as host:
        host.execute("set search_path = pg_catalog")
        for minute in range(10):
            fleet.at(DAY + f"00:{minute + 1:02}")
            host.execute(
                "update public.vps_instances set status = %s where id = %s", (f"status {minute}", web)
            )
        fleet.at(DAY + "00:20")
        host.execute("update public.vps_instances set organization_id = %s where id = %s", (new, web))
        fleet.at(DAY + "00:30")
        host.execute("update public.vps_instances set status = 'running' where id = %s", (web,))
        host.execute("delete from public.vps_instances")

    assert 13 == len(filed(fleet))
    assert [] == fleet.rows("select from billing_metering_failures")


def test_the_host_may_change_the_types_of_its_columns(fleet: Fleet, shop: tuple[UUID, UUID]) -> None:
    """What is kept is text, whatever the host makes of its plans, statuses and labels later."""
    _, web = shop
    fleet.at(DAY + "00:30")
    fleet.set(web, status="stopped")
    fleet.conn.execute(
        "create type state as enum ('running', 'stopped');"
        "alter table vps_instances alter plan_id type uuid using plan_id::uuid, alter label type text,"
        " alter status drop default, alter status type varchar(20)"
    )
    fleet.at(DAY + "01:00")
    fleet.set(web, status="running")
    fleet.delete(web)

    assert 3 == len(filed(fleet))
    assert [] == fleet.rows("select from billing_metering_failures")


def test_a_dry_run_tells_the_same_and_leaves_the_row_alone(fleet: Fleet, shop: tuple[UUID, UUID]) -> None:
    """What it would file and charge is rolled back."""
    _, web = shop
    fleet.at(DAY + "00:30")
    fleet.set(web, plan_id=fleet.plan("73.00"))
    fleet.at(DAY + "01:30")
    forecast = dry_run(fleet.order(), Limits(10, 10))
    assert [("01 00:00", "01 00:30", "plan")] == kept(fleet)
    assert [] == filed(fleet)
    result = fleet.bill()

    assert (result.amount, result.instances_billed) == (forecast.amount, forecast.instances_billed)
    assert Decimal("0.105") == result.amount


def test_a_flush_that_is_rolled_back_leaves_the_segments_in_the_row(
    fleet: Fleet, shop: tuple[UUID, UUID]
) -> None:
    """A segment is in the row or among the segments, whatever becomes of the transaction."""
    _, web = shop
    fleet.at(DAY + "00:30")
    fleet.set(web, status="stopped")
    with fleet.conn.transaction(force_rollback=True):
        fleet.conn.execute("set local containerstacks_billing.advancing = 'on'")
        flush_segments(fleet.conn, EVERYWHERE | {"as_of": fleet.now})
        assert ([], 1) == (kept(fleet), len(filed(fleet)))

    assert (1, []) == (len(kept(fleet)), filed(fleet))


def test_filing_waits_for_a_change_and_takes_it_along(fleet: Fleet, shop: tuple[UUID, UUID]) -> None:
    """The host closes a second segment while the row is waited for: both are filed, as the row has them when it is locked."""
    _, web = shop
    fleet.at(DAY + "00:30")
    fleet.set(web, status="stopped")
    fleet.at(DAY + "00:40")
    with (
        psycopg.connect(fleet.conninfo) as host,
        psycopg.connect(fleet.conninfo, autocommit=True) as biller,
        biller.pipeline() as pipeline,
    ):
        host.execute("update vps_instances set status = 'running' where id = %s", (web,))
        biller.execute("set containerstacks_billing.advancing = 'on'")
        pipeline.sync()
        biller.execute(
            query("flush_segments"),
            EVERYWHERE
            | {"as_of": fleet.now, "everything": False, "first_id": FIRST_UUID, "last_id": FIRST_UUID},
        )
        while not fleet.rows("select from pg_locks where not granted and pid = %s", biller.info.backend_pid):
            pass
        host.commit()
        pipeline.sync()

    assert ([], 2) == (kept(fleet), len(filed(fleet)))


def test_a_run_over_one_organization_flushes_its_segments_only(fleet: Fleet, shop: tuple[UUID, UUID]) -> None:
    """Those of the others wait for a run of theirs."""
    organization, web = shop
    other = fleet.instance(fleet.organization("10.00"), fleet.plan("73.00"))
    fleet.at(DAY + "00:30")
    fleet.set(web, status="stopped")
    fleet.set(other, status="stopped")
    fleet.bill(organization=organization)
    assert 1 == len(kept(fleet)) == len(filed(fleet))
    fleet.bill()

    assert ["0.005", "0.05"] == sorted(amount for *_, amount, _ in fleet.charges())


def test_a_segment_is_judged_by_the_policy_that_it_began_under(fleet: Fleet, shop: tuple[UUID, UUID]) -> None:
    """It is filed by the run that brings another policy, and pays as before."""
    _, web = shop
    fleet.bill()
    fleet.at(DAY + "00:30")
    fleet.set(web, plan_id=fleet.plan("73.00"))
    fleet.at(DAY + "00:40")
    fleet.terms = replace(fleet.terms, partial_hour="free", billable_statuses=("paused",))
    fleet.bill()

    assert [
        ("01 00:00", "01 00:30", "plan", "charged"),
        ("01 00:30", "01 00:40", "policy", "charged"),
    ] == filed(fleet)
    assert sound(fleet)


def test_kept_hours_of_a_status_that_is_billed_no_more_are_held_too(
    fleet: Fleet, shop: tuple[UUID, UUID]
) -> None:
    """The plan of a run counts them, or the run would take it that nothing was left out: here they are nobody's to pay."""
    organization, web = shop
    fleet.bill()
    fleet.conn.execute("delete from wallets where organization_id = %s", (organization,))
    fleet.hours(1)
    fleet.set(web, status="paused")
    fleet.hours(1)
    fleet.terms = replace(fleet.terms, billable_statuses=("restoring",))
    fleet.bill()

    assert {web: "no wallet"} == fleet.quarantine()
    fleet.wallet(organization, "1.00")
    fleet.bill()
    assert [("01 00:00", "01 01:00")] == [charge[:2] for charge in fleet.charges(web)]
    assert {} == fleet.quarantine()


def test_kept_hours_count_towards_the_bound_and_can_be_waived(fleet: Fleet, shop: tuple[UUID, UUID]) -> None:
    """Fifty hours closed and thirty open are held together; the dry decision and the real one see them before any run does."""
    _, web = shop
    fleet.hours(50)
    fleet.set(web, plan_id=fleet.plan("73.00"))
    fleet.hours(30)
    waive = ReleaseDecision(Decision.WAIVE, "tester", "outage", kept_hours=0, instance=web)
    told = release(fleet.conninfo, fleet.terms, replace(waive, dry_run=True), "tester")
    assert 1 == len(kept(fleet))
    done = release(fleet.conninfo, fleet.terms, waive, "tester")
    fleet.bill()

    assert 80 == told.hours_waived == done.hours_waived
    assert [] == fleet.charges() == kept(fleet)
    assert sound(fleet)


def test_hours_in_excess_are_held_together(fleet: Fleet, shop: tuple[UUID, UUID]) -> None:
    """A run files what is kept and charges neither that nor the open hours."""
    _, web = shop
    fleet.hours(50)
    fleet.set(web, plan_id=fleet.plan("73.00"))
    fleet.hours(30)
    fleet.bill()

    assert [] == fleet.charges()
    assert {web: "held"} == fleet.quarantine()


def test_filing_is_no_edit(fleet: Fleet, shop: tuple[UUID, UUID]) -> None:
    """The host's updated_at is when the instance was changed, not when it was billed."""
    _, web = shop
    fleet.conn.execute(
        "create function update_updated_at_column() returns trigger language plpgsql as"
        " 'begin new.updated_at = clock_timestamp(); return new; end';"
        "create trigger update_vps_instances_updated_at before update on vps_instances for each row"
        " when (billing_is_edit(old, new)) execute function update_updated_at_column()"
    )
    fleet.at(DAY + "00:30")
    stamps = [fleet.rows("select updated_at from vps_instances")]
    fleet.set(web, status="stopped")
    stamps.append(fleet.rows("select updated_at from vps_instances"))
    fleet.at(DAY + "01:30")
    fleet.bill()
    stamps.append(fleet.rows("select updated_at from vps_instances"))

    assert stamps[0] != stamps[1] == stamps[2]
    assert [] == kept(fleet)


def test_a_segment_that_was_lost_leaves_a_gap(fleet: Fleet, shop: tuple[UUID, UUID]) -> None:
    """Pending segments that are deleted by hand are a discrepancy."""
    _, web = shop
    fleet.at(DAY + "00:30")
    fleet.set(web, status="stopped")
    fleet.conn.execute("set session_replication_role = replica")
    fleet.conn.execute("update vps_instances set pending_segments = null")
    fleet.conn.execute("reset session_replication_role")

    assert ["gaps"] == [one.check for one in verify(fleet.conninfo).discrepancies]


def test_a_segment_that_is_restored_is_not_charged_twice(fleet: Fleet, shop: tuple[UUID, UUID]) -> None:
    """A backup of the host's table alone brings back what was filed and charged; the next run drops it."""
    _, web = shop
    fleet.at(DAY + "00:30")
    fleet.set(web, status="stopped")
    fleet.conn.execute("create table backup as select * from vps_instances")
    fleet.at(DAY + "01:30")
    fleet.bill()
    fleet.conn.execute("set session_replication_role = replica")
    fleet.conn.execute("update vps_instances set pending_segments = backup.pending_segments from backup")
    fleet.conn.execute("reset session_replication_role")
    fleet.bill()

    assert ["0.005"] == [amount for *_, amount, _ in fleet.charges()]
    assert ([], {}) == (kept(fleet), fleet.quarantine())
    assert sound(fleet)


def test_an_instance_that_goes_while_it_is_waited_for_is_charged_by_the_same_run(
    fleet: Fleet, shop: tuple[UUID, UUID]
) -> None:
    """The host deletes it in a transaction that the batch waits for: what it kept was filed by the host by then."""
    _, web = shop
    fleet.at(DAY + "00:30")
    fleet.set(web, plan_id=fleet.plan("73.00"))
    fleet.at(DAY + "01:00")
    with psycopg.connect(fleet.conninfo) as host, ThreadPoolExecutor(1) as pool:
        host.execute("delete from vps_instances where id = %s", (web,))
        run = pool.submit(fleet.bill)
        while not fleet.rows("select from pg_locks where not granted and pid <> pg_backend_pid()"):
            pass
        host.commit()
        run.result()

    assert [("01 00:00", "01 00:30", "0.005", "billed")] == fleet.charges()[:1]
