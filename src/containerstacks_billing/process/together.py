"""Daemon and application side as children of one command, for `up`: started together, stopped together.

They are processes of their own, as in production, so that what is tried here is what will run there. Each has a session
of its own: Ctrl-C reaches the parent alone, which then asks both to stop, the daemon first.
"""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from containerstacks_billing.billing.errors import WorkFailed

READY_SECONDS = 30
STOP_SECONDS = 60
_LOOK_SECONDS = 0.2


@dataclass(frozen=True)
class Child:
    """A verb that runs as a process, and the file that its log goes to."""

    verb: str
    process: subprocess.Popen[bytes]
    log: Path

    def problem(self) -> str | None:
        """Say that it ended, and with what last words; None while it runs."""
        if self.process.poll() is None:
            return None
        words = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        last = f": {words[-1]}" if words else ""
        return f"the {self.verb} ended with {self.process.returncode}{last}"


@contextmanager
def together(directory: Path, environment: Mapping[str, str], port: int) -> Iterator[list[Child]]:
    """Run `serve` and `daemon` until the block ends; raises WorkFailed when one does not come up.

    `directory` is private and holds no `.env`: they start in it, with nothing in their environment but what is given.
    """
    with ExitStack() as stack:
        children = [
            stack.enter_context(_running(verb, directory, environment)) for verb in ("serve", "daemon")
        ]
        _wait_until_ready(children, port)
        yield children


def wait_for_end(children: list[Child], stopping: threading.Event) -> str | None:
    """Return when somebody asks to stop, or with a sentence when a child has ended by itself."""
    while not stopping.wait(_LOOK_SECONDS):
        for child in children:
            if problem := child.problem():
                return problem
    return None


@contextmanager
def _running(verb: str, directory: Path, environment: Mapping[str, str]) -> Iterator[Child]:
    log = directory / f"{verb}.log"
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TZ") if name in os.environ}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "containerstacks_billing", verb],
            cwd=directory,
            env={**kept, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield Child(verb, process, log)
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(children: list[Child], port: int) -> None:
    waiting = threading.Event()
    for _ in range(int(READY_SECONDS / _LOOK_SECONDS)):
        for child in children:
            if problem := child.problem():
                raise WorkFailed(problem, f"its log is {child.log}")
        if _answers(port):
            return
        waiting.wait(_LOOK_SECONDS)
    raise WorkFailed(
        f"nothing answered at http://127.0.0.1:{port}/healthz within {READY_SECONDS} s",
        f"the logs are in {children[0].log.parent}",
    )


def _answers(port: int) -> bool:
    """Whether the application side is there; asked directly, whatever proxy the environment names."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
