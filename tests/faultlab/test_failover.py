"""A primary dies and its replica is promoted: the charges that the replica lacked are written once more, by any biller."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from tests.daemons import eventually, wait_for_lock
from tests.faultlab.failover import campaign
from tests.faultlab.primary_and_standby import INSTANCES, ORGANIZATIONS, FailoverPair, Servers
from tests.faultlab.replica import scratch

from containerstacks_billing.charging import lease as leases
from containerstacks_billing.charging import run_record as runs
from containerstacks_billing.charging.batch import charge_batch
from containerstacks_billing.charging.model import Outcome, Progress, RunResult
from containerstacks_billing.clock import Clock
from containerstacks_billing.daemon.built_in import BuiltInBilling
from containerstacks_billing.daemon.progress import LoopProgress
from containerstacks_billing.daemon.status_row import write_beat
from containerstacks_billing.daemon.watchdog import should_feed
from containerstacks_billing.database.connection import connect, translate_errors
from containerstacks_billing.errors import BillingError, DatabaseUnavailable, LeaseLost, OutcomeUnknown
from containerstacks_billing.settings import Settings
from containerstacks_billing.status.failover import Decision

STALLED, KILLED = 3, 6


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with scratch() as directory:
        servers = Servers(directory)
        yield servers
        servers.stop()


@pytest.fixture
def failover_pair(servers: Servers) -> Iterator[FailoverPair]:
    failover_pair = servers.failover_pair()
    yield failover_pair
    failover_pair.conn.close()


@pytest.fixture
def synchronous(servers: Servers) -> Iterator[FailoverPair]:
    failover_pair = servers.failover_pair(synchronous=True)
    yield failover_pair
    failover_pair.conn.close()


# Asynchronous replication: the tail is lost.


def test_what_a_promotion_takes_away_is_charged_once_more(failover_pair: FailoverPair) -> None:
    """Three of six committed batches never reach the replica.

    The run goes on there, under its lease, which did. The lost charges are gone together with the watermarks, and the
    next run charges them.
    """

    def fail(progress: Progress) -> None:
        if progress.batches == STALLED:
            failover_pair.pair.follow()
            failover_pair.pair.stall()
        if progress.batches == KILLED:
            assert KILLED * INSTANCES * 2 == failover_pair.charged()
            failover_pair.fail_over(hard=True)
            assert STALLED * INSTANCES * 2 == failover_pair.charged()

    result = failover_pair.bill(fail)
    assert Outcome.FAILED is result.outcome
    assert "the server lost 3 batches that it had committed" in str(result.error_message)
    assert (ORGANIZATIONS - KILLED + STALLED) == len(failover_pair.charged_organizations())

    again = failover_pair.bill()
    assert (KILLED - STALLED) * INSTANCES == again.instances_billed
    failover_pair.assert_all_charged_once()


@pytest.mark.slow
def test_a_run_whose_beginning_is_lost_ends_and_leaves_all_to_the_next(failover_pair: FailoverPair) -> None:
    """Lease and run row never reached the replica: the holder is refused there, even under a token that is given out again."""
    failover_pair.pair.follow()
    failover_pair.pair.stall()

    def fail(progress: Progress) -> None:
        if progress.batches == STALLED:
            failover_pair.fail_over()

    with pytest.raises(LeaseLost):
        failover_pair.bill(fail)
    assert 0 == failover_pair.charged()
    assert ORGANIZATIONS * INSTANCES == failover_pair.bill().instances_billed
    failover_pair.assert_all_charged_once()


def test_a_token_that_is_given_out_twice_lets_only_the_second_holder_charge(
    failover_pair: FailoverPair,
) -> None:
    """A promotion turns the counter back. The nonce still tells the holders apart: the old one can neither charge nor renew."""
    failover_pair.pair.follow()
    failover_pair.pair.stall()
    with connect(failover_pair.pair.conninfo, purpose="billing") as old:
        lost = leases.acquire(old, "old holder")
        run = runs.open_run(
            old,
            lost,
            failover_pair.fleet.terms,
            trigger="test",
            as_of=failover_pair.fleet.now,
            host_clock=failover_pair.fleet.now,
        )
        batches = list(runs.plan_batches(old, run, INSTANCES))
    failover_pair.fail_over()
    with connect(failover_pair.pair.conninfo, purpose="billing") as new:
        held = leases.acquire(new, "new holder")
        assert held.fencing_token == lost.fencing_token
        with pytest.raises(LeaseLost):
            charge_batch(new, run, batches[0])
        assert 0 == failover_pair.charged()
    failover_pair.lease_runs_out()
    failover_pair.bill()
    failover_pair.assert_all_charged_once()


def test_a_holder_that_slept_through_the_promotion_is_refused(
    failover_pair: FailoverPair, tmp_path: Path
) -> None:
    """Stopped in the middle of a transaction, woken when another has billed on the new primary.

    Its old connection is dead, and on a new one it finds that its lease is not its own any more.
    """
    blocker = psycopg.connect(failover_pair.pair.primary.conninfo())
    blocker.execute("select from wallets for update")
    sleeper = a_run(failover_pair, tmp_path)
    wait_for_lock(failover_pair.fleet.conn)
    sleeper.send_signal(signal.SIGSTOP)
    failover_pair.pair.follow()
    blocker.close()
    failover_pair.fail_over()
    failover_pair.lease_runs_out()
    failover_pair.bill()
    failover_pair.assert_all_charged_once()

    sleeper.send_signal(signal.SIGCONT)
    _, said = sleeper.communicate(timeout=180)
    assert 1 == sleeper.returncode, said
    assert "another biller took over" in said
    failover_pair.assert_all_charged_once()


@pytest.mark.slow
def test_a_primary_that_goes_on_by_itself_charges_nothing_on_the_other_side(
    failover_pair: FailoverPair,
) -> None:
    """Split brain: both servers take writes, and each has a biller.

    What the surviving server says is right by itself; what was charged on the other goes with it.
    """
    failover_pair.pair.follow()
    with psycopg.connect(failover_pair.pair.primary.conninfo(), autocommit=True) as abandoned:
        failover_pair.pair.stall()
        failover_pair.pair.promote()
        failover_pair.bill(conninfo=failover_pair.pair.standby.conninfo())
        (on_the_other,) = abandoned.execute("select count(*) from vps_billing_cycles").fetchone() or (0,)
        assert ORGANIZATIONS * INSTANCES == on_the_other
    failover_pair.follow()
    assert 0 == failover_pair.charged()
    failover_pair.bill(conninfo=failover_pair.pair.primary.conninfo())
    failover_pair.assert_all_charged_once()


def test_built_in_billing_follows_to_the_new_primary(failover_pair: FailoverPair) -> None:
    """Without a primary it reports an unknown status; after the promotion it bills the hours that are due there."""
    built_in = BuiltInBilling(Settings(built_in_billing="on"), failover_pair.pair.conninfo)
    failover_pair.pair.follow()
    failover_pair.pair.kill()
    seen = built_in.check()
    assert Decision.CANNOT_TELL is seen.decision.decision
    assert "does not bill" in seen.decision.sentence
    failover_pair.pair.promote()
    failover_pair.follow()
    seen = built_in.check()
    assert seen.result is not None, seen.decision
    assert Outcome.COMPLETED is seen.result.outcome
    failover_pair.assert_all_charged_once()


@pytest.mark.slow
def test_of_several_hosts_the_one_that_accepts_writes_is_taken(failover_pair: FailoverPair) -> None:
    """The standby stands first in the list, without target_session_attrs: billing requests the primary by itself."""
    pair = failover_pair.pair
    listed = make_conninfo(pair.standby.conninfo(), host=f"{pair.standby.address},{pair.primary.address}")
    failover_pair.bill(conninfo=listed)
    failover_pair.assert_all_charged_once()


def test_a_server_in_recovery_bills_nothing_and_is_named(failover_pair: FailoverPair) -> None:
    """A run, and built-in billing, on a standby, whether it is addressed alone or is the only host that answers."""
    alone = failover_pair.pair.standby.conninfo()
    with pytest.raises(DatabaseUnavailable, match="read-only: a standby, in recovery"):
        failover_pair.bill(conninfo=alone)
    seen = BuiltInBilling(Settings(built_in_billing="on"), alone).check()
    assert Decision.CANNOT_TELL is seen.decision.decision
    assert "read-only" in seen.decision.sentence
    failover_pair.pair.kill()
    with pytest.raises(DatabaseUnavailable, match="read-only standby"):
        failover_pair.bill()


# Synchronous replication: nothing that was acknowledged is lost, and waiting is the price.


@pytest.mark.slow
def test_synchronous_replication_loses_nothing_that_was_acknowledged(synchronous: FailoverPair) -> None:
    """The primary is killed after any batch: every acknowledged commit is on the replica."""
    failover_pair = synchronous

    def fail(progress: Progress) -> None:
        if progress.batches == KILLED:
            failover_pair.fail_over(hard=True)
            assert KILLED * INSTANCES * 2 <= failover_pair.charged()
            failover_pair.conn.execute("alter system set synchronous_standby_names = ''")
            failover_pair.conn.execute("select pg_reload_conf()")

    result = failover_pair.bill(fail)
    assert Outcome.COMPLETED is result.outcome
    failover_pair.assert_all_charged_once()


def waiting_commits(failover_pair: FailoverPair) -> list[int]:
    """The backends whose COMMIT waits for the standby."""
    rows = failover_pair.fleet.rows(
        "select pid from pg_stat_activity where wait_event = 'SyncRep' order by pid"
    )
    return [row.pid for row in rows]


def test_a_cancelled_wait_for_the_standby_is_no_success(synchronous: FailoverPair) -> None:
    """The standby is gone and an operator cancels the COMMIT that waits for it; the server calls it committed, with a warning.

    The batch is not counted: it is begun again from the rows, and waits again. When the standby is back it is charged
    once.
    """
    failover_pair = synchronous
    seen: list[int] = []
    results: list[RunResult] = []
    stalled = threading.Event()

    def progressed(progress: Progress) -> None:
        seen.append(progress.batches)
        if progress.batches == STALLED:
            failover_pair.pair.stall()
            stalled.set()

    run = threading.Thread(target=lambda: results.append(failover_pair.bill(progressed)))
    run.start()
    assert stalled.wait(180)
    first = eventually(lambda: waiting_commits(failover_pair))
    failover_pair.conn.execute("select pg_cancel_backend(%s)", (first[0],))
    eventually(lambda: (STALLED + 1) * INSTANCES * 2 == failover_pair.charged())
    eventually(lambda: waiting_commits(failover_pair))
    assert STALLED == max(seen)
    loops = {"billing": lambda: 400.0}
    assert (True, "The database leaves a COMMIT without an answer, and billing waits for it") == should_feed(
        loops, 300
    )
    failover_pair.pair.resume()
    run.join(180)

    assert Outcome.COMPLETED is results[0].outcome
    assert ORGANIZATIONS * INSTANCES == results[0].instances_billed
    assert not should_feed(loops, 300)[0]
    failover_pair.assert_all_charged_once()


@pytest.mark.slow
def test_a_heartbeat_waits_for_the_standby_and_a_cancelled_one_does_not_count(
    synchronous: FailoverPair,
) -> None:
    """It does not count as written, so the service manager is not notified of it either."""
    failover_pair = synchronous
    failover_pair.pair.stall()
    problems: list[BillingError] = []

    def write() -> None:
        try:
            with translate_errors(), connect(failover_pair.pair.conninfo, purpose="billing") as connection:
                write_beat(connection, LoopProgress(Clock()).beat("a daemon", 600, {}, stopped=False))
        except BillingError as problem:
            problems.append(problem)

    beat = threading.Thread(target=write)
    beat.start()
    waiting = eventually(lambda: waiting_commits(failover_pair))
    failover_pair.conn.execute("select pg_cancel_backend(%s)", (waiting[0],))
    beat.join(180)
    assert [OutcomeUnknown] == [type(problem) for problem in problems]


# The daemon as a process.


def a_run(failover_pair: FailoverPair, directory: Path) -> subprocess.Popen[str]:
    """Begin `run` as an operator does."""
    return subprocess.Popen(
        [sys.executable, "-m", "containerstacks_billing", "run"],
        cwd=directory,
        env={
            "PATH": "/usr/bin:/bin",
            "DATABASE_URL": failover_pair.pair.conninfo,
            "BILLING_BATCH_SIZE": str(INSTANCES),
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_a_handful_of_random_promotions() -> None:
    """The short form of the campaign: nothing charged twice, nothing lost, no drift, by the oracle."""
    report = campaign(promotions=5, seed=19)
    print(report.text())
    assert [] == report.findings
    assert report.charged == report.due > 0
    assert report.took_charges > 0
