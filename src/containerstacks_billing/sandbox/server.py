"""Embedded PostgreSQL server for trials and tests, never for production.

**What it is.** A state directory that only its owner may enter holds the data, the socket, the password and a log.
Any number of processes share the server; the first that needs it starts it, and it stays until it is stopped.

**Who may enter.** There is a socket in a 0700 directory and no TCP port. Logins take SCRAM with a generated password,
which stands in a 0600 file in the form that libpq reads by itself, so that no connection string carries the secret.

**What is trusted.** Whether the server runs is found by connecting; a process id proves nothing. Everything that
changes the state happens under one flock, which the kernel releases when its holder dies. A data directory gets its
name only when it is complete. So a kill at any moment leaves nothing, or a server that recovers.

**As whom.** See `programs`: as root it runs in a user namespace or as an existing account.
"""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from containerstacks_billing.database.connection import connect
from containerstacks_billing.errors import DatabaseUnavailable, WorkFailed
from containerstacks_billing.sandbox.cleanup import clear_remains, living_postmaster, programs_are_gone
from containerstacks_billing.sandbox.programs import (
    Identity,
    Programs,
    copy_programs,
    find_programs,
    identity,
)
from containerstacks_billing.sandbox.state_directory import PORT, StateDirectory, default_directory

__all__ = ["ROLE", "EmbeddedServer", "ServerStatus", "default_directory"]

ROLE = "containerstacks"
_SECONDS_TO_START = 120  # recovery after a crash included
_SECONDS_TO_STOP = 60
_LARGEST_LOG_BYTES = 10 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """State of an embedded server; the version is that of the data directory while it is stopped."""

    running: bool
    version: str | None
    directory: Path
    socket: Path


