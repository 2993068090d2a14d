"""The daemon and a server that goes away: at its start, in the middle, while it wants to stop; and a day of all that."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests import daemons
from tests.conftest import FAST
from tests.daemons import Start, eventually, waits_for_lock
from tests.fleet import Fleet

from containerstacks_billing.sandbox.server import EmbeddedServer
from containerstacks_billing.schema.migrator import migrate
from containerstacks_billing.verification.verify import verify

FASTEST = {name: value for name, value in FAST.items() if name not in {"fsync", "synchronous_commit"}}


class Server:
    """A server of the test's own, to be taken away."""

    def __init__(self, directory: Path) -> None:
        self._embedded = EmbeddedServer(directory, settings=FASTEST)
        self._data = directory / "data"
        self.start()
        with psycopg.connect(self._embedded.conninfo("postgres"), autocommit=True) as conn:
            conn.execute("create database billing")
        self.conninfo = self._embedded.conninfo("billing")
        self._connections: list[psycopg.Connection[Any]] = []

    def connect(self) -> psycopg.Connection[Any]:
        """Open a connection that is closed with the server."""
        self._connections.append(psycopg.connect(self.conninfo, autocommit=True))
        return self._connections[-1]

    def start(self) -> None:
        """Start it again, with recovery where it was needed."""
        self._embedded.start()

    def stop_at_once(self) -> None:
        """Stop it as `pg_ctl stop -m immediate` does: no checkpoint, every connection cut."""
        pid = int((self._data / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGQUIT)
        eventually(lambda: not (self._data / "postmaster.pid").exists() or _is_gone(pid))
        for connection in self._connections:
            connection.close()

    def stop(self) -> None:
        """Stop it for good."""
        for connection in self._connections:
            connection.close()
        self._embedded.stop()


def _is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "server")
    migrate(server.conninfo)
    yield server
    server.stop()


def fleet_of(server: Server, instances: int = 3) -> Fleet:
    """A fleet with two hours due."""
    fleet = Fleet(server.connect())
    organization, plan = fleet.organization("1000.00"), fleet.plan("7.30")
    for _ in range(instances):
        fleet.instance(organization, plan)
    fleet.hours(2)
    return fleet


def charged(server: Server) -> tuple[int, Decimal]:
    """How many charges there are, and their sum."""
    with psycopg.connect(server.conninfo) as conn:
        row = conn.execute(
            "select count(*), coalesce(sum(total_amount), 0) from vps_billing_cycles where run_id is not null"
        ).fetchone()
    assert row is not None
    return row


def test_a_database_away_at_the_start_is_waited_for(own_server: Server, start: Start) -> None:
    """Said once as a warning, ready all the same; when the server comes, billing begins by itself."""
    fleet_of(own_server)
    own_server.stop_at_once()
    daemon = start(own_server.conninfo)
    # As operators search for it.
    daemon.says("level=warning", "starts without its database", "Connection refused")
    daemon.says("Billing daemon is ready")
    daemon.says("level=error", "Billing is not possible", "Connection refused")
    own_server.start()
    daemon.says("Billing is possible again")

    assert (3, Decimal("0.06")) == charged(own_server)
    assert 1 == len(daemon.lines("Billing is not possible"))
    assert daemon.when(lambda row: row.status == "running").last_run_success
    assert 0 == daemon.stop()


def test_a_question_at_the_start_that_is_cancelled_does_not_end_it(own_server: Server, start: Start) -> None:
    """The table of migrations is locked, and the wait for it is cancelled: the daemon tries again by itself."""
    fleet = fleet_of(own_server)
    holder = own_server.connect()
    holder.execute("begin")
    holder.execute("lock table schema_migrations")
    daemon = start(own_server.conninfo)
    eventually(
        lambda: fleet.rows(
            "select pg_cancel_backend(pid) from pg_stat_activity"
            " where wait_event_type = 'Lock' and application_name = 'containerstacks-billing reading'"
        )
    )
    daemon.says("level=warning", "starts without its database")
    daemon.says("Billing daemon is ready")
    holder.execute("commit")
    daemon.when(lambda row: row.last_run_success)

    assert (3, Decimal("0.06")) == charged(own_server)
    assert 0 == daemon.stop()


