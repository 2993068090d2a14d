"""A daemon as a process of its own: started, signalled, watched. Nothing sleeps; everything waits for a condition.

    daemon = start(tmp_path, database)
    daemon.until(lambda: daemon.row().status == "running")
    assert 0 == daemon.stop()

With `speed` the daemon waits by a clock that is so many times as fast, and `compress` lets the database's clock run as
fast: an hour is a second at a speed of 3600. Leases and statement timeouts stay real.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import namedtuple_row
from tests.forked import Forked, fork_server

Start = Callable[..., "Daemon"]
# How long a condition may take on a machine with much else to do. It bounds a test that fails, and never decides one.
PATIENCE_SECONDS = 180
ROOT = Path(__file__).resolve().parent.parent
_CLOCK = """
    create table if not exists test_clock (at timestamptz not null);
    alter table test_clock add column if not exists since timestamptz, add column if not exists speed float8;
    delete from test_clock;
    insert into test_clock values ('{at}', clock_timestamp(), {speed});
    create or replace function billing_clock() returns timestamptz language sql volatile security definer
        set search_path = public as 'select at + (clock_timestamp() - since) * speed from test_clock';
"""


def eventually(condition: Callable[[], Any], seconds: float = PATIENCE_SECONDS) -> Any:
    """Wait until a condition holds and return its value; a connection that is away counts as "not yet"."""
    until = time.monotonic() + seconds
    pause = threading.Event()
    error: Exception | None = None
    while time.monotonic() < until:
        try:
            if value := condition():
                return value
            error = None
        except psycopg.Error as away:
            error = away
        pause.wait(0.02)
    raise AssertionError(f"still not so after {seconds} s") from error


def waits_for_lock(conn: psycopg.Connection[Any], application: str = "%") -> bool:
    """Whether a connection to this database waits for a lock; `application` is a pattern of its application_name."""
    row = conn.execute(
        "select exists (select from pg_stat_activity where datname = current_database()"
        " and wait_event_type = 'Lock' and application_name like %s)",
        (application,),
    ).fetchone()
    return row is not None and bool(row[0])


def wait_for_lock(conn: psycopg.Connection[Any], application: str = "%") -> None:
    """Wait until a connection to this database waits for a lock."""
    eventually(lambda: waits_for_lock(conn, application))


def compress(conn: psycopg.Connection[Any], speed: float, at: datetime) -> None:
    """Let the clock of a test's database run faster, from an instant on."""
    with conn.transaction():
        conn.execute(_CLOCK.format(at=at.isoformat(), speed=speed))


