"""The command as operators start it: a process of its own, in a directory and an environment of its own.

It is forked from a process that has imported the product, see `forked`, unless its environment has words for the
interpreter.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from tests import daemons
from tests import served as served_process
from tests.daemons import PATIENCE_SECONDS
from tests.forked import Forked, fork_server

Command = Callable[..., "subprocess.CompletedProcess[str]"]
# How the names of variables begin that an interpreter reads when it starts.
_FOR_THE_INTERPRETER = {"PYTHON", "LANG", "LC_ALL", "LC_CTY"}


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """A function that runs the command and returns its exit code and both outputs.

    It starts in `tmp_path`, with no settings in its environment but those given, and with a state directory inside, so
    that it can reach no database which the test did not name.
    """

    def run(
        *arguments: str, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        clean = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "LANG": "C.UTF-8",
            "CONTAINERSTACKS_BILLING_STATE": str(tmp_path / "state"),
        }
        complete = {**clean, **(environment or {})}
        if not _FOR_THE_INTERPRETER.intersection(name[:6] for name in environment or {}):
            return fork_server().run(arguments, tmp_path, complete, PATIENCE_SECONDS)
        return subprocess.run(
            [sys.executable, "-m", "containerstacks_billing", *arguments],
            cwd=tmp_path,
            env=complete,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )

    return run


@pytest.fixture
def on_terminal(tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """A function that runs the command on a terminal and returns its exit code and all that the terminal showed.

    `answer` is typed once the terminal shows a question, or sent where it is a signal.
    """

    def run(
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        columns: int = 80,
        answer: str | signal.Signals | None = None,
    ) -> tuple[int, str]:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        clean = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TERM": "xterm", "NO_COLOR": "1"}
        streams = (theirs, theirs, theirs)
        process = fork_server().start(arguments, tmp_path, {**clean, **(environment or {})}, streams)
        os.close(theirs)
        shown, answered = "", False
        while block := _read(ours):
            shown += block
            if answer is not None and not answered and "[y/N]: " in shown:
                answered = True
                if isinstance(answer, str):
                    os.write(ours, answer.encode())
                else:
                    process.send_signal(answer)
        os.close(ours)
        return process.wait(PATIENCE_SECONDS), re.sub(
            r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.replace("\r\n", "\n")
        )

    return run


def _read(terminal: int) -> str:
    """Return what a terminal shows next; nothing once it is closed."""
    try:
        return os.read(terminal, 65536).decode()
    except OSError:
        return ""


@pytest.fixture
def start(tmp_path: Path, database: str) -> Iterator[daemons.Start]:
    """A function that starts a daemon on `database`, or on another; what still lives after the test is killed."""
    started: list[daemons.Daemon] = []

    def begin(conninfo: str = database, speed: float = 1, **settings: str) -> daemons.Daemon:
        started.append(daemons.start(tmp_path, conninfo, speed, **settings))
        return started[-1]

    yield begin
    for daemon in started:
        if daemon.process.poll() is None:
            daemon.kill()


@pytest.fixture
def served(tmp_path: Path, database: str) -> Iterator[served_process.Serve]:
    """A function that starts `serve` on `database`, or on another, and waits until it listens."""
    started: list[Forked] = []
    directory = tmp_path / "served"
    directory.mkdir()

    def begin(**environment: str) -> served_process.Served:
        return served_process.serve(
            directory, environment.pop("DATABASE_URL", database), started, **environment
        )

    yield begin
    served_process.end(started)