def test_a_server_that_is_cut_off_in_the_middle_of_a_run(own_server: Server, start: Start) -> None:
    """An immediate shutdown while a batch waits: the daemon survives, and the next attempt charges it once."""
    fleet = fleet_of(own_server)
    blocker = own_server.connect()
    blocker.execute("begin")
    blocker.execute("select from wallets for update")
    daemon = start(own_server.conninfo)
    daemon.until(lambda: waits_for_lock(fleet.conn))
    own_server.stop_at_once()
    own_server.start()
    # The lease of the attempt that was cut off runs out by itself after half a minute; the test does not wait for it.
    own_server.connect().execute("update billing_leases set expires_at = clock_timestamp()")
    daemon.when(lambda row: row.last_run_success)

    assert (3, Decimal("0.06")) == charged(own_server)
    assert 0 == daemon.stop()


def test_a_stop_does_not_wait_for_a_database_that_is_away(own_server: Server, start: Start) -> None:
    """The process ends with 0 while the database is still away: nothing is half done, and the machine wants to go down."""
    fleet_of(own_server)
    daemon = start(own_server.conninfo)
    daemon.when(lambda row: row.last_run_success)
    own_server.stop_at_once()
    daemon.signal(signal.SIGTERM)

    assert 0 == daemon.ended()
    assert daemon.lines("level=error", "does not answer") or daemon.lines(
        "level=error", "could not be written"
    )


def processor_seconds(pid: int) -> float:
    """The processor time that a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_waiting_costs_next_to_nothing(
    own_server: Server, start: Start, database: str, tmp_path: Path
) -> None:
    """Neither for the next tick nor for a database that is away: no thread spins while another daemon beats three times."""
    (tmp_path / "neighbour").mkdir()
    neighbour = daemons.start(tmp_path / "neighbour", database, HEARTBEAT_SECONDS="1")

    def cost() -> float:
        before, beats = processor_seconds(daemon.pid), set[datetime]()
        while len(beats) < 4:
            beats.add(neighbour.when(lambda row: row.heartbeat_at not in beats).heartbeat_at)
        return processor_seconds(daemon.pid) - before

    fleet_of(own_server)
    daemon = start(own_server.conninfo)
    daemon.when(lambda row: row.last_run_success)
    daemon.says("Heartbeat")
    idle = cost()
    own_server.stop_at_once()
    away = cost()
    own_server.start()
    neighbour.kill()
    assert (True, True) == (idle < 0.15, away < 0.3), (idle, away)


@pytest.mark.slow
@pytest.mark.parametrize("seconds_per_hour", [1.0])
def test_a_day_with_a_server_that_fails_every_few_hours(
    own_server: Server, start: Start, seconds_per_hour: float
) -> None:
    """24 hours at 3600 times the speed, five immediate shutdowns: every hour is charged once, and verify is clean."""
    live_through_a_day(
        own_server, start, hours=24, outages={3, 7, 12, 16, 20}, seconds_per_hour=seconds_per_hour
    )


def test_a_quarter_of_a_day_with_an_outage(own_server: Server, start: Start) -> None:
    """The short form of the day above: six hours, one outage."""
    live_through_a_day(own_server, start, hours=6, outages={3}, seconds_per_hour=1.0)


def live_through_a_day(
    server: Server, start: Start, *, hours: int, outages: set[int], seconds_per_hour: float
) -> None:
    fleet = fleet_of(server, instances=50)
    speed = 3600 / seconds_per_hour
    daemons.compress(fleet.conn, speed, fleet.now)
    daemon = start(
        server.conninfo, speed=speed, HEARTBEAT_SECONDS="60", BILLING_BATCH_SIZE="20", LOG_LEVEL="info"
    )
    for hour in range(1, hours + 1):
        eventually(lambda hour=hour: _passed(server, fleet, hour))
        if hour in outages:
            server.stop_at_once()
            server.start()
    daemon.when(lambda row: row.last_run_success and row.status == "running")
    assert 0 == daemon.stop()

    server.connect().execute(
        "update test_clock set at = at + (clock_timestamp() - since) * speed, since = clock_timestamp(), speed = 0"
    )
    rest = start(server.conninfo)
    rest.says("Billing run completed")
    assert 0 == rest.stop()
    with psycopg.connect(server.conninfo) as conn:
        row = conn.execute(
            """
            select count(*), sum(hours), min(hours), max(hours),
                   floor(extract(epoch from billing_clock() - '2026-03-01 00:00+00') / 3600)
            from (select sum(extract(epoch from billing_period_end - billing_period_start)) / 3600 as hours
                  from vps_billing_cycles where run_id is not null group by vps_instance_id) instance
            """
        ).fetchone()
    assert row is not None
    assert (50, 50 * row[4], row[4], row[4]) == row[:4]
    assert row[4] >= hours + 2
    found = verify(server.conninfo)
    assert found.ok, found.discrepancies


def _passed(server: Server, fleet: Fleet, hour: int) -> bool:
    with psycopg.connect(server.conninfo) as conn:
        row = conn.execute(
            "select extract(epoch from billing_clock() - %s) / 3600 >= %s", (fleet.now, hour)
        ).fetchone()
    return bool(row and row[0])


def resident_kilobytes(pid: int) -> int:
    """The memory of a process that is resident now; one that has ended has none."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next((line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")), 0))


