"""Billing processes of a drill, which can be killed, stopped and disconnected.

Billing processes are forked from one that has everything loaded, so a dozen of them can die in the time in which one
would start; they call `run_billing` as a role of least privilege (least_privilege.py). The daemon is the command
itself. A process that was killed holds its lease for half a minute: the drill lets the lease lapse at once, as if that
time had passed.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, LiteralString, Self

import psycopg
from psycopg import sql

from containerstacks_billing.drill.environment import DrillEnvironment
from containerstacks_billing.identity import process_name

BATCH_SIZE = 12
# How a run may end for a biller whose connections are cut, whose server crashes, or who has a rival.
EXPECTED = {"LeaseLost", "LeaseNotObtained", "DatabaseUnavailable", "OutcomeUnknown", "LoginRefused"}
_SETTINGS = {
    "BILLING_BATCH_SIZE": str(BATCH_SIZE),
    "MAX_CATCH_UP_HOURS": "8784",
    "BRAKE_FACTOR": "1000",
    "LOG_FORMAT": "logfmt",
}
_LOOK_SECONDS = 0.02


def _bill(conninfo: str, trigger: str, wait_seconds: float, log: str) -> None:
    """Run billing once in its own process and log the result."""
    from decimal import Decimal

    from containerstacks_billing.charging.model import Terms
    from containerstacks_billing.charging.run import RunOrder, run_billing
    from containerstacks_billing.errors import BillingError

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Its log is of interest only for the cause of a finding.
    with Path(log).with_suffix(".err").open("a", encoding="utf-8") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    terms = Terms(max_catch_up_hours=8784, brake_factor=Decimal(1000))
    order = RunOrder(
        conninfo, terms, trigger, process_name(), batch_size=BATCH_SIZE, wait_seconds=wait_seconds
    )
    try:
        result = run_billing(order)
        said = {"outcome": result.outcome.value, "reason": result.error_message}
    except BillingError as error:
        said = {"outcome": type(error).__name__, "reason": str(error)}
    except Exception as error:  # noqa: BLE001 - of any kind: the drill has to report it
        said = {"outcome": "defect", "reason": f"{type(error).__name__}: {error}"}
    with Path(log).open("a", encoding="utf-8") as file:
        file.write(json.dumps(said) + "\n")


class Billers:
    """Starts billing processes and collects their results; remaining ones are killed at the end of the block."""

    def __init__(self, stage: DrillEnvironment) -> None:
        self._stage = stage
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(
            ["containerstacks_billing.drill.processes", "containerstacks_billing.charging.run"]
        )
        self._log = stage.directory / "billers.log"
        self._living: list[BaseProcess] = []
        self._pause = threading.Event()
        self.daemon_log = stage.directory / "daemon.log"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._living:
            process.kill()
            process.join()

    def start(
        self, conninfo: str | None = None, *, trigger: str = "drill", wait_seconds: float = 60
    ) -> BaseProcess:
        """Start a process that bills once, perhaps through a detour."""
        process = self._context.Process(
            target=_bill,
            args=(conninfo or self._stage.billing, trigger, wait_seconds, str(self._log)),
            daemon=True,
        )
        process.start()
        self._living = [one for one in self._living if one.is_alive()] + [process]
        return process

    def said(self) -> list[dict[str, Any]]:
        """Return what the billers that came to their end said."""
        with suppress(FileNotFoundError):
            return [json.loads(line) for line in self._log.read_text(encoding="utf-8").splitlines()]
        return []

    @contextmanager
    def daemon(self) -> Iterator[subprocess.Popen[bytes]]:
        """Start the daemon, as systemd would; it is killed at the end of the block if it still runs."""
        with self.daemon_log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "containerstacks_billing", "daemon", "--interval", "1"],
                cwd=self._stage.directory,
                env=self._stage.environment() | _SETTINGS,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def until(self, condition: Callable[[], Any], seconds: float) -> bool:
        """Wait until a condition holds; a database that is away counts as "not yet"."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with suppress(psycopg.OperationalError):
                if condition():
                    return True
            self._pause.wait(_LOOK_SECONDS)
        return False

    def pause(self, seconds: float) -> None:
        """Let a moment pass."""
        self._pause.wait(seconds)

    def let_lease_lapse(self) -> None:
        """Let the lease of a dead or stopped holder expire now."""
        with psycopg.connect(self._stage.conninfo, autocommit=True, connect_timeout=5) as conn:
            conn.execute("set lock_timeout = '20s'")
            conn.execute(
                "update billing_leases set expires_at = clock_timestamp() where expires_at > clock_timestamp()"
            )

    def count(self, condition: LiteralString, *, after: int = 0) -> int:
        """Count the runs that fulfil a condition, those with a greater number than `after`."""
        statement = sql.SQL("select count(*) from billing_runs where id > {} and ({})")
        return self._number(statement.format(after, sql.SQL(condition)))

    def last_run(self) -> int:
        """Return the number of the newest run."""
        return self._number(sql.SQL("select coalesce(max(id), 0) from billing_runs"))

    def _number(self, statement: sql.SQL | sql.Composed) -> int:
        with psycopg.connect(self._stage.conninfo, autocommit=True, connect_timeout=5) as conn:
            row = conn.execute(statement).fetchone()
        return int(row[0]) if row else 0
