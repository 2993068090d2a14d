"""`serve` as a process: several of them, a clock that obeys, a daemon that comes and goes, and kill -9."""

from __future__ import annotations

import os
import signal
import socket
import urllib.request
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.clock import heartbeat, hourly_fleet, let_the_clock_run, pass_time, stop_the_clock
from tests.command import Command
from tests.daemons import eventually, wait_for_lock
from tests.fleet import Fleet
from tests.served import Serve, Served

SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
NINETY = 90 * MINUTE


@pytest.fixture
def fleet(conn: psycopg.Connection[Any]) -> Fleet:
    fleet = Fleet(conn, at=conn.execute("select date_trunc('hour', now()) - interval '1 day'").fetchone()[0])  # type: ignore[index]
    hourly_fleet(fleet)
    return fleet


def runs(fleet: Fleet) -> list[str]:
    return [
        row.outcome
        for row in fleet.rows("select outcome from billing_runs where trigger = 'built-in' order by id")
    ]


def newest_run(fleet: Fleet) -> Any:
    return fleet.rows("select * from billing_runs order by id desc limit 1")[0]


def hours_charged(fleet: Fleet) -> Decimal:
    return fleet.rows(  # type: ignore[no-any-return]
        "select sum(extract(epoch from billing_period_end - billing_period_start)) / 3600 as hours from vps_billing_cycles"
    )[0].hours


def looked(fleet: Fleet, *replicas: Served, decision: str) -> None:
    """Wait until each process has looked again and come to this decision."""
    for one in replicas:
        eventually(lambda one=one: one.daemon()["builtIn"]["decision"] == decision)  # type: ignore[misc]


def test_two_replicas_take_over_once_and_hand_back(fleet: Fleet, served: Serve) -> None:
    """At 89:59 nothing; at 90:00 one run, by either process; a heartbeat returns and ends it; SIGTERM ends them with 0."""
    heartbeat(fleet, NINETY - SECOND)
    replicas = [served(), served()]
    looked(fleet, *replicas, decision="daemon-active")
    assert [] == runs(fleet)

    fleet.at(SECOND)
    eventually(lambda: runs(fleet) == ["completed"])
    looked(fleet, *replicas, decision="not-due")
    # What is shown is a second old at most.
    eventually(lambda: ["built-in"] * 2 == [one.daemon()["biller"] for one in replicas])

    pass_time(fleet, HOUR)
    eventually(lambda: runs(fleet) == ["completed"] * 2)
    looked(fleet, *replicas, decision="not-due")

    heartbeat(fleet)
    pass_time(fleet, HOUR)
    looked(fleet, *replicas, decision="daemon-active")
    assert ["completed"] * 2 == runs(fleet)
    assert [0, 0] == [one.end(signal.SIGTERM) for one in replicas]
    assert [0] == [len(fleet.rows("select from billing_runs where outcome is null"))]


@pytest.mark.parametrize("times", [3, pytest.param(100, marks=pytest.mark.slow)])
def test_a_process_takes_over_and_hands_back_every_time(fleet: Fleet, served: Serve, times: int) -> None:
    """At 89:59 it looks and does nothing; the clock runs, and between 90:00 and 91:00 it bills; a heartbeat ends it."""
    heartbeat(fleet)
    process = served()
    silences = []
    for turn in range(times):
        last_heartbeat = fleet.now
        pass_time(fleet, NINETY - SECOND)
        process.looks("daemon-active")
        assert turn == len(runs(fleet))
        let_the_clock_run(fleet)
        try:
            eventually(lambda turn=turn: ["completed"] * (turn + 1) == runs(fleet))  # type: ignore[misc]
        except AssertionError as late:
            raise AssertionError(f"in turn {turn}\n{process.log()[-3000:]}") from late
        silences.append(newest_run(fleet).started_at - last_heartbeat)
        stop_the_clock(fleet)
        heartbeat(fleet)
        process.looks("daemon-active")
    assert ["completed"] * times == runs(fleet)
    assert [] == [silence for silence in silences if not NINETY <= silence < NINETY + MINUTE]
    begun = fleet.rows("select min(created_at) as at from vps_instances")[0].at
    assert (newest_run(fleet).as_of - begun) // HOUR == hours_charged(fleet)


def test_a_replica_killed_in_the_middle_of_a_run_is_replaced(
    fleet: Fleet, served: Serve, command: Command
) -> None:
    """Killed while it waits for a wallet: another charges every hour once, and closes the dead one's run."""
    with psycopg.connect(fleet.conninfo) as holding:
        holding.execute("select from wallets for update")
        victim = served()
        eventually(lambda: runs(fleet) == [None])
        wait_for_lock(fleet.conn)
        assert -signal.SIGKILL == victim.end(signal.SIGKILL)
    # The dead one's lease runs out by itself; here half a minute is not waited for.
    fleet.conn.execute("update billing_leases set expires_at = clock_timestamp()")
    served()
    eventually(lambda: runs(fleet) == ["interrupted", "completed"])

    debits = fleet.rows("select sum(amount) as amount from payment_transactions")[0]
    assert Decimal("-0.02") == debits.amount
    assert [("00:00", "02:00")] == [(c[0][3:], c[1][3:]) for c in _from_midnight(fleet)]
    assert 0 == command("verify", environment={"DATABASE_URL": fleet.conninfo}).returncode


def _from_midnight(fleet: Fleet) -> list[tuple[str, str]]:
    """Our charges, as hours since the fleet began."""
    begin = fleet.rows("select min(created_at) as at from vps_instances")[0].at
    rows = fleet.rows(
        "select billing_period_start - %s as a, billing_period_end - %s as b from vps_billing_cycles",
        begin,
        begin,
    )
    return [(f"00 {row.a.seconds // 3600:02}:00", f"00 {row.b.seconds // 3600:02}:00") for row in rows]


def test_a_port_that_is_taken_may_be_free_later(fleet: Fleet, served: Serve, command: Command) -> None:
    """Exit 75 with the address, so that it is started again; nothing is billed. One that nobody may have ends it with 78."""
    heartbeat(fleet)
    port = served().address.rpartition(":")[2]
    done = command("serve", "--port", port, environment={"DATABASE_URL": fleet.conninfo})
    assert (75, True) == (done.returncode, f"127.0.0.1 port {port}" in done.stderr)
    done = command("serve", "--host", "192.0.2.1", environment={"DATABASE_URL": fleet.conninfo})
    assert (78, True) == (done.returncode, "192.0.2.1 port 3001" in done.stderr)


def test_systemd_hears_that_it_answers(served: Serve) -> None:
    """READY comes after it listens, and STOPPING when it ends: a start that is waited for has begun to serve."""
    name = f"\0containerstacks-serve-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(name)
        systemd.settimeout(180)
        one = served(NOTIFY_SOCKET=name.replace("\0", "@"))
        assert f"READY=1\nSTATUS=listening at {one.address}" == systemd.recv(4096).decode()
        one.process.send_signal(signal.SIGTERM)
        assert "STOPPING=1" == systemd.recv(4096).decode()


def test_it_needs_the_database_to_be_named_but_not_to_be_there(
    command: Command, served: Serve, tmp_path: Path
) -> None:
    """Without DATABASE_URL exit 78; with one that leads nowhere it serves, and says so."""
    assert 78 == command("serve").returncode
    lonely = served(DATABASE_URL=f"host={tmp_path} dbname=x")
    with urllib.request.urlopen(lonely.address + "/healthz", timeout=180) as answer:
        assert 200 == answer.status
    assert 0 == lonely.end(signal.SIGINT)