def soak(conn: psycopg.Connection[Any], start: Start, cycles: int) -> tuple[int, int]:
    """Bill so many minutes at 1200 times the speed; return the memory after a tenth of them and at the end."""
    fleet = Fleet(conn)
    organization, plan = fleet.organization("100000.00"), fleet.plan("7.30")
    for _ in range(100):
        fleet.instance(organization, plan)
    daemons.compress(conn, 1200, fleet.now)
    daemon = start(speed=1200, BILLING_INTERVAL_MINUTES="1", HEARTBEAT_SECONDS="10", BILLING_BATCH_SIZE="40")

    def memory_after(runs: int) -> int:
        daemon.until(
            lambda: fleet.rows("select count(*) as n from billing_runs")[0].n >= runs,
            daemons.PATIENCE_SECONDS + cycles,
        )
        return resident_kilobytes(daemon.pid)

    early = memory_after(max(cycles // 10, 20))
    late = memory_after(cycles)
    assert 0 == daemon.stop()
    print(f"resident KiB: {early} early, {late} after {cycles} cycles")
    return early, late


def test_memory_does_not_grow_with_cycles(conn: psycopg.Connection[Any], start: Start) -> None:
    """Sixty cycles with their heartbeats; the long form is the slow test below."""
    early, late = soak(conn, start, 60)

    assert late - early < 2048


@pytest.mark.slow
def test_memory_stays_flat_over_days(conn: psycopg.Connection[Any], start: Start) -> None:
    """Three hundred cycles: what would be twelve days of hourly runs."""
    early, late = soak(conn, start, 300)

    assert late - early < 2048


@pytest.mark.slow
def test_heartbeats_do_not_pause_beside_a_million_instances(own_server: Server, start: Start) -> None:
    """Three days of a million instances are caught up; beats every ten seconds are never late, and memory stays small."""
    conn = own_server.connect()
    statements = (daemons.ROOT / "benchmarks" / "fleet.sql").read_text().split(";\n")
    began = datetime.now(UTC) - timedelta(hours=71)
    for statement in filter(str.strip, statements):
        conn.execute(statement, {"instances": 1_000_000, "wallets": 50_000, "start": began})  # type: ignore[call-overload]
    conn.execute("vacuum analyze")
    conn.execute("create table beats (at timestamptz)")
    conn.execute(
        "create function note_beat() returns trigger language plpgsql as"
        " $$ begin insert into beats values (new.heartbeat_at); return null; end $$"
    )
    conn.execute(
        "create trigger note_beat after insert or update on billing_daemon_status"
        " for each row execute function note_beat()"
    )
    daemon = start(own_server.conninfo, HEARTBEAT_SECONDS="10")
    largest = 0

    def is_charged() -> bool:
        nonlocal largest
        largest = max(largest, resident_kilobytes(daemon.pid))
        return bool(daemon.lines("Billing run completed"))

    daemon.until(is_charged, 900)
    row = conn.execute(
        "select max(extract(epoch from gap)), sum(extract(epoch from gap))"
        " from (select at - lag(at) over (order by at) as gap from beats) beat"
    ).fetchone()
    assert row is not None
    print(
        f"{daemon.lines('Billing run completed')[0]}\nlongest gap {row[0]} s of {row[1]} s, {largest} KiB resident"
    )
    assert row[0] < 15
    assert len(daemon.log().splitlines()) < 40
    assert 0 == daemon.stop()
