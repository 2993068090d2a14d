"""Supervisor of the two processes of `up`: daemon and application side.

They are processes of their own, as in production, so that what is tried here is what will run there. Each has a session
of its own: Ctrl-C reaches the parent alone, which then stops both, the daemon first. Readiness is the notification that
systemd would get (NOTIFY_SOCKET), so that another program on the port is not taken for them. A process that fails is
restarted a bounded number of times.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from containerstacks_billing.daemon.signals import without_its_terminal
from containerstacks_billing.errors import EXIT_CONFIGURATION, EXIT_DONE, WorkFailed

READY_SECONDS = 60
STOP_SECONDS = 60
RESTARTS_AT_MOST = 3
_LOOK_SECONDS = 0.2
_NAMES = {"serve": "application side", "daemon": "daemon"}


class Child:
    """A verb that runs as a process, and the file that its log goes to."""

    def __init__(self, verb: str, directory: Path, environment: Mapping[str, str]) -> None:
        self.name, self.log, self.restarts = _NAMES[verb], directory / f"{verb}.log", 0
        self._verb, self._directory = verb, directory
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TZ") if name in os.environ}
        self._environment = {**kept, **environment}
        self.log.write_bytes(b"")
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "containerstacks_billing.cli.up_child", self._verb],
                cwd=self._directory,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def start_again(self) -> None:
        """Replace the process that has ended."""
        self._close()
        self.restarts += 1
        self.process = self._start()

    def may_be_started_again(self) -> bool:
        """Whether a restart may help: it neither ended well nor for its configuration, nor was restarted too often."""
        final = self.process.returncode in {EXIT_DONE, EXIT_CONFIGURATION}
        return not final and self.restarts < RESTARTS_AT_MOST

    def problem(self) -> str | None:
        """Return how it ended, as the beginning of a sentence; None while it runs."""
        code = self.process.poll()
        if code is None:
            return None
        if code < 0:
            return f"the {self.name} was ended by {signal.Signals(-code).name}"
        said = f": {words}" if code and (words := self._last_event()) else ""
        return f"the {self.name} ended with exit code {code}{said}"

    def _last_event(self) -> str:
        """Return the sentence of its last line, without what stands around it."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        found = re.search(r'event="((?:[^"\\]|\\.)*)"', lines[-1]) if lines else None
        return found[1].rstrip(".") if found else ""

    def stop(self) -> None:
        """Terminate it, after STOP_SECONDS by SIGKILL, and wait for its end."""
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._close()

    def _close(self) -> None:
        if self.process.stdin:
            self.process.stdin.close()


@contextmanager
def together(directory: Path, environment: Mapping[str, str], port: int) -> Iterator[list[Child]]:
    """Run `serve` and `daemon` until the block ends; raises WorkFailed when one does not come up.

    `directory` is private and holds no `.env`: they start in it, with nothing in their environment but what is given.
    """
    if os.environ.get("PORT", str(port)) != str(port):
        print("PORT of the environment is not looked at here; --port is.", file=sys.stderr)
    with ExitStack() as stack:
        # A short path, as that of a socket has to be; closed when both are ready, as later notifications are not read.
        ears = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="billing-up-")))
        started = []
        for verb in ("serve", "daemon"):
            ear = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            ear.bind(str(ears / verb))
            ear.settimeout(_LOOK_SECONDS)
            child = Child(verb, directory, {**environment, "NOTIFY_SOCKET": str(ears / verb)})
            stack.callback(child.stop)
            started.append((child, ear))
        for child, ear in started:
            _wait_until_ready(child, ear, port)
        for _, ear in started:
            ear.close()
        yield [child for child, _ in started]


def wait_for_end(children: list[Child], stopping: threading.Event) -> str | None:
    """Wait for the stop; return None, or a sentence when a child has ended that is not restarted."""
    while not stopping.wait(_LOOK_SECONDS):
        for child in children:
            problem = child.problem()
            if problem is None:
                continue
            if not child.may_be_started_again():
                return f"{problem}. Its log is {child.log}"
            with without_its_terminal():
                print(f"{problem[0].upper()}{problem[1:]}; it is started again.", file=sys.stderr)
            child.start_again()
    return None


def _wait_until_ready(child: Child, ear: socket.socket, port: int) -> None:
    until = time.monotonic() + READY_SECONDS
    hint = f"Its log is {child.log}"
    while time.monotonic() < until:
        try:
            if b"READY=1" in ear.recv(4096).split(b"\n"):
                return
        except TimeoutError:
            pass
        if problem := child.problem():
            if f"port {port}" in problem:
                hint = (
                    "Stop what listens there, or choose another port: containerstacks-billing up --port PORT"
                )
            raise WorkFailed(f"{problem[0].upper()}{problem[1:]}.", hint)
    raise WorkFailed(f"The {child.name} was not ready within {READY_SECONDS} s.", hint)
