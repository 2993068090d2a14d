"""No hour is charged twice, whatever becomes of the row: deleted and put back, restored, re-keyed, moved, synchronised.

The plan costs one cent an hour; the instances run from midnight.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from tests.fleet import Fleet

from containerstacks_billing.charging.dry_run import dry_run
from containerstacks_billing.charging.forecast import Limits
from containerstacks_billing.charging.model import Outcome
from containerstacks_billing.verification.verify import verify

COLUMNS = "id, organization_id, plan_id, provider_instance_id, label, status, created_at, last_billed_at"
DAY = "2026-03-01 "


@pytest.fixture
def fleet(conn: psycopg.Connection[Any]) -> Fleet:
    return Fleet(conn)


@pytest.fixture
def plan(fleet: Fleet) -> UUID:
    return fleet.plan("7.30")


def keep_copy(fleet: Fleet, columns: str = COLUMNS) -> None:
    """Copy the instances as they stand, as a dump or an archive table would."""
    fleet.conn.execute("drop table if exists copied")
    fleet.conn.execute(f"create table copied as select {columns} from vps_instances")


def put_back(fleet: Fleet, columns: str = COLUMNS, *, triggers: bool = True) -> None:
    """Insert the copied rows again."""
    with fleet.conn.transaction():
        if not triggers:
            fleet.conn.execute("set local session_replication_role = replica")
        fleet.conn.execute(f"insert into vps_instances ({columns}) select {columns} from copied")


def remove(fleet: Fleet, how: str) -> None:
    """Take all instances away: by DELETE, by TRUNCATE, or by either with the triggers off."""
    with fleet.conn.transaction():
        if how.endswith("silently"):
            fleet.conn.execute("set local session_replication_role = replica")
        fleet.conn.execute(
            "truncate vps_instances" if how.startswith("truncate") else "delete from vps_instances"
        )


def everything(fleet: Fleet) -> str:
    """Name all columns of the table, ours among them."""
    return ", ".join(
        row.attname
        for row in fleet.rows(
            "select attname from pg_attribute where attrelid = 'vps_instances'::regclass and attnum > 0"
            " and not attisdropped"
        )
    )


def paid(fleet: Fleet) -> Decimal:
    """Add up what is billed or past due, exactly."""
    return fleet.rows("select sum(total_amount) as total from vps_billing_cycles where run_id is not null")[
        0
    ].total


def overlaps(fleet: Fleet) -> list[Any]:
    """Return the charges of ours that overlap another one, under any organization."""
    return fleet.rows(
        "select one.* from vps_billing_cycles one join vps_billing_cycles other on one.vps_instance_id = other.vps_instance_id"
        " and one.id < other.id and one.billing_period_start < other.billing_period_end"
        " and other.billing_period_start < one.billing_period_end where one.run_id is not null and other.run_id is not null"
    )


def is_sound(fleet: Fleet) -> bool:
    """Whether nothing overlaps, nothing is quarantined and the books are right."""
    return ([], {}, True) == (overlaps(fleet), fleet.quarantine(), verify(fleet.conninfo).ok)


def test_a_past_due_row_that_comes_back_older_is_charged_once(fleet: Fleet, plan: UUID) -> None:
    """190 minutes are past due; the row comes back as it stood two hours before, and 3.17 hours are owed, not 5.17."""
    acme = fleet.organization("0.00")
    fleet.instance(acme, plan)
    fleet.at(DAY + "03:10")
    fleet.bill()
    keep_copy(fleet)
    fleet.conn.execute("update copied set last_billed_at = last_billed_at - interval '2 hours'")
    remove(fleet, "delete")
    put_back(fleet)
    fleet.bill()
    fleet.top_up(acme, "10.00")
    fleet.bill()

    assert (Decimal("9.97"), Decimal("0.00166667")) == fleet.balance(acme)
    assert is_sound(fleet)


@pytest.mark.parametrize("gone", ["delete", "truncate"])
@pytest.mark.parametrize("pause", [0, 20])
@pytest.mark.parametrize("last_billed", ["as it was", "null", "truncated to the hour", "two hours before"])
def test_a_row_that_was_put_back_is_billed_on(
    fleet: Fleet, plan: UUID, gone: str, pause: int, last_billed: str
) -> None:
    """With any watermark in the row: 6 hours are paid at 06:00, once, without a repair."""
    acme = fleet.organization("10.00")
    fleet.instance(acme, plan)
    fleet.at(DAY + "03:10")
    fleet.bill()
    keep_copy(fleet)
    changes = {
        "as it was": "last_billed_at",
        "null": "null",
        "truncated to the hour": "date_trunc('hour', last_billed_at) - interval '1 hour'",
        "two hours before": "last_billed_at - interval '2 hours'",
    }
    fleet.conn.execute(f"update copied set last_billed_at = {changes[last_billed]}")
    remove(fleet, gone)
    fleet.hours(pause / 60)
    put_back(fleet)
    fleet.at(DAY + "06:10")
    run = fleet.bill()

    assert Outcome.COMPLETED is run.outcome, run.error_message
    assert Decimal("0.06166667") == paid(fleet).quantize(Decimal("0.00000001"))
    assert is_sound(fleet)


def test_a_row_deleted_and_put_back_in_one_transaction_stops_nobody(fleet: Fleet, plan: UUID) -> None:
    """The same transaction deletes and inserts the row before the next run: it is charged, and so are its neighbours."""
    acme, other = fleet.organization("10.00"), fleet.organization("10.00")
    web, _, third = (fleet.instance(owner, plan) for owner in (acme, acme, other))
    fleet.at(DAY + "02:00")
    fleet.bill()
    fleet.at(DAY + "02:30")
    with fleet.conn.transaction():
        keep_copy(fleet)
        fleet.delete(web)
        fleet.conn.execute(
            f"insert into vps_instances ({COLUMNS}) select {COLUMNS} from copied where id = %s", (web,)
        )
    fleet.at(DAY + "03:00")
    run = fleet.bill()

    assert (Outcome.COMPLETED, None) == (run.outcome, run.error_message)
    assert [("01 00:00", "01 02:00"), ("01 02:00", "01 03:00")] == [one[:2] for one in fleet.charges(third)]
    fleet.at(DAY + "04:30")
    fleet.bill()
    assert ("01 02:30", "01 04:30", "0.02", "billed") == fleet.charges(web)[-1]
    assert is_sound(fleet)


def test_a_row_replaced_within_one_statement_is_charged_once(fleet: Fleet, plan: UUID) -> None:
    """DELETE and INSERT are parts of one statement, so the insert comes before the trigger of the delete."""
    acme = fleet.organization("10.00")
    fleet.instance(acme, plan)
    fleet.at(DAY + "02:00")
    fleet.bill()
    fleet.at(DAY + "02:30")
    fleet.conn.execute(
        f"with gone as (delete from vps_instances returning {COLUMNS})"
        f" insert into vps_instances ({COLUMNS}) select {COLUMNS} from gone"
    )
    fleet.at(DAY + "05:00")
    fleet.bill()

    assert Decimal("0.045") == paid(fleet)
    assert is_sound(fleet)


@pytest.mark.parametrize("transactions", ["one", "two"])
def test_a_nightly_sync_leaves_nothing_to_repair(fleet: Fleet, plan: UUID, transactions: str) -> None:
    """Every row is deleted and inserted again, three nights in a row."""
    owners = [fleet.organization("10.00") for _ in range(3)]
    for number in range(9):
        fleet.instance(owners[number % 3], plan)
    for night in range(3):
        fleet.at(f"2026-03-0{night + 1} 23:00")
        fleet.bill()
        fleet.at(f"2026-03-0{night + 1} 23:20")
        if transactions == "one":
            with fleet.conn.transaction():
                keep_copy(fleet)
                remove(fleet, "delete")
                put_back(fleet)
        else:
            keep_copy(fleet)
            remove(fleet, "delete")
            put_back(fleet)
    fleet.at("2026-03-04 00:20")
    run = fleet.bill()

    assert (Outcome.COMPLETED, 0) == (run.outcome, run.quarantined_instances)
    # Nine times 72 hours and 20 minutes; each part of an hour is rounded to eight digits.
    assert Decimal("6.51") == round(paid(fleet), 6)
    assert is_sound(fleet)


def test_a_sync_by_upsert_from_an_older_copy_leaves_nothing_to_repair(fleet: Fleet, plan: UUID) -> None:
    """INSERT … ON CONFLICT DO UPDATE writes every column as it stood two runs before, ours too."""
    acme = fleet.organization("10.00")
    for _ in range(3):
        fleet.instance(acme, plan)
    fleet.at(DAY + "01:00")
    fleet.bill()
    columns = everything(fleet)
    keep_copy(fleet, columns)
    for hour in (2, 3):
        fleet.at(DAY + f"0{hour}:00")
        fleet.bill()
    fleet.conn.execute(
        f"insert into vps_instances ({columns}) select {columns} from copied on conflict (id) do update set "
        + ", ".join(f"{name} = excluded.{name}" for name in columns.split(", ") if name != "id")
    )
    fleet.at(DAY + "05:00")
    fleet.bill()

    assert Decimal("0.15") == paid(fleet)
    assert is_sound(fleet)


@pytest.mark.parametrize("gone", ["delete", "truncate"])
@pytest.mark.parametrize("columns", ["of the host", "all"])
def test_a_row_that_comes_back_under_another_organization_is_charged_once(
    fleet: Fleet, plan: UUID, gone: str, columns: str
) -> None:
    """The hours until it left are the first one's, those after it the second one's."""
    acme, other = fleet.organization("10.00"), fleet.organization("10.00")
    fleet.instance(acme, plan)
    fleet.at(DAY + "01:00")
    fleet.bill()
    chosen = everything(fleet) if columns == "all" else COLUMNS
    keep_copy(fleet, chosen)
    fleet.at(DAY + "03:30")
    fleet.bill()
    fleet.conn.execute("update copied set organization_id = %s", (other,))
    remove(fleet, gone)
    put_back(fleet, chosen)
    fleet.at(DAY + "06:30")
    fleet.bill()

    assert Decimal("0.065") == paid(fleet)
    assert Decimal("9.97") == fleet.balance(acme)[0] or Decimal("9.96") == fleet.balance(acme)[0]
    assert is_sound(fleet)


@pytest.mark.parametrize("gone", ["delete", "delete silently", "truncate", "truncate silently"])
@pytest.mark.parametrize("owner", ["the same", "another"])
@pytest.mark.parametrize("billed", [1, 3], ids=["one hour at a time", "three hours at once"])
def test_an_older_copy_restored_with_triggers_off_is_charged_once(
    fleet: Fleet, plan: UUID, gone: str, owner: str, billed: int
) -> None:
    """All columns of an older dump come back as they were, ours too, and no trigger of ours notices."""
    acme, other = fleet.organization("10.00"), fleet.organization("10.00")
    fleet.instance(acme, plan)
    fleet.at(DAY + "01:00")
    fleet.bill()
    columns = everything(fleet)
    keep_copy(fleet, columns)
    for hour in range(1, 7, billed):
        fleet.at(DAY + f"0{hour + billed}:00")
        fleet.bill()
    if owner == "another":
        fleet.conn.execute("update copied set organization_id = %s", (other,))
    remove(fleet, gone)
    put_back(fleet, columns, triggers=False)
    for hour in ("08:00", "09:00"):
        fleet.at(DAY + hour)
        run = fleet.bill()
        assert Outcome.COMPLETED is run.outcome, run.error_message

    assert Decimal("0.09") == paid(fleet)
    assert ([], {}) == (overlaps(fleet), fleet.quarantine())


@pytest.mark.parametrize("minutes", [-30, -60, -90, -170])
@pytest.mark.parametrize("partial_hour", ["prorate", "full", "free"])
@pytest.mark.parametrize("hours", [1, 3], ids=["one hour at a time", "three hours at once"])
def test_a_watermark_moved_back_with_triggers_off_is_moved_on(
    conn: psycopg.Connection[Any], minutes: int, partial_hour: str, hours: int
) -> None:
    """Half an hour back, so that no two charges begin at the same instant; the copy of the watermark goes back too."""
    fleet = Fleet(conn, partial_hour=partial_hour)
    acme = fleet.organization("10.00")
    web = fleet.instance(acme, fleet.plan("7.30"))
    for hour in range(hours, 7, hours):
        fleet.at(DAY + f"0{hour}:00")
        fleet.bill()
    with fleet.conn.transaction():
        fleet.conn.execute("set local session_replication_role = replica")
        fleet.conn.execute(
            "update vps_instances set last_billed_at = last_billed_at + %(by)s * interval '1 minute',"
            " rated_until = rated_until + %(by)s * interval '1 minute' where id = %(web)s",
            {"by": minutes, "web": web},
        )
    for hour in (7, 8):
        fleet.at(DAY + f"0{hour}:00")
        fleet.bill()

    assert Decimal("0.08") == paid(fleet)
    assert is_sound(fleet)


@pytest.mark.parametrize(
    ("status", "before", "after", "expected"),
    [
        ("running", {"partial_hour": "prorate"}, {"partial_hour": "free"}, "0.05"),
        ("running", {"partial_hour": "free"}, {"partial_hour": "prorate"}, "0.055"),
        ("stopped", {"billable_statuses": ("running",)}, {"billable_statuses": ("*",)}, "0.015"),
        ("running", {"billable_statuses": ("*",)}, {"billable_statuses": ("stopped",)}, "0.04"),
    ],
    ids=[
        "a partial hour becomes free",
        "a partial hour is charged",
        "a status becomes billable",
        "it is free from now on",
    ],
)
def test_what_is_left_of_a_segment_that_began_too_early_is_judged_by_where_it_begins(
    conn: psycopg.Connection[Any], status: str, before: Any, after: Any, expected: str
) -> None:
    """Four hours by the old policy, then an hour and a half by the new one; the watermark goes back silently in between."""
    fleet = Fleet(conn, **before)
    acme = fleet.organization("10.00")
    web = fleet.instance(acme, fleet.plan("7.30"), status=status)
    fleet.instance(acme, fleet.plan("0.00"))  # so that something is billed, and the first policy is settled
    fleet.at(DAY + "02:00")
    fleet.bill()
    keep_copy(fleet, everything(fleet))
    fleet.terms = replace(fleet.terms, **after)
    fleet.at(DAY + "04:00")
    fleet.bill()
    with conn.transaction():
        conn.execute("set local session_replication_role = replica")
        conn.execute(
            "update vps_instances set last_billed_at = copied.last_billed_at, rated_until = copied.rated_until"
            " from copied where copied.id = vps_instances.id and copied.id = %s",
            (web,),
        )
    fleet.at(DAY + "05:30")
    fleet.delete(web)
    fleet.at(DAY + "06:00")
    fleet.bill()

    assert Decimal(expected) == paid(fleet)
    assert is_sound(fleet)


def test_a_row_written_silently_and_then_deleted_is_charged_once(fleet: Fleet, plan: UUID) -> None:
    """The stale row is deleted before a run saw it: its last segment reaches back into what was charged."""
    acme = fleet.organization("10.00")
    fleet.instance(acme, plan)
    fleet.at(DAY + "01:00")
    fleet.bill()
    columns = everything(fleet)
    keep_copy(fleet, columns)
    fleet.at(DAY + "04:00")
    fleet.bill()
    remove(fleet, "truncate silently")
    put_back(fleet, columns, triggers=False)
    fleet.at(DAY + "05:30")
    remove(fleet, "delete")
    fleet.at(DAY + "06:00")
    fleet.bill()

    assert Decimal("0.055") == paid(fleet)
    assert is_sound(fleet)


def test_kept_segments_that_come_back_are_filed_once(fleet: Fleet, plan: UUID) -> None:
    """A dump taken between a stop and the run that filed it brings the segment back, which is charged already."""
    acme = fleet.organization("10.00")
    web = fleet.instance(acme, plan)
    fleet.at(DAY + "00:30")
    fleet.set(web, status="stopped")
    fleet.at(DAY + "00:45")
    fleet.set(web, status="running")
    columns = everything(fleet)
    keep_copy(fleet, columns)
    fleet.at(DAY + "02:00")
    fleet.bill()
    remove(fleet, "truncate silently")
    put_back(fleet, columns, triggers=False)
    fleet.at(DAY + "03:00")
    run = fleet.bill()

    assert Outcome.COMPLETED is run.outcome, run.error_message
    assert Decimal("0.025") == paid(fleet)
    fleet.at(DAY + "04:00")
    fleet.bill()
    assert is_sound(fleet)


@pytest.mark.parametrize("back", [False, True], ids=["to a new id", "and back again"])
def test_an_instance_with_another_id_is_charged_once_and_the_books_are_right(
    fleet: Fleet, plan: UUID, back: bool
) -> None:
    """What ran under the old id is its own; the new one begins where that ends."""
    acme = fleet.organization("10.00")
    web, new = fleet.instance(acme, plan), uuid4()
    fleet.at(DAY + "02:15")
    fleet.bill()
    fleet.at(DAY + "02:45")
    fleet.conn.execute("update vps_instances set id = %s where id = %s", (new, web))
    fleet.at(DAY + "04:45")
    fleet.bill()
    if back:
        fleet.conn.execute("update vps_instances set id = %s where id = %s", (web, new))
    fleet.at(DAY + "06:45")
    fleet.bill()

    assert Decimal("0.0675") == paid(fleet)
    assert is_sound(fleet)


def test_moving_and_coming_back_from_an_older_copy_is_charged_once(fleet: Fleet, plan: UUID) -> None:
    """Moved to another organization and billed there; then the copy from before the move comes back with triggers off."""
    acme, other = fleet.organization("10.00"), fleet.organization("10.00")
    web = fleet.instance(acme, plan)
    fleet.at(DAY + "01:00")
    fleet.bill()
    columns = everything(fleet)
    keep_copy(fleet, columns)
    fleet.at(DAY + "02:00")
    fleet.set(web, organization_id=other)
    fleet.at(DAY + "04:00")
    fleet.bill()
    remove(fleet, "truncate silently")
    put_back(fleet, columns, triggers=False)
    fleet.at(DAY + "06:00")
    run = fleet.bill()

    assert Outcome.COMPLETED is run.outcome, run.error_message
    assert Decimal("0.06") == paid(fleet)
    assert ([], {}) == (overlaps(fleet), fleet.quarantine())


def test_a_row_that_the_host_touched_is_an_ordinary_hour(fleet: Fleet, plan: UUID) -> None:
    """The host writes every row between runs; nothing else is due, and each pays its hour."""
    acme = fleet.organization("10.00")
    for _ in range(5):
        fleet.instance(acme, plan)
    for hour in range(1, 4):
        fleet.conn.execute("update vps_instances set updated_at = now(), label = label || '.'")
        fleet.at(DAY + f"0{hour}:00")
        assert 5 == fleet.bill().instances_billed

    assert Decimal("0.15") == paid(fleet)
    assert is_sound(fleet)


def test_a_dry_run_says_what_a_returned_row_pays(fleet: Fleet, plan: UUID) -> None:
    """It goes the way of the run, so it says the same."""
    acme = fleet.organization("10.00")
    fleet.instance(acme, plan)
    fleet.at(DAY + "01:00")
    fleet.bill()
    columns = everything(fleet)
    keep_copy(fleet, columns)
    fleet.at(DAY + "04:00")
    fleet.bill()
    remove(fleet, "truncate silently")
    put_back(fleet, columns, triggers=False)
    fleet.at(DAY + "05:00")
    expected = dry_run(fleet.order(), Limits()).amount
    run = fleet.bill()

    assert (Decimal("0.01"), Decimal("0.01")) == (expected, run.amount)


@pytest.mark.parametrize("what", ["row", "restore"])
def test_what_is_put_back_waits_for_nothing(fleet: Fleet, plan: UUID, what: str) -> None:
    """A row that comes back after 100 hours is held like any other outage, and a release charges it once."""
    acme = fleet.organization("10.00")
    fleet.instance(acme, plan)
    fleet.at(DAY + "01:00")
    fleet.bill()
    keep_copy(fleet)
    remove(fleet, "delete")
    fleet.hours(100)
    if what == "restore":
        fleet.conn.execute("update copied set last_billed_at = null")
    put_back(fleet)
    run = fleet.bill()

    assert 1 == run.held_instances


def alike(instant: datetime) -> datetime:
    """Return the first instant from here on that hashes, folded to 32 bits, like the one 2^32 - 1 microseconds later."""

    def folded(microseconds: int) -> int:
        return (microseconds ^ microseconds >> 32) & 0xFFFFFFFF

    epoch = datetime(2000, 1, 1, tzinfo=UTC)
    first = (instant - epoch) // timedelta(microseconds=1)
    found = next(
        one for one in range(first, first + 10**10, 10**6 + 1) if folded(one) == folded(one + 2**32 - 1)
    )
    return epoch + timedelta(microseconds=found)


def test_segments_whose_starts_hash_alike_are_both_charged(fleet: Fleet, plan: UUID) -> None:
    """Starts that differ by 2^32 - 1 microseconds gave two charges of one batch the same identifier, at every run."""
    acme = fleet.organization("10.00")
    web = fleet.instance(acme, plan)
    start = alike(fleet.now)
    for after in (timedelta(0), timedelta(microseconds=2**32 - 1)):
        fleet.conn.execute(
            "insert into billing_usage_segments (organization_id, instance_id, label, plan_id, status, started_at, ended_at,"
            " charge_until, closed_at, reason) values (%s, %s, 'web', %s, 'running', %s, %s, %s, %s, 'deleted')",
            [acme, web, str(plan), start + after, *[start + after + timedelta(minutes=30)] * 3],
        )
    fleet.conn.execute("delete from vps_instances")
    fleet.at(start + timedelta(hours=3))
    assert Outcome.COMPLETED is fleet.bill().outcome
    periods = fleet.rows(
        "select billing_period_start as start from vps_billing_cycles where run_id is not null order by 1"
    )
    assert [start, start + timedelta(microseconds=2**32 - 1)] == [row.start for row in periods]
