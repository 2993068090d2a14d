"""Environment of a round: its database, the proxies in front of it, the billers and their supervisor.

The supervisor restarts as systemd does: billers that were killed or stopped. A biller that exits by itself, or that
ignores SIGTERM, is a finding.
"""

from __future__ import annotations

import heapq
import itertools
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from tests.faultlab.campaign import roles
from tests.faultlab.campaign.fork_server import CONTRADICTION, UNFORESEEN
from tests.faultlab.campaign.processes import DurableServer, ForkServer
from tests.faultlab.campaign.schedule import Round

from containerstacks_billing.drill.commit_proxy import CommitProxy, Interesting, Where

BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
RUNS_AT_ONCE = 2
_RESPAWN_SECONDS = 0.06
_SECONDS_TO_STOP = 45.0
# What a command may answer under faults: done, failed, try again. Not: contradiction, unforeseen, wrong configuration.
_KNOWN_EXITS = {0, 1, 75}
_WORDS = {CONTRADICTION: "reported a broken invariant", UNFORESEEN: "raised an unexpected exception"}
_LINES_SHOWN = 12


@dataclass
class Biller:
    """A billing process, and whether its end was requested."""

    kind: str
    pid: int
    killed: bool = False
    stopped_at: float | None = None


class CommitCutter:
    """A proxy that cuts commits, with counts by kind of fault."""

    def __init__(self, proxy: CommitProxy) -> None:
        self.proxy = proxy
        self.fired: Counter[str] = Counter()
        self._kind, self._counted = "", 0

    def arm(self, kind: str, where: Where, times: int, interesting: Interesting, skip: int) -> None:
        """Cut the next commits; cuts that were armed before and did not fire are cancelled."""
        self.settle()
        self._kind = kind
        self.proxy.arm(where, times, interesting=interesting, skip=skip)

    def settle(self) -> Counter[str]:
        """Count the cuts since, and disarm."""
        self.proxy.disarm()
        self.fired[self._kind] += self.proxy.fired - self._counted
        self._counted = self.proxy.fired
        return self.fired


@dataclass
class Environment:
    """The processes, proxies and database of a round."""

    server: DurableServer
    fork_server: ForkServer
    directory: Path
    conninfo: str
    plan: Round
    cutters: dict[str, CommitCutter]
    host_clock: tuple[float, float, float]
    findings: list[str] = field(default_factory=list)
    starts: Counter[str] = field(default_factory=Counter)
    far_off: bool = False
    runs: list[Biller] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._later: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()
        self._admin: psycopg.Connection[Any] | None = None
        self._spawned_at = 0.0
        self.daemon = self.start("daemon")
        self.built_in = self.start("built-in")

    # Processes.

    def start(self, kind: str, **order: Any) -> Biller:
        """Start a biller with the role of least privilege, connected through the proxy of its kind."""
        settings = {
            "DATABASE_URL": self.cutters[kind].proxy.conninfo(roles.connect_as(roles.BILLING, self.conninfo)),
            "HEARTBEAT_SECONDS": "600",
            "BILLING_BATCH_SIZE": str(self.plan.batch_size),
            "BILLING_WORKERS": str(self.plan.workers),
            "PARTIAL_HOUR": self.plan.partial_hour,
            "LOG_LEVEL": "warning",
        }
        self.starts[kind] += 1
        pid = self.fork_server.spawn(
            kind, log=str(self.log(kind)), settings=settings, clock=self.host_clock, **order
        )
        return Biller(kind, pid)

    def log(self, kind: str) -> Path:
        """Log file of the billers of a kind."""
        return self.directory / f"{kind}.log"

    def supervise(self, more_runs: bool = True) -> None:
        """Check every biller once and restart those that ended."""
        self.daemon = self._restarted(self.daemon)
        self.built_in = self._restarted(self.built_in)
        for run in [run for run in self.runs if self.fork_server.status(run.pid) is not None]:
            self.runs.remove(run)
            self._check_exit(run, _KNOWN_EXITS)
        if (
            more_runs
            and len(self.runs) < RUNS_AT_ONCE
            and time.monotonic() - self._spawned_at > _RESPAWN_SECONDS
        ):
            self._spawned_at = time.monotonic()
            # Some wait for the lease, most end at once while another biller holds it.
            wait = (0.0, 0.0, 1.0)[self.starts["run"] % 3]
            self.runs.append(self.start("run", wait=wait))

    def _restarted(self, biller: Biller) -> Biller:
        if self.fork_server.status(biller.pid) is None:
            if biller.stopped_at and time.monotonic() - biller.stopped_at > _SECONDS_TO_STOP:
                self.found(
                    f"the {biller.kind} does not end {_SECONDS_TO_STOP:.0f} s after SIGTERM", biller.kind
                )
                self.end(biller)
                biller.killed = True
            return biller
        self._check_exit(biller, {0} if biller.stopped_at else set())
        return self.start(biller.kind)

    def _check_exit(self, biller: Biller, expected: set[int]) -> None:
        status = self.fork_server.status(biller.pid)
        if status is None or status in expected or (biller.killed and status == -signal.SIGKILL):
            return
        said = _WORDS.get(status, f"ended by itself with {status}")
        self.found(f"the {biller.kind} {said}", biller.kind)

    def end(self, biller: Biller) -> None:
        """Kill a biller with SIGKILL."""
        self.fork_server.signal(biller.pid, signal.SIGKILL)

    def found(self, sentence: str, kind: str = "") -> None:
        """Record a finding with the last log lines of its process."""
        log = self.log(kind) if kind else None
        last = log.read_text(errors="replace").splitlines()[-_LINES_SHOWN:] if log and log.exists() else []
        self.findings.append("\n".join([sentence, *(f"    {line}" for line in last)]))

    # Time.

    @staticmethod
    def now() -> float:
        """Monotonic seconds, the clock of the round."""
        return time.monotonic()

    def after(self, seconds: float, what: Callable[[], object]) -> None:
        """Schedule an action for later in the round, or for its end."""
        heapq.heappush(self._later, (time.monotonic() + seconds, next(self._numbers), what))

    def do_what_is_due(self, until: float) -> None:
        """Run the scheduled actions that are due."""
        while self._later and self._later[0][0] <= until:
            heapq.heappop(self._later)[2]()

    # The database, as the operator sees it.

    def execute(self, statement: LiteralString, *values: object) -> list[Any] | None:
        """Execute a statement; None when it failed or the database is away."""
        try:
            if self._admin is None or self._admin.closed:
                self._admin = psycopg.connect(self.conninfo, autocommit=True, application_name="operator")
                self._admin.execute("set lock_timeout = '400ms'")
            cursor = self._admin.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []
        except psycopg.Error:
            if self._admin is not None and self._admin.broken:
                self._admin.close()
            return None

    def close(self) -> None:
        """Close the operator's connection."""
        if self._admin is not None:
            self._admin.close()
