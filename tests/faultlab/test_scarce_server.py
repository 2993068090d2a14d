"""A server without resources: its WAL has no disk, or all of its connections are taken. The daemon survives and bills again."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from tests import daemons
from tests.conftest import FAST
from tests.daemons import Daemon, eventually
from tests.faultlab.test_scarcity import fill, small_disk
from tests.fleet import Fleet

from containerstacks_billing.drill import oracle
from containerstacks_billing.sandbox.server import EmbeddedServer
from containerstacks_billing.schema.migrator import migrate
from containerstacks_billing.verification.verify import verify

Connection = psycopg.Connection[Any]
HOUR_IN_A_SECOND = 3600.0
# The daemon's own time is not as fast: its pauses are short, and an outage is short to it too, so that it is told of once.
_SPEED = 20.0
BILLING = "billing"
_MOST_CONNECTIONS = 14
_SETTINGS = {
    **FAST,
    "autovacuum": "off",
    "checkpoint_timeout": "1h",
    "min_wal_size": "32MB",
    "max_wal_size": "32MB",
    "max_connections": str(_MOST_CONNECTIONS),
    "superuser_reserved_connections": "3",
}


class SmallServer:
    """A fleet on a server of its own, where an hour is a second, and the role of least privilege that bills it."""

    def __init__(self, server: EmbeddedServer) -> None:
        self.server = server
        with psycopg.connect(server.conninfo("postgres"), autocommit=True) as conn:
            conn.execute("create database billing")
        self.owner = server.conninfo("billing")
        self.billing = make_conninfo(self.owner, user=BILLING, password=BILLING)
        migrate(self.owner)
        self.fleet = Fleet(psycopg.connect(self.owner, autocommit=True))
        conn = self.fleet.conn
        conn.execute(f"create role {BILLING} login password '{BILLING}'")
        conn.execute("select billing_admit(%s)", (BILLING,))
        oracle.install(conn)
        plan = self.fleet.plan("7.30")
        for _ in range(4):
            organization = self.fleet.organization("1000.00")
            for _ in range(5):
                self.fleet.instance(organization, plan)
        self.fleet.hours(2)
        daemons.compress(conn, HOUR_IN_A_SECOND, self.fleet.now)

    def reconnect(self) -> None:
        """Follow a server that ended its connections."""
        self.fleet.conn.close()
        self.fleet.conn = psycopg.connect(self.owner, autocommit=True)

    def assert_all_charged_once(self) -> None:
        """Stop the clock, bill what became due since, and ask the oracle and `verify`."""
        row = self.fleet.conn.execute(
            "update test_clock set at = at + (clock_timestamp() - since) * speed, since = clock_timestamp(), speed = 0"
            " returning at"
        ).fetchone()
        assert row is not None
        at: datetime = row[0]
        self.fleet.now = at
        self.fleet.conn.execute("update billing_leases set expires_at = '-infinity'")
        self.fleet.bill(conninfo=self.billing)
        verdict = oracle.judge(self.fleet.conn)
        assert () == verdict.lines
        assert 40 < verdict.due == verdict.charged
        found = verify(self.owner)
        assert found.ok, found.discrepancies


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Callable[[str], Daemon]]:
    """A function that starts a daemon; what still lives after the test is killed."""
    started: list[Daemon] = []

    def start(conninfo: str) -> Daemon:
        started.append(
            daemons.start(
                tmp_path,
                conninfo,
                _SPEED,
                BILLING_INTERVAL_MINUTES="1",
                HEARTBEAT_SECONDS="60",
                BILLING_BATCH_SIZE="5",
            )
        )
        return started[-1]

    yield start
    for daemon in started:
        if daemon.process.poll() is None:
            daemon.kill()


@pytest.fixture
def small_server(tmp_path: Path) -> Iterator[SmallServer]:
    server = EmbeddedServer(tmp_path / "server", settings=_SETTINGS)
    server.start()
    small_server = SmallServer(server)
    yield small_server
    small_server.fleet.conn.close()
    server.stop()


def completed(daemon: Daemon) -> int:
    return len(daemon.lines("Billing run completed"))


def goes_on(daemon: Daemon, away_since: float) -> None:
    """See that the process bills again by itself, twice, and has told of its outage once, or once a minute if it was long."""
    before = completed(daemon)
    daemon.until(lambda: completed(daemon) >= before + 2)
    told = len(daemon.lines("Billing is not possible"))
    assert 1 <= told <= 1 + (time.monotonic() - away_since) * _SPEED / 60
    assert 1 == len(daemon.lines("Billing is possible again"))


@pytest.mark.parametrize("reserved", ["reserved ones too", "ordinary ones"])
def test_every_connection_of_the_server_is_taken(
    small_server: SmallServer, running: Callable[[str], Daemon], reserved: str
) -> None:
    """The daemon logs it once, runs on without its database, and bills by itself when connections are free again."""
    daemon = running(small_server.billing)
    daemon.until(lambda: completed(daemon))
    taken: list[Connection] = []
    greedy = small_server.owner if reserved == "reserved ones too" else small_server.billing

    def take_all() -> None:
        # The daemon opens and closes its own, so what it lets go of is taken until it has none.
        with pytest.raises(psycopg.OperationalError, match=r"too many clients|connection slots are reserved"):
            while True:
                taken.append(psycopg.connect(greedy, autocommit=True))

    def it_notices() -> bool:
        take_all()
        return bool(daemon.lines("Billing is not possible"))

    since = time.monotonic()
    daemon.until(it_notices)
    take_all()
    assert daemon.lines("Billing is not possible", "has no free connection")
    for connection in taken:
        connection.close()
    goes_on(daemon, since)
    assert 0 == daemon.stop()
    small_server.assert_all_charged_once()


def put_wal_on(disk: Path, server: EmbeddedServer) -> None:
    """Move the WAL of a server that is stopped to another disk."""
    ours, theirs = server.directory / "data" / "pg_wal", disk / "pg_wal"
    owner = ours.stat()
    shutil.copytree(ours, theirs)
    for path in [theirs, *theirs.rglob("*")]:
        os.chown(path, owner.st_uid, owner.st_gid)
    theirs.chmod(0o700)
    shutil.rmtree(ours)
    ours.symlink_to(theirs)


def use_up_segments(conn: Connection) -> None:
    """Go on to the last segment of WAL that exists: the next one would have to be made."""
    for _ in range(20):
        row = conn.execute(
            "select pg_walfile_name(pg_current_wal_insert_lsn()),"
            " (select max(name) from pg_ls_waldir() where name ~ '^[0-9A-F]{24}$')"
        ).fetchone()
        assert row is not None
        if row[0] >= row[1]:
            return
        conn.execute("select pg_logical_emit_message(false, 'waste', 'a record')")
        conn.execute("select pg_switch_wal()")
    raise AssertionError("there is always one more segment")


def test_the_disk_of_the_wal_is_full(
    tmp_path_factory: pytest.TempPathFactory, running: Callable[[str], Daemon]
) -> None:
    """The server panics in the middle of a batch; the daemon survives, and with room again all is charged, once."""
    place = tmp_path_factory.mktemp("wal")
    server = EmbeddedServer(place / "server", settings=_SETTINGS)
    with small_disk(place / "disk", 160) as disk:
        try:
            server.start()
            server.stop()
            put_wal_on(disk, server)
            server.start()
            small_server = SmallServer(server)
            panics_and_bills_on(small_server, disk, running)
            small_server.fleet.conn.close()
        finally:
            server.stop()


def panics_and_bills_on(small_server: SmallServer, disk: Path, running: Callable[[str], Daemon]) -> None:
    """Let a batch write more WAL than there is room for."""
    conn = small_server.fleet.conn
    daemon = running(small_server.billing)
    daemon.until(lambda: completed(daemon))
    conn.execute("checkpoint")
    conn.execute(
        "create function waste() returns trigger language plpgsql as $$ begin"
        " perform pg_logical_emit_message(true, 'waste', repeat('x', 40000000)); return null; end $$"
    )
    ballast, since = disk / "ballast", time.monotonic()
    with ballast.open("wb") as file:
        fill(file)
        use_up_segments(conn)
        conn.execute("create trigger waste after insert on vps_billing_cycles execute function waste()")
        daemon.says("Billing is not possible")
    log = (small_server.server.directory / "server.log").read_text(errors="replace")
    assert "PANIC" in log
    assert "No space left on device" in log
    assert daemon.process.poll() is None
    ballast.unlink()
    # Where the server could not recover without room it has ended, and is started here; else it is there.
    eventually(small_server.server.start)
    small_server.reconnect()
    small_server.fleet.conn.execute("drop trigger waste on vps_billing_cycles")
    small_server.fleet.conn.execute("update billing_leases set expires_at = clock_timestamp()")
    goes_on(daemon, since)
    assert 0 == daemon.stop()
    small_server.assert_all_charged_once()
