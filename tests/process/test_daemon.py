"""The daemon as operators meet it: a process that is started, asked, signalled and killed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests import daemons
from tests.fleet import Fleet

Start = Callable[..., daemons.Daemon]


@pytest.fixture
def fleet(conn: psycopg.Connection[Any]) -> Fleet:
    return Fleet(conn)


@pytest.fixture
def start(tmp_path: Path, database: str) -> Iterator[Start]:
    """A function that starts a daemon; whatever still lives after the test is killed."""
    started: list[daemons.Daemon] = []

    def begin(conninfo: str = database, speed: float = 1, **settings: str) -> daemons.Daemon:
        started.append(daemons.start(tmp_path, conninfo, speed, **settings))
        return started[-1]

    yield begin
    for daemon in started:
        if daemon.process.poll() is None:
            daemon.kill()


def test_it_bills_at_its_start_says_so_and_stops_with_its_facts(fleet: Fleet, start: Start) -> None:
    """Three hours are charged, the row tells them, and a clean stop keeps what it tells."""
    organization = fleet.organization("10.00")
    fleet.instance(organization, fleet.plan("7.30"))
    fleet.hours(3)
    daemon = start()
    row = daemon.when(lambda row: row.last_run_success)

    assert ("running", 1, Decimal("0.03"), Decimal("3.00"), None) == (
        row.status,
        row.instances_billed,
        row.total_amount,
        row.total_hours,
        row.error_message,
    )
    assert (fleet.now, fleet.now) == (row.heartbeat_at, row.last_run_at)
    assert [("01 00:00", "01 03:00", "0.03", "billed")] == fleet.charges()

    assert 0 == daemon.stop()
    stopped = daemon.row()
    assert ("stopped", True, 1, Decimal("0.03"), fleet.now) == (
        stopped.status,
        stopped.last_run_success,
        stopped.instances_billed,
        stopped.total_amount,
        stopped.last_run_at,
    )
