"""The daemon as operators meet it: a process that is started, asked, signalled and killed."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable
from contextlib import contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from tests import daemons
from tests.daemons import Start, held_lease, wait_for_lock, waits_for_lock
from tests.fleet import Fleet

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def fleet(conn: psycopg.Connection[Any]) -> Fleet:
    return Fleet(conn)


@contextmanager
def wallet_locked(fleet: Fleet, organization: UUID) -> Any:
    """Hold a wallet, as a slow top-up does; a run that charges it waits."""
    with psycopg.connect(fleet.conninfo) as top_up:
        top_up.execute("select from wallets where organization_id = %s for update", (organization,))
        yield
        top_up.rollback()


def insists(daemon: daemons.Daemon) -> bool:
    """Send one more SIGINT; tell whether one of them has ended the wait for the run."""
    said = daemon.lines("Stopping after the batches that are under way")
    if not said:
        daemon.signal(signal.SIGINT)
    return bool(said)


def three_organizations(fleet: Fleet) -> list[UUID]:
    """Three organizations with an instance each and two hours due, in the order in which they are charged."""
    plan = fleet.plan("7.30")
    organizations = sorted(fleet.organization("10.00") for _ in range(3))
    for organization in organizations:
        fleet.instance(organization, plan)
    fleet.hours(2)
    return organizations


def billed(fleet: Fleet) -> list[UUID]:
    """The organizations that were charged, once for each charge."""
    rows = fleet.rows(
        "select organization_id as id from vps_billing_cycles where run_id is not null and status = 'billed' order by 1"
    )
    return [row.id for row in rows]


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


def test_the_next_daemon_goes_on_with_the_facts_of_the_last(fleet: Fleet, start: Start) -> None:
    """A restart is no loss of memory: the run of the process before is what the new row shows until it has one."""
    three_organizations(fleet)
    first = start()
    first.when(lambda row: row.last_run_success)
    first.stop()
    with held_lease(fleet.conninfo, "another"):
        second = start()
        row = second.when(lambda row: row.last_run_at)

    assert (True, 3, "running") == (row.last_run_success, row.instances_billed, row.status)
    assert first.row().daemon_instance_id != row.daemon_instance_id


def test_its_name_is_host_and_pid_and_unique(fleet: Fleet, start: Start) -> None:
    """Two daemons with the same pid on the same host name, as in containers, do not share a row."""
    daemon = start()
    row = daemon.when(lambda row: row)

    assert re.fullmatch(
        rf"{re.escape(socket.gethostname())}-{daemon.pid}-[0-9a-f]{{6}}", row.daemon_instance_id
    )


def test_ps_finds_it_as_the_guide_says(fleet: Fleet, start: Start) -> None:
    """`ps aux | grep "billing-daemon"` shows it, and never a password of its command line."""
    daemon = start()
    daemon.says("Billing daemon is ready")
    shown = subprocess.run(["ps", "aux"], check=True, capture_output=True, text=True).stdout

    assert [line for line in shown.splitlines() if "billing-daemon" in line and f" {daemon.pid} " in line]


def test_a_signal_in_the_middle_of_a_run_lets_it_complete(fleet: Fleet, start: Start) -> None:
    """SIGTERM, and twice within a second as a terminal and its wrapper send it: all three are charged, exit 0."""
    organizations = three_organizations(fleet)
    with wallet_locked(fleet, organizations[1]):
        daemon = start(BILLING_BATCH_SIZE="1", BILLING_WORKERS="1")
        daemon.until(lambda: waits_for_lock(fleet.conn))
        daemon.signal(signal.SIGTERM)
        daemon.signal(signal.SIGTERM)
        daemon.says("Stopping: the current billing run is completed first")

    assert 0 == daemon.ended()
    assert organizations == billed(fleet)
    row = daemon.row()
    assert ("stopped", True, 3) == (row.status, row.last_run_success, row.instances_billed)


def test_a_second_signal_stops_after_the_batch(fleet: Fleet, start: Start) -> None:
    """More than a second later: the batch under way is charged, the next is left, and the row says so."""
    organizations = three_organizations(fleet)
    with wallet_locked(fleet, organizations[1]):
        daemon = start(BILLING_BATCH_SIZE="1", BILLING_WORKERS="1")
        daemon.until(lambda: waits_for_lock(fleet.conn))
        daemon.signal(signal.SIGINT)
        daemon.says("Stopping: ")
        # As an impatient operator does: those within a second of the first count for nothing.
        daemon.until(lambda: insists(daemon))

    assert 0 == daemon.ended()
    assert organizations[:2] == billed(fleet)
    row = daemon.row()
    assert ("stopped", False, 2) == (row.status, row.last_run_success, row.instances_billed)
    assert "was interrupted" in row.error_message
    assert ["interrupted"] == [run.outcome for run in fleet.rows("select outcome from billing_runs")]


def test_a_killed_daemon_leaves_whole_batches_and_the_next_one_charges_the_rest(
    fleet: Fleet, start: Start
) -> None:
    """A kill -9 in the second of three batches: one is charged, then all three, each once."""
    organizations = three_organizations(fleet)
    with wallet_locked(fleet, organizations[1]):
        daemon = start(BILLING_BATCH_SIZE="1", BILLING_WORKERS="1")
        daemon.until(lambda: waits_for_lock(fleet.conn))
        daemon.kill()
        assert organizations[:1] == billed(fleet)
    # The lease of the dead process runs out by itself after half a minute; the test does not wait for it.
    fleet.conn.execute("update billing_leases set expires_at = clock_timestamp()")
    start().when(lambda row: row.last_run_success)

    assert organizations == billed(fleet)
    assert ["interrupted", "completed"] == [
        run.outcome for run in fleet.rows("select outcome from billing_runs order by id")
    ]


def test_the_status_table_may_be_truncated_at_any_time(fleet: Fleet, start: Start) -> None:
    """The next heartbeat writes the whole row again, facts included."""
    three_organizations(fleet)
    daemon = start(HEARTBEAT_SECONDS="1")
    before = daemon.when(lambda row: row.last_run_success)
    fleet.conn.execute("truncate billing_daemon_status")
    after = daemon.when(lambda row: row.last_run_success)

    facts = ("daemon_instance_id", "status", "last_run_at", "instances_billed", "total_amount", "total_hours")
    assert [getattr(before, fact) for fact in facts] == [getattr(after, fact) for fact in facts]


def test_a_dropped_status_table_is_reported_and_money_does_not_care(fleet: Fleet, start: Start) -> None:
    """Billing goes on without a row to say so; the log says it, as an error."""
    organizations = three_organizations(fleet)
    fleet.conn.execute("alter table billing_daemon_status rename to lost")
    daemon = start(HEARTBEAT_SECONDS="1", JOURNAL_STREAM="8:1")
    daemon.says("<3>", "The heartbeat could not be written", "billing_daemon_status")
    daemon.says("Billing run completed")
    fleet.conn.execute("alter table lost rename to billing_daemon_status")
    daemon.says("The heartbeat is written again")

    assert organizations == billed(fleet)


def test_heartbeats_go_on_while_a_run_waits(fleet: Fleet, start: Start) -> None:
    """A run that stands at a lock delays no heartbeat: the row is written again and again meanwhile."""
    organizations = three_organizations(fleet)
    with wallet_locked(fleet, organizations[0]):
        daemon = start(HEARTBEAT_SECONDS="1", BILLING_WORKERS="1")
        daemon.until(lambda: waits_for_lock(fleet.conn))
        seen = set()
        daemon.until(
            lambda: (
                seen.add(fleet.rows("select xmin::text from billing_daemon_status")[0].xmin) or len(seen) > 3
            )
        )
        row = daemon.row()

    assert ("running", None) == (row.status, row.last_run_at)
    assert {"instances": 0, "batches": 0} == {
        key: row.metadata["under_way"][key] for key in ("instances", "batches")
    }


def test_a_run_without_progress_takes_the_heartbeat_back(fleet: Fleet, start: Start) -> None:
    """A minute without progress at 60 times the speed: error, the heartbeat is set back, and all is well afterwards."""
    organizations = three_organizations(fleet)
    daemons.compress(fleet.conn, 60, fleet.now)
    settings = {"FAILOVER_AFTER_MINUTES": "1", "HEARTBEAT_SECONDS": "10", "BILLING_INTERVAL_MINUTES": "30"}
    with wallet_locked(fleet, organizations[0]):
        daemon = start(speed=60, **settings, BILLING_WORKERS="1")
        row = daemon.when(lambda row: row.status == "error")
        age = fleet.rows("select billing_clock() - heartbeat_at as age from billing_daemon_status")[0].age
        daemon.says("level=error", "Billing makes no progress", "failover can happen")
    assert "billing has made no progress for" in row.error_message
    assert age.total_seconds() >= 60

    healthy = daemon.when(lambda row: row.status == "running" and row.last_run_success)
    assert healthy.error_message is None
    daemon.says("Billing makes progress again")
    assert organizations == billed(fleet)


def test_a_held_run_is_an_error_that_stays_readable(fleet: Fleet, start: Start) -> None:
    """The loop works, so the heartbeat goes on; the status says what a person has to look at, until a run succeeds."""
    three_organizations(fleet)
    fleet.bill()
    fleet.conn.execute("update vps_plans set base_price = 7300")
    fleet.hours(1)
    daemon = start(HEARTBEAT_SECONDS="1", LOG_FORMAT="logfmt")
    row = daemon.when(lambda row: row.status == "error")

    assert (False, fleet.now) == (row.last_run_success, row.heartbeat_at)
    assert "was held" in row.error_message
    daemon.says("level=error", "Billing run held")


def test_a_schema_that_changes_later_is_an_error_status_and_no_end(fleet: Fleet, start: Start) -> None:
    """What was right at the start and is wrong later is tried again at each tick, and at once when it is told to re-read."""
    three_organizations(fleet)
    daemons.compress(fleet.conn, 60, fleet.now)
    daemon = start(speed=60, BILLING_INTERVAL_MINUTES="1", HEARTBEAT_SECONDS="10")
    daemon.when(lambda row: row.last_run_success)
    fleet.conn.execute("update schema_migrations set checksum = 'changed' where version = 1")
    row = daemon.when(lambda row: row.status == "error")
    assert "001" in row.error_message
    assert daemon.process.poll() is None
    assert 0 == daemon.stop()


def test_another_biller_is_waited_for_and_no_error(fleet: Fleet, start: Start) -> None:
    """The holder of the lease is named; status and exit code are those of a healthy daemon."""
    three_organizations(fleet)
    with held_lease(fleet.conninfo, "built-in web-1"):
        daemon = start(HEARTBEAT_SECONDS="1")
        daemon.says("Billing waits for another biller", "built-in web-1")
        assert ("running", None) == (daemon.row().status, daemon.row().error_message)
        assert 0 == daemon.stop()
    assert [] == billed(fleet)


def test_what_was_wrong_from_the_start_ends_it(
    command: Command, database: str, empty_database: str, role: str
) -> None:
    """No DATABASE_URL, no schema, no rights: 78, so that the service is not restarted for ever."""
    assert 78 == command("daemon").returncode
    unmigrated = command("daemon", environment={"DATABASE_URL": empty_database})
    assert (78, True) == (unmigrated.returncode, "containerstacks-billing migrate" in unmigrated.stderr)
    refused = command(
        "daemon",
        environment={"DATABASE_URL": psycopg.conninfo.make_conninfo(database, user=role, password=role)},
    )
    assert (78, True) == (refused.returncode, "GRANT SELECT, UPDATE ON wallets TO" in refused.stderr)
    wrong = command("daemon", "--interval", "0", environment={"DATABASE_URL": database})
    assert (78, True) == (wrong.returncode, "BILLING_INTERVAL_MINUTES" in wrong.stderr)


def write_env(directory: Path, **settings: str) -> None:
    path = directory / ".env"
    path.write_text("".join(f"{key}='{text}'\n" for key, text in settings.items()))
    path.chmod(0o600)


def test_a_rotated_password_is_taken_over_with_sighup(
    fleet: Fleet, start: Start, tmp_path: Path, database: str, role: str
) -> None:
    """The old password is refused, the daemon lives on, and SIGHUP brings the new one; all with least rights."""
    from containerstacks_billing.database.grants import billing_grants

    three_organizations(fleet)
    for statement in billing_grants(fleet.conn.info.dbname, role):
        fleet.conn.execute(statement)
    url = psycopg.conninfo.make_conninfo(database, user=role, password=role)
    write_env(tmp_path, DATABASE_URL=url, HEARTBEAT_SECONDS="1")
    daemon = start("")
    daemon.conninfo = database
    daemon.when(lambda row: row.last_run_success)

    fleet.conn.execute(f"alter role {role} password 'rotated'")
    fleet.conn.execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = %s", (role,))
    daemon.says("The heartbeat could not be written", "Authentication failed")  # as operators search for it
    write_env(
        tmp_path, DATABASE_URL=psycopg.conninfo.make_conninfo(url, password="rotated"), HEARTBEAT_SECONDS="1"
    )
    daemon.signal(signal.SIGHUP)
    daemon.says("The configuration was re-read", "changed=DATABASE_URL")
    daemon.says("The heartbeat is written again")

    assert 0 == daemon.stop()
    assert "rotated" not in daemon.log()


def test_a_bad_configuration_is_refused_and_the_old_one_stays(
    fleet: Fleet, start: Start, tmp_path: Path, database: str
) -> None:
    """SIGHUP with an impossible interval names the key; with a possible one it takes effect."""
    write_env(tmp_path, DATABASE_URL=database, HEARTBEAT_SECONDS="1")
    daemon = start("")
    daemon.conninfo = database
    daemon.when(lambda row: row.last_run_at)
    write_env(tmp_path, DATABASE_URL=database, BILLING_INTERVAL_MINUTES="0")
    daemon.signal(signal.SIGHUP)
    daemon.says("level=error", "The configuration was not re-read", "BILLING_INTERVAL_MINUTES")
    assert 60 == daemon.row().metadata["interval_minutes"]
    write_env(tmp_path, DATABASE_URL=database, BILLING_INTERVAL_MINUTES="30")
    daemon.signal(signal.SIGHUP)
    row = daemon.when(lambda row: row.metadata["next_run_at"] < "2026-03-01T00:30")

    assert (30, True) == (row.metadata["interval_minutes"], "2026-03-01T00:29" < row.metadata["next_run_at"])


def test_systemd_is_told_how_it_is(fleet: Fleet, start: Start) -> None:
    """READY, a STATUS line that says the last run, the watchdog, RELOADING with its time, STOPPING with more patience."""
    organizations = three_organizations(fleet)
    name = f"\0containerstacks-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(name)
        systemd.settimeout(180)
        told: list[str] = []

        def hears(pattern: str) -> str:
            while True:
                if found := [text for text in told if re.search(pattern, text)]:
                    return found[0]
                told.append(systemd.recv(4096).decode())

        with wallet_locked(fleet, organizations[0]):
            daemon = start(NOTIFY_SOCKET=name.replace("\0", "@"), WATCHDOG_USEC="200000", BILLING_WORKERS="1")
            hears("READY=1")
            hears("WATCHDOG=1")
        hears(r"STATUS=last run 2026-03-01 02:00 UTC completed, 3 instances, 0.06; next run in 60 min")
        told.clear()
        daemon.signal(signal.SIGHUP)
        hears(r"RELOADING=1\nMONOTONIC_USEC=\d+")
        hears("READY=1")
        daemon.signal(signal.SIGTERM)
        hears("STOPPING=1")
        hears("EXTEND_TIMEOUT_USEC=240000000")
        assert 0 == daemon.ended()


def test_a_stop_is_given_more_time_as_long_as_batches_commit(fleet: Fleet, start: Start) -> None:
    """Once when it is asked to stop, and once more for each batch of the run that it completes; not before."""
    organizations = three_organizations(fleet)
    name = f"\0containerstacks-stop-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(name)
        with wallet_locked(fleet, organizations[1]):
            daemon = start(NOTIFY_SOCKET=name.replace("\0", "@"), BILLING_WORKERS="1", BILLING_BATCH_SIZE="1")
            daemon.until(lambda: waits_for_lock(fleet.conn))
            daemon.signal(signal.SIGTERM)
            daemon.says("Stopping: the current billing run is completed first")
        assert 0 == daemon.ended()
        systemd.setblocking(False)
        told: list[str] = []
        with suppress(BlockingIOError):
            while True:
                told.append(systemd.recv(4096).decode())
    stopping = told.index("STOPPING=1")
    # The first of the three batches was committed before.
    assert [0, 3] == [
        sum(text == "EXTEND_TIMEOUT_USEC=240000000" for text in part)
        for part in (told[:stopping], told[stopping:])
    ]


def test_the_logs_are_found_as_the_guide_looks_for_them(fleet: Fleet, start: Start) -> None:
    """`grep -i heartbeat` and `grep -i billing` find lines with priorities and with the run that they belong to."""
    three_organizations(fleet)
    daemon = start(JOURNAL_STREAM="8:1", LOG_LEVEL="debug")
    daemon.when(lambda row: row.last_run_success)

    assert re.search(r"^<6>level=info event=Heartbeat status=running", daemon.says("Heartbeat "))
    started = daemon.says("Billing run started")
    assert re.search(r'^<6>level=info event="Billing run started" run=1 token=1 ', started)
    assert re.search(
        r'^<7>level=debug event="Batch charged" run=1 batch=0 token=1 ', daemon.says("Batch charged")
    )
    assert "instances=3" in daemon.says("Billing run completed")
    assert not daemon.lines("<3>")


@contextmanager
def table_locked(fleet: Fleet, table: str, mode: str = "access exclusive") -> Any:
    """Hold a lock on a table, so that a daemon waits at a place that the test knows."""
    with psycopg.connect(fleet.conninfo) as other:
        other.execute(f"lock table {table} in {mode} mode".encode())
        yield
        other.rollback()


def test_after_the_first_signal_no_run_begins(fleet: Fleet, start: Start) -> None:
    """The signal comes while the daemon takes the lease: it gets the lease, begins nothing and ends with 0."""
    three_organizations(fleet)
    with table_locked(fleet, "billing_leases"):
        daemon = start()
        wait_for_lock(fleet.conn)
        daemon.signal(signal.SIGTERM)
        daemon.says("event=Stopping")
    assert 0 == daemon.ended()
    assert ([], []) == (fleet.rows("select * from billing_runs"), billed(fleet))
    assert ("stopped", None, None) == (
        daemon.row().status,
        daemon.row().last_run_success,
        daemon.row().error_message,
    )


def test_a_run_that_has_begun_is_completed_however_early_the_signal_comes(fleet: Fleet, start: Start) -> None:
    """The signal comes between the lease and the row of the run: it counts as begun, and everything is charged."""
    organizations = three_organizations(fleet)
    with table_locked(fleet, "billing_runs", "exclusive"):
        daemon = start()
        wait_for_lock(fleet.conn)
        daemon.signal(signal.SIGTERM)
        daemon.says("Stopping: the current billing run is completed first")
    assert 0 == daemon.ended()
    assert organizations == billed(fleet)
    assert [("completed",)] == fleet.rows("select outcome from billing_runs")
    assert daemon.row().last_run_success


@pytest.mark.parametrize("turn", range(5))
def test_a_signal_at_the_first_heartbeat_interrupts_no_run(fleet: Fleet, start: Start, turn: int) -> None:
    """Whichever comes first, the run or the signal, no run is interrupted."""
    three_organizations(fleet)
    daemon = start()
    daemon.until(daemon.row)
    daemon.signal(signal.SIGTERM)
    assert 0 == daemon.ended()
    assert fleet.rows("select outcome from billing_runs") in ([], [("completed",)])
    assert daemon.row().last_run_success in (None, True)


def test_a_daemon_that_was_killed_is_named_by_the_next_one(fleet: Fleet, start: Start) -> None:
    """At the priority of errors, once; its row says so too, and one that stopped in order is not named."""
    stopped = start()
    stopped.until(stopped.row)
    stopped.stop()
    killed = start()
    name = killed.until(killed.row).daemon_instance_id
    killed.kill()
    third = start(LOG_FORMAT="logfmt", JOURNAL_STREAM="8:1")
    line = third.says("The billing daemon before this one was killed", name)
    assert line.startswith("<3>")
    assert ("error", "the process was killed: it ended without stopping") == (
        killed.row().status,
        killed.row().error_message,
    )
    third.stop()
    fourth = start()
    fourth.until(fourth.row)
    fourth.stop()
    assert [] == fourth.lines("was killed")


def test_a_reload_of_a_copy_says_that_it_changes_nothing(fleet: Fleet, start: Start, tmp_path: Path) -> None:
    """What systemd hands over is a copy of the start; after SIGHUP the log names the command that takes effect."""
    file = tmp_path / "credentials" / "env"
    file.parent.mkdir()
    file.write_text(f"DATABASE_URL={fleet.conninfo!r}\n")
    file.chmod(0o400)
    daemon = start(
        DATABASE_URL="", CREDENTIALS_DIRECTORY=str(file.parent), CONTAINERSTACKS_ENV_FILE=str(file)
    )
    daemon.until(daemon.row)
    daemon.signal(signal.SIGHUP)
    daemon.says("level=error", "Nothing can change by a reload", "systemctl restart")