class EmbeddedServer:
    """Embedded PostgreSQL of one state directory.

    `binaries` overrides where the programs are looked for; `settings` are given to the server that this object starts,
    and only then: `{"fsync": "off"}` makes a server for tests.
    """

    def __init__(
        self, directory: Path, binaries: Path | None = None, settings: Mapping[str, str] | None = None
    ) -> None:
        self.directory = directory.absolute()
        self._state = StateDirectory(self.directory)
        self._binaries = binaries
        self._settings = dict(settings or {})
        self._data = self.directory / "data"
        self._password = self.directory / "password"
        self._log = self.directory / "server.log"

    def start(self) -> str:
        """Start the server unless it runs; return the conninfo of its maintenance database `postgres`.

        One whose programs were removed, with the checkout or environment that started it, finds none of its files any
        more; it is stopped and started with the programs of this environment. Raises ConfigurationError where there are
        no programs or the directory is not private, and DatabaseUnavailable where the server does not come up.
        """
        if self._answers() and programs_are_gone(self._data):
            self.stop()
        if not self._answers():
            who = identity()
            self._state.make_private(who)
            with self._state.locked():
                if not self._answers():
                    self._start(who)
        return self.conninfo("postgres")

    def stop(self) -> bool:
        """Cancel running statements and stop the server; return False when it was not running."""
        if not self._data.is_dir():
            return False
        with self._state.locked():
            if self._reply() == psycopg.pq.Ping.NO_RESPONSE and living_postmaster(self._data) is None:
                return False
            who = identity()
            programs = self._programs(who)
            for mode in ("fast", "immediate"):
                command = [programs.path("pg_ctl"), "stop", "-D", str(self._data), "-m", mode, "-w"]
                done = self._run(who, *command, "-t", str(_SECONDS_TO_STOP))
                if done.returncode == 0:
                    return True
        raise WorkFailed(
            f"the embedded PostgreSQL in {self.directory} did not stop: {_last_line(done.stderr)}"
        )

    def status(self) -> ServerStatus:
        """Return whether the server accepts a connection."""
        version = self._major_of_data()
        running = self._reply() == psycopg.pq.Ping.OK
        if running:
            with connect(self.conninfo("postgres"), purpose="maintenance") as conn:
                version = conn.info.parameter_status("server_version")
        return ServerStatus(running, version, self.directory, self._state.socket())

    def conninfo(self, dbname: str) -> str:
        """Return the conninfo of a database; it names the password file, not the password."""
        return make_conninfo(
            host=str(self._state.socket().parent),
            port=PORT,
            user=ROLE,
            dbname=dbname,
            passfile=str(self._password),
            sslmode="disable",
            gssencmode="disable",
        )

    def psql(self) -> str:
        """Return the path of psql."""
        return self._find().path("psql")

    def environment(self, dbname: str) -> dict[str, str]:
        """Return the environment variables for PostgreSQL programs to reach one of its databases.

        A connection string on a command line would not: an option behind it, such as -d, leaves nothing of it.
        """
        options = psycopg.pq.Conninfo.get_defaults()
        names = {one.keyword.decode(): one.envvar.decode() for one in options if one.envvar}
        elsewhere = [
            names[keyword] for keyword in ("hostaddr", "password", "service", "target_session_attrs")
        ]
        kept = {name: text for name, text in os.environ.items() if name not in elsewhere}
        parameters = conninfo_to_dict(self.conninfo(dbname))
        return kept | {names[keyword]: str(text) for keyword, text in parameters.items()}

    # Starting, under the lock.

    def _start(self, who: Identity) -> None:
        postmaster = self._wait_for_postmaster()
        if self._answers():
            return
        if postmaster is not None:
            raise DatabaseUnavailable(
                f"the embedded PostgreSQL lives as process {postmaster} but does not answer at {self._state.socket()}",
                "stop it with containerstacks-billing db stop, and try again",
            )
        programs = self._programs(who)
        self._state.make_socket_directory(who)
        if self._data.exists():
            clear_remains(self._data, self._state.socket())
        else:
            self._create(who, programs)
        if self._log.exists() and self._log.stat().st_size > _LARGEST_LOG_BYTES:
            self._log.replace(self._log.with_suffix(".log.1"))
        options = shlex.join(f"-c{name}={value}" for name, value in self._flags().items())
        command = [programs.path("pg_ctl"), "start", "-D", str(self._data), "-l", str(self._log), "-s", "-w"]
        done = self._run(who, *command, "-t", str(_SECONDS_TO_START), "-o", options)
        if done.returncode != 0 or not self._answers():
            raise DatabaseUnavailable(
                f"the embedded PostgreSQL in {self.directory} did not start: {_last_line(self._read_log())}",
                f"see {self._log}",
            )

    def _flags(self) -> dict[str, str]:
        return {
            "listen_addresses": "",
            "unix_socket_directories": f'"{self._state.socket().parent}"',
            "unix_socket_permissions": "0700",
            "port": str(PORT),
            **self._settings,
        }

    def _create(self, who: Identity, programs: Programs) -> None:
        """Create password and data directory; it is renamed into place when complete."""
        unfinished = self.directory / "data.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        password = secrets.token_urlsafe(32)
        self._state.write_private("password", f"*:*:*:{ROLE}:{password}\n", who)
        only_password = self.directory / "password.new"
        self._state.write_private("password.new", f"{password}\n", who)
        locale = ["--locale=C"]
        if programs.major >= 17:
            locale += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        durable = [] if self._settings.get("fsync") != "off" else ["--no-sync"]
        done = self._run(
            who,
            programs.path("initdb"),
            f"--pgdata={unfinished}",
            f"--username={ROLE}",
            "--auth=scram-sha-256",
            f"--pwfile={only_password}",
            "--encoding=UTF8",
            "--no-instructions",
            *locale,
            *durable,
        )
        only_password.unlink()
        if done.returncode != 0:
            raise DatabaseUnavailable(
                f"the embedded PostgreSQL could not be created in {self.directory}: {_last_line(done.stderr)}",
                "see that the directory is on a local disk with room for 100 MB",
            )
        unfinished.rename(self._data)

    def _find(self) -> Programs:
        """Return the programs of the version of the data, or any for a new directory."""
        major = self._major_of_data()
        return find_programs(self._binaries, int(major) if major else None)

    def _programs(self, who: Identity) -> Programs:
        """Return the programs, copied into the state directory when this identity cannot reach them."""
        programs = self._find()
        if not who.can_run(programs.path("postgres")):
            programs = copy_programs(programs, self.directory / "programs")
        return programs

    def _run(self, who: Identity, *command: str) -> subprocess.CompletedProcess[str]:
        try:
            return who.run(*command)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise DatabaseUnavailable(f"{Path(command[0]).name} could not do its work: {error}") from error

    # Whether it responds.

    def _reply(self) -> int:
        """Return the response of the server to a connection attempt, whatever the password."""
        return psycopg.pq.PGconn.ping(self.conninfo("postgres").encode())

    def _answers(self) -> bool:
        """Return whether the server accepts connections, after waiting for a start or stop in progress."""
        until = time.monotonic() + _SECONDS_TO_START
        while (answer := self._reply()) == psycopg.pq.Ping.REJECT and time.monotonic() < until:
            time.sleep(0.02)
        return answer == psycopg.pq.Ping.OK

    def _wait_for_postmaster(self) -> int | None:
        """Wait for an unresponsive postmaster to respond or exit; return its process id while it runs."""
        until = time.monotonic() + _SECONDS_TO_STOP
        while (postmaster := living_postmaster(self._data)) is not None and time.monotonic() < until:
            if self._answers():
                break
            time.sleep(0.02)
        return postmaster

    def _major_of_data(self) -> str | None:
        try:
            return (self._data / "PG_VERSION").read_text().strip()
        except OSError:
            return None

    def _read_log(self) -> str:
        try:
            return self._log.read_text(errors="replace")
        except OSError:
            return ""


def _last_line(text: str) -> str:
    """Return the last error line, truncated."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    faults = [line for line in lines if "FATAL" in line or "error:" in line]
    return (faults or lines or ["no message"])[-1][:300]
