"""Client of the fork server, which starts and signals billers, and the database server of a campaign."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Self

from psycopg.conninfo import conninfo_to_dict
from tests.daemons import ROOT, eventually

from containerstacks_billing.sandbox.cleanup import living_postmaster
from containerstacks_billing.sandbox.server import EmbeddedServer

_ANSWER_SECONDS = 180.0


class ForkServer:
    """Client of the process that forks all billers of a campaign."""

    def __init__(self) -> None:
        environment = {name: text for name, text in os.environ.items() if not name.startswith("PG")}
        environment.pop("DATABASE_URL", None)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faultlab.campaign.fork_server"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._answers: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._ended: dict[int, int] = {}
        self._turn = threading.Lock()
        self._reader = threading.Thread(target=self._read, name="fork-server", daemon=True)
        self._reader.start()
        self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(_ANSWER_SECONDS)
        self._reader.join()
        self._process.stdout.close()

    def spawn(self, what: str, **order: Any) -> int:
        """Fork a biller and return its process id."""
        return int(self._ask({"spawn": what, **order})["spawned"])

    def signal(self, pid: int, number: signal.Signals) -> bool:
        """Send a signal; False when the process had ended."""
        return bool(self._ask({"signal": int(number), "pid": pid})["alive"])

    def status(self, pid: int) -> int | None:
        """The exit code, or minus the signal that ended it; None while it runs."""
        return self._ended.get(pid)

    def _ask(self, order: dict[str, Any]) -> dict[str, Any]:
        with self._turn:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
            return self._answer()

    def _answer(self) -> dict[str, Any]:
        answer = self._answers.get(timeout=_ANSWER_SECONDS)
        if answer is None:
            raise RuntimeError("the fork server has ended")
        return answer

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer = json.loads(line)
            if "ended" in answer:
                self._ended[answer["ended"]] = answer["status"]
            else:
                # The system reuses process ids, and a campaign is long enough for that.
                self._ended.pop(answer.get("spawned"), None)
                self._answers.put(answer)
        self._answers.put(None)


class DurableServer:
    """Private PostgreSQL server with durable commits."""

    def __init__(self, directory: Path) -> None:
        self._server = EmbeddedServer(
            directory,
            settings={
                "max_connections": "150",
                "autovacuum_naptime": "5s",
                "log_min_messages": "fatal",
                "shared_buffers": "64MB",
                # After a crash every file is brought to the disk: by one call for the file system, not one for each file.
                "recovery_init_sync_method": "syncfs",
            },
        )
        self._data = directory / "data"

    def start(self) -> str:
        """Start it, with recovery where that is needed; return the conninfo of its maintenance database."""
        return self._server.start()

    def conninfo(self, database: str) -> str:
        """Connection string of one of its databases."""
        return self._server.conninfo(database)

    def address(self) -> tuple[str, int]:
        """Its socket directory and port, for a proxy."""
        parameters = conninfo_to_dict(self._server.conninfo("postgres"))
        return str(parameters["host"]), int(str(parameters["port"]))

    def cut_off(self) -> None:
        """Crash it as `pg_ctl stop -m immediate` does: no checkpoint, every connection cut."""
        pid = living_postmaster(self._data)
        if pid is not None:
            os.kill(pid, signal.SIGQUIT)
            eventually(lambda: living_postmaster(self._data) is None)

    def stop(self) -> None:
        """Stop it for good."""
        self._server.stop()
