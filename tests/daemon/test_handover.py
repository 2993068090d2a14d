"""A holder of the lease dies or freezes in the middle of a run, and the other side takes over: real processes, both directions.

Of three organizations one is charged, the second waits for its wallet, when the holder is killed or stopped. One that is
stopped for longer than its lease wakes up after another biller has done its work, in the middle of a transaction of its own.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest
from tests.clock import pass_time
from tests.command import Command
from tests.daemons import Start, eventually, waits_for_lock
from tests.fleet import Fleet
from tests.served import Serve

ONE_BY_ONE = {"BILLING_BATCH_SIZE": "1", "BILLING_WORKERS": "1"}
WAYS = [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.slow)]


@pytest.fixture
def fleet(conn: psycopg.Connection[Any]) -> Fleet:
    # The clock stands in the real present: the brake compares it with the host's.
    fleet = Fleet(conn, at=conn.execute("select date_trunc('hour', now()) - interval '1 day'").fetchone()[0])  # type: ignore[index]
    plan = fleet.plan("7.30")
    for _ in range(3):
        fleet.instance(fleet.organization("10.00"), plan)
    fleet.hours(2)
    return fleet


@contextmanager
def second_wallet_locked(fleet: Fleet) -> Iterator[None]:
    """Hold the wallet of the organization that is charged second, as a top-up that takes its time does."""
    with psycopg.connect(fleet.conninfo) as top_up:
        top_up.execute(
            "select from wallets where organization_id ="
            " (select organization_id from wallets order by 1 offset 1 limit 1) for update"
        )
        yield
        top_up.rollback()


def waits_for_the_wallet(fleet: Fleet) -> bool:
    return len(charged(fleet)) == 1 and waits_for_lock(fleet.conn)


def charged(fleet: Fleet) -> dict[UUID, Decimal]:
    """Hours charged, by organization."""
    rows = fleet.rows(
        "select organization_id as id, extract(epoch from sum(billing_period_end - billing_period_start)) / 3600 as hours"
        " from vps_billing_cycles where run_id is not null and status = 'billed' group by 1"
    )
    return {row.id: row.hours for row in rows}


def outcomes(fleet: Fleet) -> list[tuple[str, str | None]]:
    return [(row.trigger, row.outcome) for row in fleet.rows("select * from billing_runs order by id")]


def strike(fleet: Fleet, pid: int, way: signal.Signals) -> None:
    """Kill the holder, or stop it until its lease has run out; a dead one's lease is not waited for."""
    os.kill(pid, way)
    if way is signal.SIGKILL:
        fleet.conn.execute("update billing_leases set expires_at = clock_timestamp()")


def lease_ran_out(fleet: Fleet) -> bool:
    return bool(fleet.rows("select from billing_leases where expires_at <= clock_timestamp()"))


def every_hour_once(fleet: Fleet, command: Command, hours: int) -> None:
    """Each organization paid for its hours once, and the books prove it."""
    assert [hours] * 3 == list(charged(fleet).values())
    assert Decimal("-0.03") * hours == fleet.rows("select sum(amount) as a from payment_transactions")[0].a
    done = command("verify", environment={"DATABASE_URL": fleet.conninfo})
    assert 0 == done.returncode, done.stdout


@pytest.mark.parametrize("way", WAYS)
def test_built_in_billing_completes_the_run_of_a_daemon(
    fleet: Fleet, start: Start, served: Serve, command: Command, way: signal.Signals
) -> None:
    """Ninety minutes after the last heartbeat it bills the rest; the daemon that wakes up charges nothing twice and goes on."""
    with second_wallet_locked(fleet):
        daemon = start(**ONE_BY_ONE, HEARTBEAT_SECONDS="1")
        daemon.until(lambda: waits_for_the_wallet(fleet))
        side = served()
        side.looks("daemon-active")
        strike(fleet, daemon.pid, way)
    eventually(lambda: lease_ran_out(fleet))
    pass_time(fleet, timedelta(minutes=90))
    eventually(lambda: outcomes(fleet) == [("daemon", "interrupted"), ("built-in", "completed")])
    every_hour_once(fleet, command, 3)

    if way is signal.SIGKILL:
        daemon.process.wait(180)
        daemon = start(HEARTBEAT_SECONDS="1")
    else:
        daemon.signal(signal.SIGCONT)
    daemon.when(lambda row: row.heartbeat_at == fleet.now and row.last_run_success)
    side.looks("daemon-active")
    assert 0 == daemon.stop()
    assert ("daemon", "completed") == outcomes(fleet)[-1]
    every_hour_once(fleet, command, 3)


@pytest.mark.parametrize("way", WAYS)
def test_a_returning_daemon_completes_the_run_of_built_in_billing(
    fleet: Fleet, start: Start, served: Serve, command: Command, way: signal.Signals
) -> None:
    """The daemon waits for the lease, bills the rest, and the application side that wakes up leaves it alone."""
    with second_wallet_locked(fleet):
        side = served(**ONE_BY_ONE)
        eventually(lambda: waits_for_the_wallet(fleet))
        strike(fleet, side.process.pid, way)
    daemon = start(HEARTBEAT_SECONDS="1")
    daemon.when(lambda row: row.last_run_success)
    assert [("built-in", "interrupted"), ("daemon", "completed")] == outcomes(fleet)

    if way is signal.SIGKILL:
        side.process.wait(180)
        side = served()
    else:
        side.process.send_signal(signal.SIGCONT)
    side.looks("daemon-active", 60)
    assert [0, 0] == [side.end(signal.SIGTERM), daemon.stop()]
    every_hour_once(fleet, command, 2)
