"""One drill: create the environment, start the workload, inject each kind of fault, and judge after each.

After a fault, workload and clock stand still, one run bills what is left, and then three judge: the oracle, which
has never seen the product; `verify`, which is part of it; and the billers, whether each came to an end that the faults
explain. So a finding is known by the act that brought it.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal

import psycopg

from containerstacks_billing.clock import Clock
from containerstacks_billing.drill import oracle
from containerstacks_billing.drill.environment import stage
from containerstacks_billing.drill.fake_clock import set_clock, start_clock
from containerstacks_billing.drill.faults import ACTS, Drill, FaultKind, inject
from containerstacks_billing.drill.fingerprint import Installed, installed
from containerstacks_billing.drill.least_privilege import admit_biller
from containerstacks_billing.drill.processes import EXPECTED, Billers
from containerstacks_billing.drill.workload import Workload, make_fleet
from containerstacks_billing.schema.migrator import migrate
from containerstacks_billing.verification.verify import verify

# An hour in two seconds. The clock begins long ago, for a database that is ahead of its host is held by the brake.
CLOCK_SPEED = 1800.0
_BEGINS = timedelta(days=400)
# A run may fail or be interrupted, for the next one charges what it left; it may never be held or end in a defect.
_EXPLAINED = EXPECTED | {"completed", "interrupted", "failed"}


@dataclass
class Report:
    """Report of a drill."""

    installed: Installed
    server: str
    embedded: bool
    seed: int
    owner_bills: str | None = None
    seconds: float = 0.0
    acts: list[str] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    crowd: Counter[str] = field(default_factory=Counter)
    runs: Counter[str] = field(default_factory=Counter)
    due: Decimal = Decimal(0)
    charged: Decimal = Decimal(0)
    twice: Decimal = Decimal(0)
    lost: Decimal = Decimal(0)
    wallets: int = 0
    drifts: int = 0
    checks: int = 0
    failed_checks: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    found_after: str | None = None

    @property
    def passed(self) -> bool:
        """Whether nothing was found."""
        return not self.findings


def run_drill(seed: int, seconds: float, tell: Callable[[str], None]) -> Report:
    """Drill the installed version for about so many seconds; `tell` hears what goes on, a line each.

    Raises ConfigurationError where there is no server to drill on, and what else keeps a drill from being one.
    """
    began = time.monotonic()
    tell("Setting the stage: a database of its own, a fleet, an oracle")
    with contextlib.ExitStack() as stack:
        set_up = stack.enter_context(stage())
        migrate(set_up.conninfo)
        set_up = admit_biller(set_up)
        billers = stack.enter_context(Billers(set_up))
        report = Report(
            installed(), set_up.server_version, set_up.server is not None, seed, set_up.owner_bills
        )
        with psycopg.connect(set_up.conninfo, autocommit=True) as conn:
            oracle.install(conn)
            start_clock(conn, Clock().host_time() - _BEGINS)
            make_fleet(conn)
            set_clock(conn, speed=CLOCK_SPEED)
        drill = Drill(set_up, billers, random.Random(seed))  # noqa: S311  (choices, not secrets)
        acts = [act for act in ACTS if report.embedded or not act.needs_own_server]
        with Workload(set_up.conninfo, seed + 1) as crowd:
            for act in acts:
                tell(act.title)
                report.acts.append(act.title)
                left = seconds - (time.monotonic() - began)
                inject(drill, act, max(0.0, left) * act.share / _shares_from(acts, act))
                with crowd.resting():
                    _judge(drill, report)
                if report.findings:
                    report.found_after = act.title
                    break
        report.faults, report.crowd = drill.done, Counter(dict(crowd.counts.most_common()))
    report.seconds = time.monotonic() - began
    return report


def _shares_from(acts: list[FaultKind], act: FaultKind) -> float:
    return sum(one.share for one in acts[acts.index(act) :])


def _judge(drill: Drill, report: Report) -> None:
    """Finish with one more run and collect the findings of all judges."""
    conninfo = drill.stage.conninfo
    with psycopg.connect(conninfo, autocommit=True) as conn:
        set_clock(conn, speed=0)
        before = drill.billers.last_run()
        began = time.monotonic()
        drill.finish(drill.billers.start(trigger="drill-rest"))
        drill.usual_seconds = min(max(time.monotonic() - began, 0.3), 5.0)
        if not drill.billers.count("trigger = 'drill-rest' and outcome = 'completed'", after=before):
            drill.problems.append("the run after the faults did not complete")
        verdict = oracle.judge(conn)
        books = verify(conninfo)
        row = conn.execute("select count(*) from wallets").fetchone()
        outcomes = conn.execute(
            "select coalesce(outcome, 'open'), count(*) from billing_runs group by 1"
        ).fetchall()
        set_clock(conn, speed=CLOCK_SPEED)
    report.due, report.charged, report.twice, report.lost = (
        verdict.due,
        verdict.charged,
        verdict.twice,
        verdict.lost,
    )
    report.drifts, report.wallets = len(verdict.drifts), row[0] if row else 0
    report.runs = Counter(dict(outcomes))
    report.checks = len(books.checks)
    report.failed_checks = [check.name for check in books.checks if not check.ok]
    report.findings = [
        *drill.problems,
        *_unexpected_ends(drill),
        *verdict.lines,
        *(f"verify, {one}" for one in books.discrepancies),
    ]


def _unexpected_ends(drill: Drill) -> list[str]:
    """Return the ends of billers that no injected fault explains."""
    return [
        f"a biller ended with {said['outcome']}: {said['reason']}"
        for said in drill.billers.said()
        if said["outcome"] not in _EXPLAINED
    ]
