"""`up`: two commands from nothing to a billed fleet, away from the operator's database."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.command import Command
from tests.daemons import eventually

from containerstacks_billing.cli.up_services import Service
from containerstacks_billing.daemon.signals import interruptible, without_its_terminal
from containerstacks_billing.errors import ConfigurationError
from containerstacks_billing.sandbox.server import EmbeddedServer


@pytest.fixture
def server_of_up(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """The embedded server that `up` makes, stopped after the test."""
    server = EmbeddedServer(tmp_path / "state", settings={"fsync": "off"})
    server.start()
    yield server
    server.stop()


def test_up_bills_a_demo_fleet_once(server_of_up: EmbeddedServer, command: Command, tmp_path: Path) -> None:
    """The first time makes, bills and shows; the second charges nothing; DATABASE_URL and .env are not looked at."""
    (tmp_path / ".env").write_text("BILLING_INTERVAL_MINUTES=nonsense\n")
    (tmp_path / ".env").chmod(0o666)
    elsewhere = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nowhere"}
    first = command("up", "--once", environment=elsewhere)
    second = command("up", "--once", environment=elsewhere)

    assert (0, 0) == (first.returncode, second.returncode), first.stderr + second.stderr
    assert "Run 1 completed: 12 instances charged for 55.8 hours." in first.stdout
    assert "Amount      2.63945204 USD exactly: 2.61 debited, 0.02945204 carried on" in first.stdout
    assert "Run 2 completed: 0 charged, all already billed." in second.stdout
    assert all(len(line) <= 80 for line in (first.stdout + second.stdout).splitlines())
    assert (
        "The embedded database goes on running; `./dev db stop` stops it\n"
        "(installed: `containerstacks-billing db stop`).\n" in first.stderr
    )
    (tmp_path / ".env").unlink()
    assert 0 == command("verify").returncode


def test_two_at_once_make_one_fleet(server_of_up: EmbeddedServer, command: Command) -> None:
    """The second finds the fleet, and waits until the first has billed it."""
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: command("up", "--once"), range(2)))
    assert [0, 0] == [one.returncode for one in both], [one.stdout + one.stderr for one in both]
    with psycopg.connect(server_of_up.conninfo("containerstacks")) as connection:
        assert (5, 13) == connection.execute(
            "select (select count(*) from organizations), (select count(*) from vps_instances)"
        ).fetchone()


def test_up_refuses_another_database(command: Command) -> None:
    """--database-url is a misunderstanding, and a usage error before anything is made."""
    refused = command("--database-url", "postgresql://localhost/production", "up")
    assert (2, "") == (refused.returncode, refused.stdout)


def test_verbs_without_a_database_find_that_of_up(server_of_up: EmbeddedServer, command: Command) -> None:
    """Run and status work on it and say so."""
    command("up", "--once")
    status = command("status", "--json")
    assert "using the embedded database in" in status.stderr
    assert "completed" == json.loads(status.stdout)["lastRun"]["outcome"]


class Up:
    """An `up` at a terminal of its own, with daemon and application side."""

    def __init__(self, directory: Path, port: int, **environment: str) -> None:
        self.state = directory / "state"
        self.port = port
        binaries = "CONTAINERSTACKS_BILLING_POSTGRES_BIN"
        clean = {
            # Of the same version as the one that the tests stop it with.
            **({binaries: os.environ[binaries]} if binaries in os.environ else {}),
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "CONTAINERSTACKS_BILLING_STATE": str(self.state),
            "http_proxy": "http://127.0.0.1:9",  # nothing listens there, and we ask nothing through it
            **environment,
        }
        self._said = ""
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            # Under nohup it is ignored in the tests, and `up` would inherit that.
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
            os.chdir(directory)
            os.execve(
                sys.executable,
                [sys.executable, "-m", "containerstacks_billing", "up", "--no-history", "--port", str(port)],
                clean,
            )

    def says(self, words: str) -> str:
        """Read until it has said this, and return all of it."""
        while words not in self._said:
            try:
                self._said += os.read(self.terminal, 65536).decode().replace("\r\n", "\n")
            except OSError:  # it has ended
                raise AssertionError(f"it never said {words!r}:\n{self._said}") from None
        return self._said

    def daemon(self) -> dict[str, Any] | None:
        """The health of the daemon, once it runs."""
        token = self.says("(for this session)").split("Sign in with")[1].split()[0]
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/api/health/billing-daemon",
            headers={"Authorization": f"Bearer {token}"},
        )
        return _running_daemon(request)

    def ended(self) -> int:
        """Wait until it has ended, and return its exit code."""
        _, status = eventually(lambda: (found := os.waitpid(self.pid, os.WNOHANG))[0] and found)
        return os.waitstatus_to_exitcode(status)


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    """A function that starts `up` at a free port or a given one; its server is stopped after the test."""
    started: list[Up] = []

    def start(port: int = 0, **environment: str) -> Up:
        started.append(Up(tmp_path, port or _free_port(), **environment))
        return started[-1]

    yield start
    for one in started:
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(one.pid, signal.SIGKILL)
            os.waitpid(one.pid, 0)
        EmbeddedServer(one.state).stop()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


RUNNING = "Daemon and application side are running"


def test_up_runs_daemon_and_status_page_until_it_is_stopped(up: Callable[..., Up]) -> None:
    """Both answer, the heartbeat is there; Ctrl-C ends them, and the server that was started for them."""
    one = up(PORT="3999")
    said = one.says(RUNNING)
    assert "PORT of the environment is not looked at here; --port is." in said
    health = eventually(one.daemon)
    assert 0 <= health["instancesBilled"]
    os.write(one.terminal, b"\x03")
    one.says("Stopping.")
    assert 0 == one.ended()
    assert not EmbeddedServer(one.state).status().running


def test_a_closed_terminal_stops_everything_too(up: Callable[..., Up]) -> None:
    """SIGHUP is a stop, though nobody can read the last words any more."""
    one = up()
    one.says(RUNNING)
    os.close(one.terminal)
    assert 0 == one.ended()
    assert not EmbeddedServer(one.state).status().running


def test_words_for_a_closed_terminal_hinder_nothing() -> None:
    """A write can fail before SIGHUP has been received; every other error of a write is one."""
    ours, theirs = pty.openpty()
    os.close(ours)
    with without_its_terminal():
        os.write(theirs, b"Stopping.")
    os.close(theirs)
    with pytest.raises(OSError, match="Bad file descriptor"), without_its_terminal():
        os.write(theirs, b"Stopping.")


def test_a_port_that_is_taken_is_refused(up: Callable[..., Up]) -> None:
    """A port that is taken is an error with what to do, and no token is shown for a page of another."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        one = up(taken.getsockname()[1])
        said = one.says("--port PORT")
        assert 1 == one.ended()
    assert "error: The application side cannot start: HOST and PORT cannot be listened on: 127.0.0.1" in said
    assert "Sign in with" not in said