class Daemon:
    """One process of the daemon; its log is a file, its row is read from the database."""

    def __init__(self, directory: Path, conninfo: str, environment: dict[str, str], speed: float) -> None:
        self.conninfo = conninfo
        self.log_file = directory / "daemon.log"
        self._from = self.log_file.stat().st_size if self.log_file.exists() else 0
        self.process: subprocess.Popen[bytes] | Forked
        with self.log_file.open("ab") as log, Path(os.devnull).open("rb") as nothing:
            if speed == 1:
                streams = (nothing.fileno(), log.fileno(), log.fileno())
                self.process = fork_server().start(["daemon"], directory, environment, streams)
                return
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.daemons", str(speed)],
                cwd=directory,
                env=environment,
                stdin=nothing,
                stdout=log,
                stderr=log,
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    def log(self) -> str:
        """What this process has logged so far."""
        with self.log_file.open("rb") as log:
            log.seek(self._from)
            return log.read().decode()

    def lines(self, *words: str) -> list[str]:
        """The lines that hold all these words."""
        return [line for line in self.log().splitlines() if all(word in line for word in words)]

    def says(self, *words: str, seconds: float = PATIENCE_SECONDS) -> str:
        """Wait for a line with all these words and return it."""
        return str(self.until(lambda: self.lines(*words), seconds)[0])

    def until(self, condition: Callable[[], Any], seconds: float = PATIENCE_SECONDS) -> Any:
        """Wait for a condition; when it never holds, show the log."""

        def met_or_dead() -> Any:
            return self.process.poll() is not None or condition()

        try:
            eventually(met_or_dead, seconds)
            if value := condition():
                return value
        except (AssertionError, psycopg.Error) as late:
            raise AssertionError(f"{late}\n{self.log()}") from late
        raise AssertionError(f"the daemon ended with {self.process.returncode}\n{self.log()}")

    def row(self) -> Any:
        """The daemon's row, None before its first heartbeat."""
        with psycopg.connect(self.conninfo) as conn, conn.cursor(row_factory=namedtuple_row) as cursor:
            return cursor.execute(
                "select * from billing_daemon_status where metadata ->> 'pid' = %s order by id desc limit 1",
                (str(self.pid),),
            ).fetchone()

    def when(self, condition: Callable[[Any], Any], seconds: float = PATIENCE_SECONDS) -> Any:
        """Wait until the row fulfils a condition, and return the row."""

        def fulfilled() -> Any:
            row = self.row()
            return row if row is not None and condition(row) else None

        return self.until(fulfilled, seconds)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def ended(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Wait until the process has ended and return its exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired as late:
            raise AssertionError(f"still alive after {seconds} s\n{self.log()}") from late

    def stop(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Stop it as systemd does."""
        self.signal(signal.SIGTERM)
        return self.ended(seconds)

    def kill(self) -> None:
        """End it without a word."""
        self.process.kill()
        self.process.wait()


def start(directory: Path, conninfo: str, speed: float = 1, **settings: str) -> Daemon:
    """Start a daemon with these settings and none of the surroundings."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(directory),
        "LANG": "C.UTF-8",
        "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
        "CONTAINERSTACKS_BILLING_STATE": str(directory / "state"),
        "DATABASE_URL": conninfo,
        "PYTHONWARNINGS": "error",
        **settings,
    }
    return Daemon(directory, conninfo, {key: text for key, text in environment.items() if text}, speed)


def _main(speed: float) -> int:
    """Run a daemon in a process of its own with a fast clock, and optionally with a short lease."""
    if text := os.environ.pop("TEST_LEASE_SECONDS", ""):
        from containerstacks_billing.charging import lease_model as lease

        # Before anybody has read them.
        lease.LEASE_SECONDS, lease.RENEW_SECONDS = float(text), float(text) / 3  # type: ignore[assignment]
    from containerstacks_billing import logs
    from containerstacks_billing.clock import Clock
    from containerstacks_billing.config import load as configuration
    from containerstacks_billing.daemon import daemon

    class FastClock(Clock):
        def monotonic(self) -> float:
            return time.monotonic() * speed

        def wait(self, event: threading.Event, seconds: float) -> bool:
            return event.wait(max(seconds, 0) / speed)

    found = configuration.load({})
    logs.configure(found.settings.log_level, found.settings.log_format, found.secrets())
    return daemon.Daemon(found, lambda: configuration.load({}), FastClock()).run()


if __name__ == "__main__":
    sys.exit(_main(float(sys.argv[1])))


@contextmanager
def held_lease(conninfo: str, holder: str) -> Iterator[None]:
    """Hold the lease as another biller does: taken now and renewed every second, for as long as the block runs."""
    done, began = threading.Event(), threading.Event()

    def renew() -> None:
        with psycopg.connect(conninfo, autocommit=True) as conn:
            while True:
                conn.execute(
                    "update billing_leases set holder = %s, expires_at = clock_timestamp() + interval '29 seconds'",
                    [holder],
                )
                began.set()
                if done.wait(1.0):
                    return

    thread = threading.Thread(target=renew, name="held-lease")
    thread.start()
    try:
        assert began.wait(PATIENCE_SECONDS)
        yield
    finally:
        done.set()
        thread.join()
