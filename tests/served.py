"""The application side as a process of its own: `serve`, its address, and what it says of the daemon."""

from __future__ import annotations

import json
import os
import re
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.daemons import PATIENCE_SECONDS, eventually
from tests.forked import Forked, fork_server
from tests.web.client import ADMIN_TOKEN, DAEMON

Serve = Callable[..., "Served"]


class Served:
    """A running `serve`, its address and its log."""

    def __init__(self, process: Forked, address: str, log: Path) -> None:
        self.process = process
        self.address = address
        self._log = log

    def log(self) -> str:
        """What it has logged so far."""
        return self._log.read_text()

    def looks(self, decision: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait for a look that began after this call, and came to this decision."""
        asked = datetime.now(UTC)
        ends: set[datetime] = set()

        def looked() -> bool:
            said = self.daemon()["builtIn"]
            at = datetime.fromisoformat(said["lookedAt"]) if said["lookedAt"] else asked
            if at > asked and said["decision"] == decision:
                ends.add(at)
            # The first may have read before; the one after it began when that had ended.
            return len(ends) > 1

        eventually(looked, seconds)

    def daemon(self) -> dict[str, Any]:
        """Ask it for the health of the daemon."""
        request = urllib.request.Request(
            self.address + DAEMON, headers={"Authorization": f"Bearer {ADMIN_TOKEN}"}
        )
        with urllib.request.urlopen(request, timeout=180) as answer:
            body: dict[str, Any] = json.load(answer)["daemon"]
            return body

    def end(self, number: int) -> int:
        """Send it a signal; return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(180)


def serve(directory: Path, conninfo: str, started: list[Forked], **environment: str) -> Served:
    """Start `serve`, which looks ten times a second, and wait until it listens; the process is put into `started`."""
    log = directory / f"serve-{len(started)}.log"
    complete = {
        "PATH": os.environ["PATH"],
        "HOME": str(directory),
        "DATABASE_URL": conninfo,
        "ADMIN_TOKEN": ADMIN_TOKEN,
        "PORT": "0",
        **environment,
    }
    with log.open("wb") as errors:
        words = ["serve", "--check-seconds", "0.1"]
        process = fork_server().start(words, directory, complete, (0, 1, errors.fileno()))
    started.append(process)

    def address() -> str | None:
        found = re.search(r"address=(http://\S+)", log.read_text())
        assert found or process.poll() is None, f"it ended before it listened\n{log.read_text()}"
        return found[1] if found else None

    return Served(process, eventually(address), log)


def end(started: list[Forked]) -> None:
    """End the processes that remain after a test."""
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait(180)