def test_nohup_is_obeyed() -> None:
    """SIGHUP stays ignored where it was, as under nohup; elsewhere it is a stop with a code of its own."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible() as asked:
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGTERM)
            assert asked.stopping.wait(180)
        assert 143 == asked.exit_code
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with interruptible() as asked:
            os.kill(os.getpid(), signal.SIGHUP)
            assert asked.stopping.wait(180)
        assert 129 == asked.exit_code
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("serve", "problem"),
    [
        (
            lambda: _fail(ConfigurationError("The schema is of a later release.")),
            ": The schema is of a later release",
        ),
        (lambda: _fail(ZeroDivisionError("division by zero")), ": ZeroDivisionError"),
        (lambda: _fail(SystemExit(3)), ": SystemExit"),
        (lambda: None, ""),
    ],
)
def test_a_service_that_ends_early_says_why(serve: Callable[[], None], problem: str) -> None:
    """Whatever ended it, the caller is woken and gets one sentence."""
    ended = threading.Event()
    service = Service("daemon", serve, lambda: None, ended.set)
    service.start()
    assert ended.wait(180)
    service.stop()
    assert f"the daemon ended{problem}" == service.problem


def test_a_service_that_is_stopped_has_no_problem() -> None:
    """The end that was requested is none."""
    asked, ended = threading.Event(), threading.Event()
    service = Service("daemon", asked.wait, asked.set, ended.set)
    service.start()
    service.stop()
    assert (True, None) == (ended.is_set(), service.problem)


def _fail(error: BaseException) -> None:
    raise error


def _running_daemon(request: urllib.request.Request) -> dict[str, Any] | None:
    with urllib.request.urlopen(request, timeout=180) as answer:
        daemon: dict[str, Any] = json.load(answer)["daemon"]
    return daemon if daemon["status"] == "running" else None
