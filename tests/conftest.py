"""A real PostgreSQL for every test: one server for the session, and a fresh database for each test that needs one.

    server          conninfo of the maintenance database; with pytest-xdist all workers share one server
    database        conninfo of a fresh, migrated database, dropped after the test
    empty_database  conninfo of a fresh database without a single table
    conn            an open autocommit connection to `database`
    role            the name of a role without rights, which logs in with the password of that same name

The server is the embedded one in a private temporary directory, in memory where there is room, never the user's, or
TEST_DATABASE_URL. On either, only databases are touched that this session made. DATABASE_URL and .env are never read.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import logging
import os
import re
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import structlog
from psycopg import sql
from psycopg.conninfo import make_conninfo
from tests.memory import MEMORY, quick_place

from containerstacks_billing.errors import ConfigurationError
from containerstacks_billing.sandbox import server as embedded
from containerstacks_billing.sandbox.cleanup import living_postmaster
from containerstacks_billing.sandbox.programs import BINARIES_SETTING, find_programs
from containerstacks_billing.schema import migrator

pytest_plugins = ("tests.command", "tests.copied_books")

SERVER_PREFIX = "containerstacks-tests-"
SCHEMA = Path(migrator.__file__).parent
# Fast, and losing data when the machine fails; a test that needs durability makes its own server.
FAST = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_connections": "200",
    "autovacuum_naptime": "5s",
    "max_wal_size": "256MB",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Choose the server and the length of the run."""
    group = parser.getgroup("containerstacks-billing")
    group.addoption(
        "--slow", action="store_true", help="run the tests marked slow too, which are for the nightly run"
    )
    group.addoption(
        "--screenshots", action="store_true", help="write pictures of the page to build/screenshots"
    )
    group.addoption(
        "--postgres", metavar="15|18|URL", help="the server to test on (default: the embedded 18)"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Decide on the server once, in the process that starts the workers."""
    # The operator's database, and whatever else libpq would read from the environment.
    for name in [name for name in os.environ if name == "DATABASE_URL" or name.startswith("PG")]:
        del os.environ[name]
    if not hasattr(config, "workerinput"):
        _stop_forgotten_servers()  # of whichever version, so before one is chosen
    version = _version(config)
    if version != "18" and _foreign_server(config) is None:
        # Every embedded server of the session is of this version, those of subprocesses too.
        binaries = Path(os.environ.get(BINARIES_SETTING) or f"/usr/lib/postgresql/{version}/bin")
        try:
            find_programs(binaries, int(version))
        except ConfigurationError as error:
            raise pytest.UsageError(f"{error}; or apt-get install postgresql-{version}") from error
        os.environ[BINARIES_SETTING] = str(binaries)
    if not hasattr(config, "workerinput"):
        directory = Path(tempfile.mkdtemp(prefix=f"{SERVER_PREFIX}{os.getpid()}-", dir=quick_place()))
        config.stash[DIRECTORY] = directory
        config.stash[SESSION] = f"billing_test_{secrets.token_hex(4)}"
    else:
        config.stash[DIRECTORY] = Path(config.workerinput["directory"])
        config.stash[SESSION] = config.workerinput["session"]


def pytest_configure_node(node: Any) -> None:
    """Send a worker of pytest-xdist the address of the shared server."""
    node.workerinput["directory"] = str(node.config.stash[DIRECTORY])
    node.workerinput["session"] = node.config.stash[SESSION]


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the server when the last worker has ended, and remove all that the session made."""
    if hasattr(config, "workerinput") or DIRECTORY not in config.stash:
        return
    _drop_what_the_session_made(config)
    embedded.EmbeddedServer(config.stash[DIRECTORY]).stop()
    shutil.rmtree(config.stash[DIRECTORY], ignore_errors=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the slow tests to --slow; they are deselected and not skipped, so that a skip always means something."""
    if config.getoption("--slow"):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if not item.get_closest_marker("slow")]


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail in CI where a test was skipped for want of a program: there everything is installed."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", ()) if reporter else ()
    missing = [
        str(report.longrepr) for report in skipped if re.search("missing|not installed", str(report.longrepr))
    ]
    if os.environ.get("CI") and missing and exitstatus == pytest.ExitCode.OK:
        print("\nCI skips nothing for want of a program:", *missing, sep="\n  ", file=sys.stderr)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def server(pytestconfig: pytest.Config) -> str:
    """The conninfo of the maintenance database of a running server."""
    chosen = _foreign_server(pytestconfig)
    if chosen:
        return chosen
    return embedded.EmbeddedServer(pytestconfig.stash[DIRECTORY], settings=FAST).start()


@pytest.fixture(scope="session")
def template(pytestconfig: pytest.Config, server: str) -> str:
    """The name of a migrated database to make others from; the first worker that needs it makes it."""
    name = f"{pytestconfig.stash[SESSION]}_template_{_hash_of_migrations()}"
    unfinished = f"{name}_unfinished"
    with psycopg.connect(server, autocommit=True) as conn:
        conn.execute("SELECT pg_advisory_lock(hashtext(%s))", [name])
        if conn.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone() is None:
            _drop(conn, unfinished)
            _create(conn, unfinished, "template0")
            migrator.migrate(make_conninfo(server, dbname=unfinished))
            conn.execute(
                sql.SQL("ALTER DATABASE {} RENAME TO {}").format(
                    sql.Identifier(unfinished), sql.Identifier(name)
                )
            )
    return name


@pytest.fixture
def make_database(pytestconfig: pytest.Config, server: str) -> Iterator[Callable[[str], str]]:
    """A function that makes one more database from the template of that name, for this test alone."""
    made: list[str] = []

    def make(template_name: str) -> str:
        name = f"{pytestconfig.stash[SESSION]}_{secrets.token_hex(6)}"
        with psycopg.connect(server, autocommit=True) as conn:
            _create(conn, name, template_name, quickly=_foreign_server(pytestconfig) is None)
        made.append(name)
        return make_conninfo(server, dbname=name)

    yield make
    with psycopg.connect(server, autocommit=True) as conn:
        for name in made:
            _drop(conn, name)


@pytest.fixture
def database(make_database: Callable[[str], str], template: str) -> str:
    """The conninfo of a fresh, migrated database."""
    return make_database(template)


@pytest.fixture
def empty_database(make_database: Callable[[str], str]) -> str:
    """The conninfo of a fresh database without a single table."""
    return make_database("template0")


@pytest.fixture
def conn(database: str) -> Iterator[psycopg.Connection[Any]]:
    """An open autocommit connection to `database`."""
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


@pytest.fixture
def role(server: str, database: str) -> Iterator[str]:
    """The name of a role that has no rights and logs in with its own name as password; dropped after the test."""
    name = f"billing_test_{secrets.token_hex(6)}"
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(
            sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(name), sql.Literal(name))
        )
        yield name
        with psycopg.connect(database, autocommit=True) as owner:
            owner.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(name)))
        admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


@pytest.fixture(autouse=True)
def _logging_as_found() -> Iterator[None]:
    """Leave logging as it was: with its level another test would show what this one hides."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    if root.handlers != handlers or root.level != level:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.reset_defaults()


DIRECTORY = pytest.StashKey[Path]()
SESSION = pytest.StashKey[str]()


def _version(config: pytest.Config) -> str:
    return str(config.getoption("--postgres") or "18")


def _foreign_server(config: pytest.Config) -> str | None:
    """The external server, from --postgres=URL or TEST_DATABASE_URL."""
    chosen = config.getoption("--postgres")
    if chosen:
        return None if chosen.isdigit() else str(chosen)
    return os.environ.get("TEST_DATABASE_URL")


def _hash_of_migrations() -> str:
    content = hashlib.sha256()
    for file in sorted([*SCHEMA.rglob("*.sql"), *SCHEMA.glob("*.py"), SCHEMA / "catalog.txt"]):
        content.update(file.read_bytes())
    return content.hexdigest()[:8]


def _create(conn: psycopg.Connection[Any], name: str, template_name: str, *, quickly: bool = False) -> None:
    """Make a database; quickly by copying files, for which the server writes a checkpoint that costs ours nothing."""
    statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY {}")
    strategy = sql.SQL("FILE_COPY" if quickly else "WAL_LOG")
    conn.execute(statement.format(sql.Identifier(name), sql.Identifier(template_name), strategy))


def _drop(conn: psycopg.Connection[Any], name: str) -> None:
    conn.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def _drop_what_the_session_made(config: pytest.Config) -> None:
    """Leave nothing on an external server; our own is removed as a whole."""
    chosen = _foreign_server(config)
    if chosen is None:
        return
    made = f"{config.stash[SESSION]}_%"
    # A server that went away took its databases out of our reach; the tests have said so already.
    with contextlib.suppress(psycopg.OperationalError), psycopg.connect(chosen, autocommit=True) as conn:
        for (name,) in conn.execute(
            "SELECT datname FROM pg_database WHERE datname LIKE %s", [made]
        ).fetchall():
            _drop(conn, name)


def _stop_forgotten_servers() -> None:
    """Stop the servers of sessions that were killed before they could."""
    places = {Path(tempfile.gettempdir()), MEMORY}
    for directory in itertools.chain.from_iterable(place.glob(f"{SERVER_PREFIX}*") for place in places):
        pid = directory.name.removeprefix(SERVER_PREFIX).split("-")[0]
        if directory.stat().st_uid == os.geteuid() and pid.isdigit() and not Path(f"/proc/{pid}").exists():
            try:
                embedded.EmbeddedServer(directory).stop()
            except ConfigurationError:  # of a version whose programs this session does not have
                if (postmaster := living_postmaster(directory / "data")) is not None:
                    os.kill(postmaster, signal.SIGINT)
            shutil.rmtree(directory, ignore_errors=True)
