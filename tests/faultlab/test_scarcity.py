"""When something runs out: each batch fails as a whole, billing says so, and goes on by itself when there is enough again."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from tests.conftest import FAST
from tests.daemons import eventually, waits_for_lock
from tests.fleet import Fleet

from containerstacks_billing.charging.charger import RunCharger
from containerstacks_billing.charging.model import Bounds, Outcome, RunResult
from containerstacks_billing.charging.run import run_billing
from containerstacks_billing.drill import oracle
from containerstacks_billing.errors import DatabaseUnavailable
from containerstacks_billing.sandbox.server import EmbeddedServer
from containerstacks_billing.schema.migrator import migrate
from containerstacks_billing.verification.verify import verify

HOURS = 2
Connection = psycopg.Connection[Any]


class Books:
    """A few organizations with an instance each and two hours due, and the oracle that watches them."""

    def __init__(self, conn: Connection, organizations: int = 2) -> None:
        self.fleet = Fleet(conn)
        oracle.install(conn)
        plan = self.fleet.plan("7.30")
        self.organizations = sorted(self.fleet.organization("10.00") for _ in range(organizations))
        for organization in self.organizations:
            self.fleet.instance(organization, plan)
        self.fleet.hours(HOURS)

    def bill(self, charger: RunCharger | None = None, **changes: Any) -> RunResult:
        """Bill once; nobody waits for a lease that a failed run may have left."""
        self.fleet.conn.execute("update billing_leases set expires_at = '-infinity'")
        return run_billing(replace(self.fleet.order(), wait_seconds=0, **changes), charger)

    def untouched(self) -> bool:
        """Whether no charge, no debit and no watermark was left behind."""
        return self.fleet.rows(
            "select (select count(*) from vps_billing_cycles) as charges, (select min(balance) from wallets) as balance,"
            " (select count(*) from vps_instances where last_billed_at is not null) as advanced"
        ) == [(0, 10, 0)]

    def assert_all_charged_once(self) -> None:
        """Every hour once, by the oracle and by `verify`."""
        verdict = oracle.judge(self.fleet.conn)
        assert () == verdict.lines
        assert HOURS * len(self.organizations) == verdict.due == verdict.charged
        assert verify(self.fleet.conninfo).ok


@pytest.fixture
def books(conn: Connection) -> Books:
    return Books(conn)


@pytest.fixture
def daemons_role(server: str, database: str, role: str, conn: Connection) -> str:
    """How the daemon's role of least privilege connects to a database with books in it."""
    conn.execute("select billing_admit(%s)", (role,))
    return make_conninfo(database, user=role, password=role)


