"""Everything works through PgBouncer in transaction mode, where no two statements outside a transaction share a session."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from tests import daemons
from tests.faultlab.pooler import Pooler, program
from tests.fleet import Fleet
from tests.forked import fork_server
from tests.web.client import ADMIN_TOKEN, DAEMON, bearer, client_of

from containerstacks_billing.charging.model import Outcome, Progress, RunResult
from containerstacks_billing.daemon.built_in import BuiltInBilling
from containerstacks_billing.errors import BillingError
from containerstacks_billing.settings import Settings
from containerstacks_billing.verification import readers
from containerstacks_billing.verification.verify import verify

pytestmark = pytest.mark.skipif(program() is None, reason="pgbouncer is missing: apt-get install pgbouncer")
ORGANIZATIONS, INSTANCES = 6, 4


@pytest.fixture
def pooler(database: str) -> Iterator[Pooler]:
    with Pooler(database) as pooler:
        yield pooler


def test_a_pool_of_one_server_is_verified_by_one_reader(
    database: str, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pooler takes a second connection and has no server for it: the first reader reads alone, with the same result."""
    monkeypatch.setattr(readers, "ANSWER_SECONDS", 0.5)
    fleet.bill()
    with Pooler(database, pool=1) as pooler:
        found = verify(pooler.conninfo, shared_from=0)
    assert (True, ORGANIZATIONS * INSTANCES) == (found.ok, found.checks[0].examined)


@pytest.fixture
def fleet(conn: psycopg.Connection[Any]) -> Fleet:
    """A fleet with two hours due."""
    fleet = Fleet(conn)
    plan = fleet.plan("7.30")
    for _ in range(ORGANIZATIONS):
        organization = fleet.organization("1000.00")
        for _ in range(INSTANCES):
            fleet.instance(organization, plan)
    fleet.hours(2)
    return fleet


def command(pooler: Pooler, directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(directory), "DATABASE_URL": pooler.conninfo}
    return fork_server().run(arguments, directory, environment, 180)


def assert_all_charged_once(fleet: Fleet) -> None:
    charges = fleet.charges()
    assert ORGANIZATIONS * INSTANCES == len(charges)
    assert {("01 00:00", "01 02:00", "0.02", "billed")} == set(charges)
    found = verify(fleet.conninfo)
    assert found.ok, found.discrepancies


def test_an_empty_database_is_migrated_billed_and_verified(empty_database: str, tmp_path: Path) -> None:
    """No command needs a direct connection, migrate included; doctor names the mode."""
    with Pooler(empty_database) as pooler:
        for arguments in (["migrate"], ["run"], ["verify"]):
            done = command(pooler, tmp_path, *arguments)
            assert 0 == done.returncode, done.stderr
        findings = json.loads(command(pooler, tmp_path, "doctor", "--json").stdout)["findings"]
    said = {finding["check"]: finding for finding in findings}
    assert "transaction mode" in said["pooler"]["message"]
    assert {"OK"} == {said[check]["level"] for check in ("database", "pooler", "recovery", "migrations")}


def test_two_billers_at_once_charge_every_hour_once(fleet: Fleet, pooler: Pooler) -> None:
    """Both with two workers, and fewer server processes than connections; one waits for the lease and finds nothing due."""
    results: list[RunResult] = []

    def bill(holder: str) -> None:
        results.append(fleet.bill(conninfo=pooler.conninfo, holder=holder, batch_size=INSTANCES))

    billers = [threading.Thread(target=bill, args=(holder,)) for holder in ("one", "other")]
    for biller in billers:
        biller.start()
    for biller in billers:
        biller.join(180)
    assert [0, ORGANIZATIONS * INSTANCES] == sorted(result.instances_billed for result in results)
    assert_all_charged_once(fleet)


def test_nothing_of_ours_stays_in_a_session(fleet: Fleet, pooler: Pooler) -> None:
    """After a run the next client finds no bound, no planner setting and no prepared statement of ours."""
    fleet.bill(conninfo=pooler.conninfo, batch_size=INSTANCES)
    sessions = [psycopg.connect(pooler.conninfo, autocommit=True) for _ in range(3)]
    for session in sessions:
        # Inside transactions, so that each client holds another server process.
        session.execute("begin")
        left = session.execute("select name, setting from pg_settings where source = 'session'").fetchall()
        names = {name for name, _ in left} - {"application_name", "client_encoding", "DateStyle", "TimeZone"}
        assert not names - {"search_path", "standard_conforming_strings"}
        assert [] == session.execute("select name from pg_prepared_statements").fetchall()
    for session in sessions:
        session.close()


def test_a_pooler_that_is_killed_in_the_middle_of_a_run(fleet: Fleet, pooler: Pooler) -> None:
    """Every connection breaks, and the run goes on by itself as soon as the pooler is back."""

    def progressed(progress: Progress) -> None:
        if progress.batches == 2:
            pooler.kill()
            pooler.start()

    result = fleet.bill(conninfo=pooler.conninfo, batch_size=INSTANCES, progressed=progressed)
    assert Outcome.COMPLETED is result.outcome
    assert_all_charged_once(fleet)


@pytest.mark.slow
def test_a_pooler_that_is_away_is_the_database_being_away(fleet: Fleet, pooler: Pooler) -> None:
    """The run ends with a reason and half of the work; the next one does the rest."""

    def progressed(progress: Progress) -> None:
        if progress.batches == 2:
            pooler.kill()

    with pytest.raises(BillingError, match="refuses connections"):
        fleet.bill(conninfo=pooler.conninfo, batch_size=INSTANCES, workers=1, progressed=progressed)
    assert 2 * INSTANCES == len(fleet.charges())
    pooler.start()
    fleet.conn.execute("update billing_leases set expires_at = clock_timestamp()")
    fleet.bill(conninfo=pooler.conninfo)
    assert_all_charged_once(fleet)


def test_built_in_billing_and_the_api(fleet: Fleet, pooler: Pooler) -> None:
    """Both read and write through it."""
    look = BuiltInBilling(Settings(built_in_billing="on"), pooler.conninfo).check()
    assert look.result is not None, look.verdict
    assert_all_charged_once(fleet)
    with client_of(pooler.conninfo) as client:
        for _ in range(5):
            answer = client.get(DAEMON, headers=bearer(ADMIN_TOKEN))
            assert 200 == answer.status_code, answer.text


@pytest.mark.slow
def test_a_daemon_lives_through_a_pooler_that_is_restarted(
    fleet: Fleet, pooler: Pooler, tmp_path: Path
) -> None:
    """It bills, beats, loses its connections, beats again on others, and says that it stopped."""
    daemon = daemons.start(tmp_path, pooler.conninfo, HEARTBEAT_SECONDS="1")
    try:
        daemon.conninfo = fleet.conninfo
        daemon.when(lambda row: row.last_run_success)
        pooler.kill()
        daemon.says("The heartbeat could not be written")
        pooler.start()
        daemon.says("The heartbeat is written again")
        assert_all_charged_once(fleet)
        assert 0 == daemon.stop()
        assert "stopped" == daemon.row().status
    finally:
        daemon.kill()


@pytest.mark.slow
def test_a_list_of_poolers_leads_to_one_that_accepts_writes(fleet: Fleet, pooler: Pooler) -> None:
    """The driver checks through the pooler too whether the server behind it is the primary."""
    several = make_conninfo(pooler.conninfo, host="127.0.0.9,127.0.0.1", target_session_attrs="read-write")
    fleet.bill(conninfo=several)
    assert_all_charged_once(fleet)
