"""The row of a daemon: written whole, bounded, and by the database's clock."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from tests.fleet import Fleet

from containerstacks_billing.daemon.model import Beat, DaemonStatus, LastRun
from containerstacks_billing.daemon.status_row import last_run, write_beat

GUIDE_QUERY = """
    SELECT
      daemon_instance_id,
      status,
      last_run_at,
      last_run_success,
      instances_billed,
      total_amount,
      heartbeat_at,
      EXTRACT(EPOCH FROM (NOW() - heartbeat_at))/60 as minutes_since_heartbeat
    FROM billing_daemon_status
    ORDER BY heartbeat_at DESC
    LIMIT 1;
"""


@pytest.fixture
def fleet(conn: psycopg.Connection[Any]) -> Fleet:
    return Fleet(conn)


def a_beat(**changes: Any) -> Beat:
    beat = Beat("host-1-abc", DaemonStatus.RUNNING, 0.0, 90.0, 1800.0, LastRun(), None, None)
    return replace(beat, **changes)


def test_amounts_that_the_column_cannot_hold_stop_at_its_largest(fleet: Fleet) -> None:
    """A run over a hundred million is no reason for a daemon to look dead; billing_runs has the exact sum."""
    large = LastRun(
        7, fleet.now, True, "completed", 3_000_000_000, Decimal("123456789012.345678"), Decimal(10**12)
    )
    write_beat(fleet.conn, a_beat(last_run=large, last_run_success=True))
    row = fleet.rows("select * from billing_daemon_status")[0]

    assert (2147483647, Decimal("99999999.99"), Decimal("99999999.99")) == (
        row.instances_billed,
        row.total_amount,
        row.total_hours,
    )


def test_a_beat_is_written_by_the_clock_of_the_database(fleet: Fleet) -> None:
    """Start, heartbeat and next run are all instants of its clock, reckoned from spans that this host measured."""
    write_beat(fleet.conn, a_beat(silent_seconds=5400.0))
    row = fleet.rows("select *, billing_clock() as now from billing_daemon_status")[0]

    assert (90, 5400) == (
        (row.now - row.started_at).total_seconds(),
        (row.now - row.heartbeat_at).total_seconds(),
    )
    assert "2026-03-01T00:30:00" == row.metadata["next_run_at"][:19]


def test_the_query_of_the_guide_works_as_it_is_written(fleet: Fleet) -> None:
    """Copied by operators, so every column of it is a contract."""
    write_beat(fleet.conn, a_beat())

    assert "host-1-abc" == fleet.rows(GUIDE_QUERY)[0].daemon_instance_id


def test_a_beat_without_facts_leaves_those_that_the_row_has(fleet: Fleet) -> None:
    """Unknown values keep the columns as they are; the error message is always the present one."""
    facts = LastRun(7, fleet.now, True, "completed", 5, Decimal("0.50"), Decimal(50))
    write_beat(fleet.conn, a_beat(last_run=facts, last_run_success=True, error_message="once"))
    write_beat(fleet.conn, a_beat(error_message="a\0b" + "x" * 9000))
    row = fleet.rows("select * from billing_daemon_status")[0]

    assert (fleet.now, True, 5, Decimal("0.50")) == (
        row.last_run_at,
        row.last_run_success,
        row.instances_billed,
        row.total_amount,
    )
    assert ("abx", 2000) == (row.error_message[:3], len(row.error_message))


def test_the_last_run_of_any_daemon_is_found(fleet: Fleet) -> None:
    """A manual run between two daemons is not taken for theirs."""
    assert (LastRun(), None) == last_run(fleet.conn)
    fleet.instance(fleet.organization("10.00"), fleet.plan("7.30"))
    fleet.hours(1)
    mine = fleet.bill(trigger="daemon")
    fleet.bill()
    found, message = last_run(fleet.conn)

    assert (mine.run_id, True, 1, Decimal("0.01"), None) == (
        found.run_id,
        found.success,
        found.instances_billed,
        found.amount,
        message,
    )
