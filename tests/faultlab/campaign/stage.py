"""The stage of a round: its database, the proxies in front of it, the billers, and who starts them again.

The supervisor does what systemd does: it starts again what was killed, and what was asked to stop. A biller that ends
by itself, or that does not end when it is asked to, is a finding.
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
from tests.faultlab.campaign.processes import Ground, Nursery
from tests.faultlab.campaign.schedule import Round

from containerstacks_billing.drill.commit_proxy import CommitProxy, Interesting, Where

BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
RUNS_AT_ONCE = 2
_RESPAWN_SECONDS = 0.06
_SECONDS_TO_STOP = 45.0
# What a command may answer under faults: done, failed, try again. Not: contradiction, unforeseen, wrong configuration.
_KNOWN_EXITS = {0, 1, 75}
_WORDS = {CONTRADICTION: "found its books contradicted", UNFORESEEN: "raised what it does not name"}
_LINES_SHOWN = 12


@dataclass
class Biller:
    """A process, and whether its end was asked for."""

    kind: str
    pid: int
    killed: bool = False
    stopped_at: float | None = None


class Scissors:
    """A proxy, and which kind of fault its cuts are counted for."""

    def __init__(self, proxy: CommitProxy) -> None:
        self.proxy = proxy
        self.fired: Counter[str] = Counter()
        self._kind, self._counted = "", 0

    def arm(self, kind: str, where: Where, times: int, interesting: Interesting, skip: int) -> None:
        """Cut the next commits; what was armed before and did not fire is forgotten."""
        self.settle()
        self._kind = kind
        self.proxy.arm(where, times, interesting=interesting, skip=skip)

    def settle(self) -> Counter[str]:
        """Count what fired since, and arm nothing."""
        self.proxy.disarm()
        self.fired[self._kind] += self.proxy.fired - self._counted
        self._counted = self.proxy.fired
        return self.fired


@dataclass
class Stage:
    """What faults act upon."""

    ground: Ground
    nursery: Nursery
    directory: Path
    conninfo: str
    plan: Round
    scissors: dict[str, Scissors]
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
        """Start a biller, a role of least privilege that finds the database behind the proxy of its kind."""
        settings = {
            "DATABASE_URL": self.scissors[kind].proxy.conninfo(
                roles.connect_as(roles.BILLING, self.conninfo)
            ),
            "HEARTBEAT_SECONDS": "600",
            "BILLING_BATCH_SIZE": str(self.plan.batch_size),
            "BILLING_WORKERS": str(self.plan.workers),
            "PARTIAL_HOUR": self.plan.partial_hour,
            "LOG_LEVEL": "warning",
        }
        self.starts[kind] += 1
        pid = self.nursery.spawn(
            kind, log=str(self.log(kind)), settings=settings, clock=self.host_clock, **order
        )
        return Biller(kind, pid)

    def log(self, kind: str) -> Path:
        """Where billers of a kind write what they have to say."""
        return self.directory / f"{kind}.log"

    def supervise(self, more_runs: bool = True) -> None:
        """Look after everybody once."""
        self.daemon = self._looked_after(self.daemon)
        self.built_in = self._looked_after(self.built_in)
        for run in [run for run in self.runs if self.nursery.status(run.pid) is not None]:
            self.runs.remove(run)
            self._look_at_the_end(run, _KNOWN_EXITS)
        if (
            more_runs
            and len(self.runs) < RUNS_AT_ONCE
            and time.monotonic() - self._spawned_at > _RESPAWN_SECONDS
        ):
            self._spawned_at = time.monotonic()
            # Some wait for the lease, most leave at once when somebody else bills.
            wait = (0.0, 0.0, 1.0)[self.starts["run"] % 3]
            self.runs.append(self.start("run", wait=wait))

    def _looked_after(self, biller: Biller) -> Biller:
        if self.nursery.status(biller.pid) is None:
            if biller.stopped_at and time.monotonic() - biller.stopped_at > _SECONDS_TO_STOP:
                self.found(
                    f"the {biller.kind} does not end {_SECONDS_TO_STOP:.0f} s after SIGTERM", biller.kind
                )
                self.end(biller)
                biller.killed = True
            return biller
        self._look_at_the_end(biller, {0} if biller.stopped_at else set())
        return self.start(biller.kind)

    def _look_at_the_end(self, biller: Biller, expected: set[int]) -> None:
        status = self.nursery.status(biller.pid)
        if status is None or status in expected or (biller.killed and status == -signal.SIGKILL):
            return
        said = _WORDS.get(status, f"ended by itself with {status}")
        self.found(f"the {biller.kind} {said}", biller.kind)

    def end(self, biller: Biller) -> None:
        """End a process without a word, whatever it does."""
        self.nursery.signal(biller.pid, signal.SIGKILL)

    def found(self, sentence: str, kind: str = "") -> None:
        """Keep a finding, with the last words of the process that it is about."""
        log = self.log(kind) if kind else None
        last = log.read_text(errors="replace").splitlines()[-_LINES_SHOWN:] if log and log.exists() else []
        self.findings.append("\n".join([sentence, *(f"    {line}" for line in last)]))

    # Time.

    @staticmethod
    def now() -> float:
        """The time by which the round is lived."""
        return time.monotonic()

    def after(self, seconds: float, what: Callable[[], object]) -> None:
        """Do something later in the round, or at its end."""
        heapq.heappush(self._later, (time.monotonic() + seconds, next(self._numbers), what))

    def do_what_is_due(self, until: float) -> None:
        """Do what was to be done by now."""
        while self._later and self._later[0][0] <= until:
            heapq.heappop(self._later)[2]()

    # The database, by the side of the operator.

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
        """Let go of the database."""
        if self._admin is not None:
            self._admin.close()
