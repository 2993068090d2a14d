"""A primary and its streaming replica on loopback, for tests of failover.

    with scratch() as directory, Pair(directory) as pair:
        pair.replicate()                # from here on there is a replica
        pair.follow()                   # the replica has all that was committed so far
        pair.stall()                    # what is committed from here on stays on the primary alone
        ...
        pair.kill()                     # -m immediate, or SIGKILL
        pair.promote()                  # the replica is the primary now: the tail is lost
        pair.rejoin()                   # the dead server comes back as a replica of the new primary

Both are servers of sandbox/server.py, so this works as root too; each listens at a loopback address of its own beside
its socket. The replica hears of the primary through a relay. A stalled relay swallows what it is given: nothing of that
can reach the replica later, so it is lost for good with a promotion.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import psycopg
from psycopg.conninfo import make_conninfo
from tests.conftest import FAST
from tests.daemons import eventually
from tests.memory import quick_place

from containerstacks_billing.sandbox.cleanup import clear_remains, living_postmaster
from containerstacks_billing.sandbox.programs import identity
from containerstacks_billing.sandbox.server import EmbeddedServer
from containerstacks_billing.sandbox.state_directory import PORT

DATABASE = "billing"
_SETTINGS = {
    **{name: value for name, value in FAST.items() if name != "synchronous_commit"},
    "min_wal_size": "32MB",
    "max_wal_size": "64MB",
    "wal_keep_size": "32MB",
    "wal_receiver_status_interval": "1s",
    "wal_retrieve_retry_interval": "100ms",
    "dynamic_shared_memory_type": "mmap",
}


class Node:
    """One server of a pair: its directory, its address, and whether it runs."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.data = directory / "data"
        self.address = _free_address()
        self.server = self._server({})

    def conninfo(self, dbname: str = DATABASE) -> str:
        """Connection string of this server alone."""
        return make_conninfo(self.server.conninfo(dbname), host=self.address)

    def start(self, settings: Mapping[str, str] | None = None) -> None:
        """Start the server as what its directory says, a primary or a standby."""
        self.server = self._server(settings or {})
        self.server.start()

    def stop(self) -> None:
        """Stop it in order, with a checkpoint."""
        self.server.stop()

    def kill(self, *, hard: bool = False) -> None:
        """End it as `pg_ctl stop -m immediate` does, or by SIGKILL; nothing of it is left running."""
        postmaster = living_postmaster(self.data)
        if postmaster is None:
            return
        shared_memory = (self.data / "postmaster.pid").read_text().splitlines()[6].split()[-1]
        os.kill(postmaster, signal.SIGKILL if hard else signal.SIGQUIT)
        eventually(lambda: living_postmaster(self.data) is None)
        clear_remains(self.data, self.directory / "socket" / f".s.PGSQL.{PORT}")
        if hard:
            subprocess.run(["ipcrm", "--shmem-id", shared_memory], check=False, capture_output=True)

    def one(self, statement: str) -> Any:
        """Return one value read from this server."""
        with psycopg.connect(self.conninfo(), autocommit=True) as conn:
            row = conn.execute(statement.encode()).fetchone()
        assert row is not None
        return row[0]

    def copy_to(self, other: Node) -> None:
        """Make the other a standby with the data of this one; neither may run."""
        shutil.rmtree(other.directory, ignore_errors=True)
        other.directory.mkdir(parents=True, mode=0o700)
        who = identity()
        if who.owner != os.geteuid():
            os.chown(other.directory, who.owner, -1)
        subprocess.run(
            ["cp", "-a", "--reflink=auto", self.data, self.directory / "password", other.directory],
            check=True,
        )
        standby = other.data / "standby.signal"
        standby.touch(mode=0o600)
        os.chown(standby, who.owner, -1)

    def _server(self, settings: Mapping[str, str]) -> EmbeddedServer:
        return EmbeddedServer(
            self.directory, settings={**_SETTINGS, "listen_addresses": self.address, **settings}
        )


