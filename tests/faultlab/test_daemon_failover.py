"""The daemon as a process during failover and when its connection breaks at COMMIT: it survives both."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from tests import daemons
from tests.daemons import Daemon, eventually
from tests.faultlab.primary_and_standby import INSTANCES, FailoverPair, Servers
from tests.faultlab.replica import scratch
from tests.fleet import Fleet

from containerstacks_billing.daemon.server_watch import ServerWatch
from containerstacks_billing.database.connection import connect
from containerstacks_billing.drill import oracle
from containerstacks_billing.drill.commit_proxy import CommitProxy, mentions
from containerstacks_billing.errors import DatabaseUnavailable

HOUR_IN_A_SECOND = 3600.0


@pytest.fixture
def failover_pair() -> Iterator[FailoverPair]:
    with scratch() as directory:
        servers = Servers(directory)
        failover_pair = servers.failover_pair()
        yield failover_pair
        failover_pair.conn.close()
        servers.stop()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[list[Daemon]]:
    """The daemons of a test, killed at its end if they still run."""
    started: list[Daemon] = []
    yield started
    for daemon in started:
        if daemon.process.poll() is None:
            daemon.kill()


def completed(daemon: Daemon) -> int:
    return len(daemon.lines("Billing run completed"))


def settle(fleet: Fleet, conninfo: str) -> oracle.Verdict:
    """Stop the clock, bill what became due since the daemon's last run, and ask the oracle."""
    row = fleet.conn.execute(
        "update test_clock set at = at + (clock_timestamp() - since) * speed, since = clock_timestamp(), speed = 0"
        " returning at"
    ).fetchone()
    assert row is not None
    at: datetime = row[0]
    fleet.now = at
    fleet.bill(conninfo=conninfo)
    return oracle.judge(fleet.conn)


def test_the_daemon_follows_a_promotion(
    failover_pair: FailoverPair, tmp_path: Path, running: list[Daemon]
) -> None:
    """Runs that it has seen complete are lost with the primary; it finds the other one and charges them again, alone.

    The former primary comes back writable, and stands first: nothing is charged on it, and no heartbeat is written.
    """
    daemons.compress(failover_pair.conn, HOUR_IN_A_SECOND, failover_pair.fleet.now)
    daemon = daemons.start(
        tmp_path,
        failover_pair.pair.conninfo,
        HOUR_IN_A_SECOND,
        HEARTBEAT_SECONDS="60",
        BILLING_BATCH_SIZE=str(INSTANCES),
    )
    running.append(daemon)
    daemon.until(lambda: completed(daemon) >= 2)
    failover_pair.pair.stall()
    seen = completed(daemon)
    daemon.until(lambda: completed(daemon) >= seen + 2)
    before = failover_pair.charged()
    failover_pair.fail_over(hard=True)
    assert failover_pair.charged() < before
    seen = completed(daemon)
    # A run that was under way has left its lease behind, which the test does not wait for.
    failover_pair.lease_runs_out()
    daemon.until(lambda: completed(daemon) >= seen + 2)
    daemon.when(lambda row: row.status == "running" and row.last_run_success)

    former = failover_pair.pair.standby
    former.start()
    written = "select count(*)::text || max(heartbeat_at) from vps_billing_cycles, billing_daemon_status"
    left = former.one(written)
    daemon.until(lambda: daemon.lines("a former primary that came back writable"))
    assert left == former.one(written)
    former.kill()
    seen = completed(daemon)
    daemon.until(lambda: completed(daemon) >= seen + 2)
    assert 0 == daemon.stop()

    verdict = settle(failover_pair.fleet, failover_pair.pair.conninfo)
    assert () == verdict.lines
    assert verdict.charged == verdict.due > before


def test_heartbeat_and_charges_keep_to_one_server(failover_pair: FailoverPair) -> None:
    """Promoted while the former primary is writable: the heartbeat follows the run; the former primary is refused to both."""
    pair, watch = failover_pair.pair, ServerWatch()
    with (
        connect(pair.primary.conninfo(), purpose="billing") as old,
        connect(pair.primary.conninfo(), purpose="billing") as again,
    ):
        watch.beats_on(old)
        watch.charges_on(again)
        assert not watch.has_parted()
        pair.promote()
        with connect(pair.primary.conninfo(), purpose="billing") as new:
            watch.charges_on(new)
            assert watch.has_parted()
            for reach in (watch.beats_on, watch.charges_on):
                with pytest.raises(
                    DatabaseUnavailable, match="timeline 1 of the database that was on timeline 2"
                ):
                    reach(old)
            watch.beats_on(new)
            watch.charges_on(new)
            assert not watch.has_parted()


@pytest.mark.parametrize(
    "where",
    [pytest.param("before", marks=pytest.mark.slow), pytest.param("during", marks=pytest.mark.slow), "after"],
)
def test_a_daemon_whose_connection_breaks_at_commit(
    conn: psycopg.Connection[Any], database: str, tmp_path: Path, running: list[Daemon], where: Any
) -> None:
    """Before, during and after the COMMIT of a batch: the daemon cannot know the outcome, continues, and each hour is charged once."""
    fleet = Fleet(conn)
    oracle.install(conn)
    plan, organization = fleet.plan("7.30"), fleet.organization("1000.00")
    for _ in range(5):
        fleet.instance(organization, plan)
    parameters = conninfo_to_dict(database)
    with CommitProxy(str(parameters["host"]), int(str(parameters["port"]))) as proxy:
        daemons.compress(conn, HOUR_IN_A_SECOND, fleet.now)
        daemon = daemons.start(tmp_path, proxy.conninfo(database), HOUR_IN_A_SECOND, HEARTBEAT_SECONDS="60")
        daemon.conninfo = database
        running.append(daemon)
        daemon.until(lambda: completed(daemon))
        for times in range(1, 3):
            proxy.arm(where, interesting=mentions("insert into vps_billing_cycles"))
            daemon.until(lambda times=times: times == proxy.fired)
            seen = completed(daemon)
            daemon.until(lambda seen=seen: completed(daemon) > seen)
        assert daemon.lines("A batch is tried again")
        assert 0 == daemon.stop()
    verdict = settle(fleet, database)
    assert () == verdict.lines
    assert verdict.charged == verdict.due > 0
    eventually(lambda: fleet.rows("select from billing_leases where holder is null"))