@contextmanager
def beside(work: Callable[[], RunResult]) -> Iterator[Future[RunResult]]:
    """Let something be done in a thread."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(work)


def a_session_waits(conn: Connection) -> bool:
    """Whether a biller of this database waits for a lock."""
    return waits_for_lock(conn, "containerstacks-billing billing")


def lock_wallet(conn: Connection, organization: UUID) -> None:
    """Lock a wallet as a top-up does."""
    conn.execute("select from wallets where organization_id = %s for update", (organization,))


def test_a_deadlock_with_the_host_costs_one_more_attempt(books: Books, database: str) -> None:
    """The host locks the wallets in the other order; the server ends one of both, and the batch is done again as a whole."""
    first, second = books.organizations
    with psycopg.connect(database) as host, beside(books.bill) as run:
        lock_wallet(host, second)
        eventually(lambda: a_session_waits(books.fleet.conn))
        try:
            lock_wallet(host, first)
            host.execute("update wallets set balance = balance where organization_id = %s", (first,))
        except psycopg.errors.DeadlockDetected:
            host.rollback()
        host.commit()
        assert Outcome.COMPLETED is run.result(180).outcome
    books.assert_all_charged_once()


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_a_role_with_a_stricter_isolation_bills_too(
    books: Books, database: str, daemons_role: str, role: str, level: str
) -> None:
    """The wallet changes while the batch waits for it: a run asks for the isolation that it argues with, and sees the change."""
    books.fleet.conn.execute("grant select on test_clock to public")
    books.fleet.conn.execute(
        sql.SQL("alter role {} set default_transaction_isolation = {}").format(
            sql.Identifier(role), sql.Literal(level)
        )
    )
    with (
        psycopg.connect(database) as host,
        beside(lambda: books.bill(conninfo=daemons_role)) as run,
    ):
        lock_wallet(host, books.organizations[0])
        eventually(lambda: a_session_waits(books.fleet.conn))
        host.execute(
            "update wallets set balance = balance + 1 where organization_id = %s", (books.organizations[0],)
        )
        host.execute(
            "insert into payment_transactions (organization_id, amount, currency, payment_method, payment_provider, status)"
            " values (%s, 1, 'USD', 'card', 'test', 'completed')",
            (books.organizations[0],),
        )
        host.commit()
        assert Outcome.COMPLETED is run.result(180).outcome
    books.assert_all_charged_once()


def test_no_connection_is_free_when_a_run_begins(
    books: Books, server: str, daemons_role: str, role: str
) -> None:
    """Nothing is charged and the reason is told; when a connection is free again, the next run charges everything."""
    books.fleet.conn.execute("grant select on test_clock to public")
    with psycopg.connect(server, autocommit=True) as admin, psycopg.connect(daemons_role):
        admin.execute(sql.SQL("alter role {} connection limit 1").format(sql.Identifier(role)))
        with pytest.raises(DatabaseUnavailable, match="connection"):
            books.bill(conninfo=daemons_role)
        assert books.untouched()
        admin.execute(sql.SQL("alter role {} connection limit 4").format(sql.Identifier(role)))
    assert Outcome.COMPLETED is books.bill(conninfo=daemons_role).outcome
    books.assert_all_charged_once()


def test_connections_run_out_during_a_run(books: Books, server: str, daemons_role: str, role: str) -> None:
    """Those of the run break and it gets no other, tries a few times and gives up; nothing is half done, the next run charges all."""
    books.fleet.conn.execute("grant select on test_clock to public")
    with psycopg.connect(server, autocommit=True) as admin:

        def limit(connections: int) -> None:
            statement = sql.SQL("alter role {} connection limit {}")
            admin.execute(statement.format(sql.Identifier(role), sql.Literal(connections)))

        def run_out(_: object) -> None:
            limit(0)
            admin.execute(
                "select pg_terminate_backend(pid, 10000) from pg_stat_activity where usename = %s", (role,)
            )

        with pytest.raises(DatabaseUnavailable, match="connection"):
            books.bill(conninfo=daemons_role, opened=run_out, workers=1)
        assert books.untouched()
        limit(-1)
        assert Outcome.COMPLETED is books.bill(conninfo=daemons_role).outcome
    ended = books.fleet.rows("select outcome from billing_runs order by id")
    assert [("interrupted",), ("completed",)] == ended
    books.assert_all_charged_once()


def test_a_statement_that_never_comes_to_an_end_is_a_failed_run(books: Books) -> None:
    """The batch is cancelled by its bound, tried again, given up; the run says so, and the next one charges everything."""
    conn = books.fleet.conn
    conn.execute(
        "create function slow() returns trigger language plpgsql as 'begin perform pg_sleep(60); return new; end'"
    )
    conn.execute(
        "create trigger slow before insert on vps_billing_cycles for each row execute function slow()"
    )
    failed = books.bill(charger=RunCharger(Bounds(statement="100ms")))
    assert Outcome.FAILED is failed.outcome
    assert failed.error_message is not None
    assert "statement timeout" in failed.error_message
    assert books.untouched()
    conn.execute("drop trigger slow on vps_billing_cycles")
    assert Outcome.COMPLETED is books.bill().outcome
    books.assert_all_charged_once()


@contextmanager
def small_disk(directory: Path, megabytes: int) -> Iterator[Path]:
    """A file system of a few megabytes; skips where this user may not mount one."""
    directory.mkdir(mode=0o755)
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0777", "tmpfs", str(directory)]
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount the small file system that is to run full")
    mounted = subprocess.run(command, check=False, capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"this machine lets nobody mount a file system: {mounted.stderr.strip()}")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=False)


def test_the_disk_is_full(tmp_path: Path) -> None:
    """A charge that finds no room ends its batch as a whole; the reason is told; with room again all is charged.

    The server is its own: with a full disk no checkpoint succeeds, and a database that another test drops waits for one.
    """
    server = EmbeddedServer(tmp_path / "server", settings=FAST)
    with ExitStack() as stack, small_disk(tmp_path / "disk", 64) as disk:
        stack.callback(server.stop)
        address = server.start()
        space = disk / "space"
        space.mkdir(mode=0o700)
        owner = (server.directory / "data").stat()
        os.chown(space, owner.st_uid, owner.st_gid)
        with psycopg.connect(address, autocommit=True) as admin:
            admin.execute(sql.SQL("create tablespace small location {}").format(sql.Literal(str(space))))
            admin.execute("create database billing tablespace small")
        database = make_conninfo(address, dbname="billing")
        migrate(database)
        with psycopg.connect(database, autocommit=True) as conn:
            books = Books(conn)
            ballast = disk / "ballast"
            with ballast.open("wb") as file:
                fill(file)
            with pytest.raises(DatabaseUnavailable, match="No space left"):
                books.bill(workers=1)
            assert books.untouched()
            ballast.unlink()
            assert Outcome.COMPLETED is books.bill().outcome
            books.assert_all_charged_once()


def fill(file: Any) -> None:
    """Write until there is no room for a page."""
    for size in (1 << 20, 1 << 12):
        try:
            while True:
                os.write(file.fileno(), bytes(size))
        except OSError:
            continue


def test_attempts_are_bounded_and_spread(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch is tried six times, with pauses of chance in between: no two billers knock at the same moments."""
    pauses: list[float] = []

    class Watched(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            pauses.append(timeout or 0)
            return False

    books.fleet.conn.execute(
        "create function no() returns trigger language plpgsql as $$"
        " begin raise exception using errcode = '40P01', message = 'deadlock'; end $$"
    )
    books.fleet.conn.execute(
        "create trigger no before insert on vps_billing_cycles for each row execute function no()"
    )
    failed = books.bill(stopping=Watched(), workers=1)
    assert Outcome.FAILED is failed.outcome
    assert 5 == len(pauses) == len(set(pauses))
    assert all(0 <= pause <= 4 for pause in pauses)
    assert books.untouched()