class Pair:
    """A primary and a standby; the roles change with every promotion."""

    def __init__(self, directory: Path, *, settings: Mapping[str, str] | None = None) -> None:
        self.primary, self.standby = Node(directory / "a"), Node(directory / "b")
        self.relay = Relay()
        self.settings = settings or {}
        self.primary.start(self.settings)
        with psycopg.connect(self.primary.conninfo("postgres"), autocommit=True) as conn:
            conn.execute(f"create database {DATABASE}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def conninfo(self) -> str:
        """Connection string of an operator: both hosts, `target_session_attrs=read-write`."""
        first, second = sorted((self.primary, self.standby), key=lambda node: node.directory.name)
        return make_conninfo(
            first.conninfo(),
            host=f"{first.address},{second.address}",
            passfile=str(first.directory / "password"),
            target_session_attrs="read-write",
        )

    def replicate(self) -> None:
        """Begin to replicate: the primary is stopped for as long as its files are copied."""
        self.primary.stop()
        self.primary.copy_to(self.standby)
        self._start_both()

    def follow(self, seconds: float = 20) -> None:
        """Wait until the standby has replayed everything that is committed now."""
        position = self.primary.one("select pg_current_wal_lsn()::text")
        eventually(
            lambda: self.standby.one(f"select pg_last_wal_replay_lsn() >= '{position}'::pg_lsn"), seconds
        )

    def stall(self) -> None:
        """Stop the replication stream."""
        self.relay.stall()

    def resume(self) -> None:
        """Let the standby reconnect and catch up."""
        self.relay.resume()

    def kill(self, *, hard: bool = False) -> None:
        """Kill the primary; what the standby has not received is lost."""
        self.relay.stall()
        self.primary.kill(hard=hard)

    def promote(self) -> None:
        """Make the standby the primary; the former one is what `standby` names from now on, dead or alive."""
        self.relay.refuse()
        assert self.standby.one("select pg_promote(true, 60)")
        self.primary, self.standby = self.standby, self.primary

    def rejoin(self) -> None:
        """Bring the former primary back as a standby; what it alone had is lost."""
        self.standby.kill()
        self.replicate()

    def stop(self) -> None:
        """End both for good."""
        for node in (self.standby, self.primary):
            node.kill()
        self.relay.close()

    def _start_both(self) -> None:
        self.relay.resume((self.primary.address, PORT))
        through_relay = make_conninfo(
            self.standby.server.conninfo("replication"),
            host="127.0.0.1",
            port=self.relay.port,
            application_name="standby",
        )
        self.primary.start(self.settings)
        self.standby.start({"primary_conninfo": through_relay})


class Relay:
    """Proxy of the replication stream that can discard it."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._target: tuple[str, int] | None = None
        self._stalled = False
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        threading.Thread(target=self._accept, name="relay", daemon=True).start()

    def stall(self) -> None:
        """Discard what the primary sends; nothing is forwarded after this returns."""
        with self._lock:
            self._stalled = True

    def refuse(self) -> None:
        """End every connection and accept none."""
        with self._lock:
            self._target = None
        self._cut()

    def resume(self, target: tuple[str, int] | None = None) -> None:
        """Forward again, to this server or to the former one; the replica requests the discarded part again."""
        with self._lock:
            self._target, self._stalled = target or self._target, False
        self._cut()

    def close(self) -> None:
        """End it."""
        self._listener.close()
        self.refuse()

    def _cut(self) -> None:
        with self._lock:
            for end in self._sockets:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                replica, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(replica,), name="relay-link", daemon=True).start()

    def _carry(self, replica: socket.socket) -> None:
        with replica, contextlib.suppress(OSError):
            with self._lock:
                target = None if self._stalled else self._target
            if target is None:
                return
            with socket.create_connection(target, timeout=5) as primary, self._known(replica, primary):
                while self._hand_on(replica, primary):
                    pass

    def _hand_on(self, replica: socket.socket, primary: socket.socket) -> bool:
        readable, _, _ = select.select([replica, primary], [], [], 60)
        for end in readable:
            data = end.recv(65536)
            if not data:
                return False
            with self._lock:
                if end is replica:
                    primary.sendall(data)
                elif not self._stalled:
                    replica.sendall(data)
        return True

    @contextlib.contextmanager
    def _known(self, *ends: socket.socket) -> Any:
        with self._lock:
            self._sockets |= set(ends)
        try:
            yield
        finally:
            with self._lock:
                self._sockets -= set(ends)


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A private directory for the servers of pairs, in memory where there is room: they are copied all the time."""
    directory = Path(tempfile.mkdtemp(prefix="containerstacks-pair-", dir=quick_place()))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _free_address() -> str:
    """A loopback address without a listener; on Linux all of 127.0.0.0/8 is local."""
    number = random.SystemRandom()
    while True:
        address = f"127.{number.randint(64, 191)}.{number.randint(0, 255)}.{number.randint(1, 254)}"
        with socket.socket() as probe:
            if probe.connect_ex((address, PORT)) != 0:
                return address
