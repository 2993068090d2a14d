"""A PgBouncer in transaction mode in front of a test's server: Debian's package, on loopback, unprivileged.

    with Pooler(database) as pooler:
        bill(fleet.order(conninfo=pooler.conninfo))
        pooler.kill()
        pooler.start()

Its pool is small, so that clients take turns on the same server processes and whatever one leaves behind meets the next.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Self

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from tests.daemons import eventually

from containerstacks_billing.sandbox.programs import identity

_CONFIGURATION = """
[databases]
* = host={host} port={server_port}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {directory}/users
pool_mode = transaction
default_pool_size = {pool}
max_client_conn = 200
logfile = {directory}/log
"""


def program() -> str | None:
    """Where the program is, if it is installed."""
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


class Pooler:
    """One PgBouncer; `conninfo` leads to the same database through it."""

    def __init__(self, conninfo: str, pool: int = 5) -> None:
        with psycopg.connect(conninfo) as direct:
            user, password = direct.info.user, direct.info.password
        found = conninfo_to_dict(conninfo)
        self._directory = Path(tempfile.mkdtemp(prefix="containerstacks-pooler-"))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self._port: int = listener.getsockname()[1]
        self._write(
            "pgbouncer.ini",
            _CONFIGURATION.format(
                host=found["host"],
                server_port=found.get("port", 5432),
                port=self._port,
                directory=self._directory,
                pool=pool,
            ),
        )
        self._write("users", f'"{user}" "{password}"\n')
        self.conninfo = make_conninfo(
            "",
            host="127.0.0.1",
            port=self._port,
            user=user,
            password=password,
            dbname=found["dbname"],
            sslmode="disable",
            gssencmode="disable",
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self._directory, ignore_errors=True)

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        who = identity()
        self._process = subprocess.Popen(
            [*who.prefix, str(program()), "-q", str(self._directory / "pgbouncer.ini")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            user=who.user,
            group=who.group,
            extra_groups=None if who.user is None else [],
        )
        eventually(self._answers)

    def kill(self) -> None:
        """End it at once, and with it every connection through it."""
        self._process.kill()
        self._process.wait()

    def _answers(self) -> bool:
        if self._process.poll() is not None:
            raise AssertionError((self._directory / "log").read_text())
        return psycopg.pq.PGconn.ping(self.conninfo.encode()) == psycopg.pq.Ping.OK

    def _write(self, name: str, text: str) -> None:
        who = identity()
        path = self._directory / name
        path.write_text(text)
        path.chmod(0o600)
        for owned in (path, self._directory):
            os.chown(owned, who.owner, -1)
