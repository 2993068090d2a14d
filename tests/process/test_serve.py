"""`serve` as a process: several of them, a clock that obeys, a daemon that comes and goes, and kill -9."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.clock import heartbeat, host_clock_follows, hourly_fleet
from tests.fleet import Fleet
from tests.process.conftest import Command
from tests.process.web import ADMIN_TOKEN, DAEMON

Start = Callable[..., "Served"]


class Served:
    """A running `serve` and its address."""

    def __init__(self, process: subprocess.Popen[str], address: str) -> None:
        self.process = process
        self.address = address

    def daemon(self) -> dict[str, Any]:
        """Ask it for the health of the daemon."""
        request = urllib.request.Request(
            self.address + DAEMON, headers={"Authorization": f"Bearer {ADMIN_TOKEN}"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            body: dict[str, Any] = json.load(answer)["daemon"]
            return body

    def end(self, number: int) -> int:
        """Send it a signal; return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)


@pytest.fixture
def fleet(conn: psycopg.Connection[Any]) -> Fleet:
    fleet = Fleet(conn, at=conn.execute("select date_trunc('hour', now()) - interval '1 day'").fetchone()[0])  # type: ignore[index]
    hourly_fleet(fleet)
    return fleet


@pytest.fixture
def start(fleet: Fleet, tmp_path: Path) -> Iterator[Start]:
    """A function that starts `serve` and waits until it listens."""
    started: list[subprocess.Popen[str]] = []

    def run(**environment: str) -> Served:
        process = subprocess.Popen(
            [sys.executable, "-m", "containerstacks_billing", "serve", "--check-seconds", "0.1"],
            cwd=tmp_path,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(tmp_path),
                "DATABASE_URL": fleet.conninfo,
                "ADMIN_TOKEN": ADMIN_TOKEN,
                "PORT": "0",
                **environment,
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stderr is not None
        for line in process.stderr:
            if found := re.search(r"address=(http://\S+)", line):
                return Served(process, found[1])
        raise AssertionError("it ended before it listened")

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait(30)
        assert process.stderr is not None
        process.stderr.close()


def runs(fleet: Fleet) -> list[str]:
    return [
        row.outcome
        for row in fleet.rows("select outcome from billing_runs where trigger = 'built-in' order by id")
    ]


def eventually(fleet: Fleet, holds: Callable[[], bool]) -> None:
    for _ in range(600):
        if holds():
            return
        fleet.conn.execute("select pg_sleep(0.05)")
    raise AssertionError(f"it never held; runs: {runs(fleet)}")


def looked(fleet: Fleet, *served: Served, decision: str) -> None:
    """Wait until each process has looked again and come to this decision."""
    for one in served:
        eventually(fleet, lambda one=one: one.daemon()["builtIn"]["decision"] == decision)  # type: ignore[misc]


def test_two_replicas_take_over_once_and_hand_back(fleet: Fleet, start: Start) -> None:
    """At 89:59 nothing; at 90:00 one run, whoever makes it; a heartbeat returns and ends it; SIGTERM ends them with 0."""
    heartbeat(fleet, timedelta(minutes=89, seconds=59))
    replicas = [start(), start()]
    looked(fleet, *replicas, decision="daemon-active")
    assert [] == runs(fleet)

    fleet.at(timedelta(seconds=1))
    eventually(fleet, lambda: runs(fleet) == ["completed"])
    looked(fleet, *replicas, decision="not-due")
    # What is shown is a second old at most.
    eventually(fleet, lambda: ["built-in"] * 2 == [one.daemon()["biller"] for one in replicas])

    fleet.hours(1)
    host_clock_follows(fleet)
    eventually(fleet, lambda: runs(fleet) == ["completed"] * 2)
    looked(fleet, *replicas, decision="not-due")

    heartbeat(fleet)
    fleet.hours(1)
    host_clock_follows(fleet)
    looked(fleet, *replicas, decision="daemon-active")
    assert ["completed"] * 2 == runs(fleet)
    assert [0, 0] == [one.end(signal.SIGTERM) for one in replicas]
    assert [0] == [len(fleet.rows("select from billing_runs where outcome is null"))]


def test_a_replica_killed_in_the_middle_of_a_run_is_replaced(
    fleet: Fleet, start: Start, command: Command
) -> None:
    """Killed while it waits for a wallet: another charges every hour once, and closes the dead one's run."""
    with psycopg.connect(fleet.conninfo) as holding:
        holding.execute("select from wallets for update")
        victim = start()
        eventually(fleet, lambda: runs(fleet) == [None])
        eventually(
            fleet,
            lambda: bool(
                fleet.rows(
                    "select from pg_stat_activity where wait_event_type = 'Lock' and query like '%%wallets%%'"
                )
            ),
        )
        assert -signal.SIGKILL == victim.end(signal.SIGKILL)
    # The dead one's lease runs out by itself; here half a minute is not waited for.
    fleet.conn.execute("update billing_leases set expires_at = clock_timestamp()")
    start()
    eventually(fleet, lambda: runs(fleet) == ["interrupted", "completed"])

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


def test_a_port_that_is_taken_is_a_wrong_configuration(fleet: Fleet, start: Start, command: Command) -> None:
    """Exit 78 with the address, and nothing is billed."""
    heartbeat(fleet)
    port = start().address.rpartition(":")[2]
    done = command("serve", "--port", port, environment={"DATABASE_URL": fleet.conninfo})
    assert (78, True) == (done.returncode, f"127.0.0.1 port {port}" in done.stderr)


def test_it_needs_the_database_to_be_named_but_not_to_be_there(
    command: Command, start: Start, tmp_path: Path
) -> None:
    """Without DATABASE_URL exit 78; with one that leads nowhere it serves, and says so."""
    assert 78 == command("serve").returncode
    served = start(DATABASE_URL=f"host={tmp_path} dbname=x")
    with urllib.request.urlopen(served.address + "/healthz", timeout=30) as answer:
        assert 200 == answer.status
    assert 0 == served.end(signal.SIGINT)
