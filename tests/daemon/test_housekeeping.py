"""Housekeeping: what is old and means nothing goes; the books, and what explains them, stay."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import psycopg
import pytest
from tests.fleet import Fleet

from containerstacks_billing.charging.model import Outcome
from containerstacks_billing.daemon.housekeeping import is_clock_steady, remove_old
from containerstacks_billing.verification.verify import verify


@pytest.fixture
def fleet(conn: psycopg.Connection[Any]) -> Fleet:
    return Fleet(conn)


def runs(fleet: Fleet) -> list[tuple[int, str]]:
    return [(row.id, row.outcome) for row in fleet.rows("select id, outcome from billing_runs order by id")]


def test_runs_that_charged_stay_for_ever_and_empty_ones_go(fleet: Fleet) -> None:
    """A charge of three months ago is still explained by its run; verify needs the hours per month of that run."""
    organization = fleet.organization("10.00")
    fleet.instance(organization, fleet.plan("7.30"))
    fleet.hours(1)
    charged, empty = fleet.bill(), fleet.bill()
    fleet.at(timedelta(days=2))
    recent = fleet.bill()
    fleet.at(timedelta(days=89))
    removed = remove_old(fleet.conn, retention_days=90, instance_id="mine")

    assert {"billing_runs": 1} == removed
    assert [(charged.run_id, "completed"), (recent.run_id, "completed")] == runs(fleet)
    assert empty.run_id not in dict(runs(fleet))
    assert verify(fleet.conninfo).ok


def test_a_hold_that_nobody_released_is_never_too_old(fleet: Fleet) -> None:
    """Removing it would release it; it goes when a later run has completed and it is old."""
    organization = fleet.organization("10.00")
    plan = fleet.plan("7.30")
    fleet.instance(organization, plan)
    fleet.hours(1)
    fleet.bill()
    fleet.reprice(plan, "7300")
    fleet.hours(1)
    held = fleet.bill()
    assert Outcome.HELD is held.outcome
    fleet.at(timedelta(days=1000))

    assert {"billing_events": 1} == remove_old(fleet.conn, retention_days=1, instance_id="mine")
    assert held.run_id in dict(runs(fleet))


def test_old_rows_of_other_daemons_go(fleet: Fleet) -> None:
    """In any status; the row of the daemon that cleans up stays, however old its heartbeat."""
    for name, days in (("mine", 100), ("old", 100), ("older", 1000), ("recent", 10)):
        fleet.conn.execute(
            "insert into billing_daemon_status (daemon_instance_id, status, heartbeat_at)"
            " values (%s, 'running', billing_clock() - %s * interval '1 day')",
            (name, days),
        )

    assert {"billing_daemon_status": 2} == remove_old(fleet.conn, retention_days=90, instance_id="mine")
    assert ["mine", "recent"] == [
        row.name
        for row in fleet.rows("select daemon_instance_id as name from billing_daemon_status order by 1")
    ]


def test_events_go_when_nothing_will_be_done_with_them(fleet: Fleet) -> None:
    """Delivered, given up, or never wanted; one that is being tried stays."""
    for kind, columns in (
        ("recovered", "delivered_at = billing_clock()"),
        ("past_due", "dead_at = billing_clock()"),
        ("run_held", "attempts = 0"),
        ("runway_3h", "attempts = 4"),
    ):
        fleet.conn.execute(
            "insert into billing_events (kind, occurred_at) values (%s, billing_clock() - interval '91 days')",
            (kind,),
        )
        fleet.conn.execute(f"update billing_events set {columns} where kind = %s", (kind,))

    assert {"billing_events": 3} == remove_old(fleet.conn, retention_days=90, instance_id="mine")
    fleet.conn.execute(
        "insert into billing_events (kind, occurred_at) values ('recovered', billing_clock() - interval '6 days')"
    )
    assert {} == remove_old(fleet.conn, retention_days=1, instance_id="mine")
    fleet.conn.execute("delete from billing_events where kind = 'recovered'")
    assert ["runway_3h"] == [row.kind for row in fleet.rows("select kind from billing_events")]


def test_much_is_removed_a_little_at_a_time(fleet: Fleet) -> None:
    """1,200 rows take three statements, and none of them holds a lock for long."""
    fleet.conn.execute(
        "insert into billing_daemon_status (daemon_instance_id, status, heartbeat_at)"
        " select 'host-' || n, 'stopped', '2020-01-01' from generate_series(1, 1200) n"
    )

    assert {"billing_daemon_status": 1200} == remove_old(fleet.conn, retention_days=90, instance_id="mine")
    asked = iter([False, True])
    fleet.conn.execute(
        "insert into billing_daemon_status (daemon_instance_id, status, heartbeat_at)"
        " select 'host-' || n, 'stopped', '2020-01-01' from generate_series(1, 1200) n"
    )
    assert {"billing_daemon_status": 500} == remove_old(
        fleet.conn, retention_days=90, instance_id="mine", stopping=lambda: next(asked)
    )


def test_nothing_is_old_by_a_clock_that_jumped(fleet: Fleet) -> None:
    """Both clocks 400 days ahead agree, and a run completes; what it calls old stays until a day of runs says the same."""
    fleet.instance(fleet.organization("10.00"), fleet.plan("7.30"))
    before = [is_clock_steady(fleet.conn)]
    for _ in range(3):
        fleet.hours(1)
        fleet.bill()
    before.append(is_clock_steady(fleet.conn))
    fleet.at(timedelta(days=400))
    assert Outcome.COMPLETED is fleet.bill().outcome
    jumped = is_clock_steady(fleet.conn)
    for _ in range(23):
        fleet.hours(1)
        fleet.bill()

    assert ([False, True], False, True) == (before, jumped, is_clock_steady(fleet.conn))
