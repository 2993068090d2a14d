"""One round: a fleet, its crowd and its billers in a database of their own, the faults of a seed, and then rest.

At rest the daemon must bill once more by itself; then the clock stands still, last runs charge what is due, and the
oracle and `verify` judge.
"""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from random import Random

import psycopg
from tests.faultlab.campaign import crowd, roles, sabotage
from tests.faultlab.campaign.processes import Ground, Nursery
from tests.faultlab.campaign.schedule import Round
from tests.faultlab.campaign.stage import BEGIN, Biller, Scissors, Stage

from containerstacks_billing.charging.model import Outcome, Terms
from containerstacks_billing.charging.run import RunOrder, run_billing
from containerstacks_billing.drill import fake_clock as clock
from containerstacks_billing.drill import oracle
from containerstacks_billing.drill.commit_proxy import CommitProxy
from containerstacks_billing.errors import BillingError
from containerstacks_billing.verification.verify import verify

_TICK_SECONDS = 0.01
_OPERATOR_SECONDS = 0.5
_PATIENCE_SECONDS = 60.0
_LAST_RUNS = 12


@dataclass
class Report:
    """What became of a round."""

    seed: int
    seconds: float = 0.0
    armed: Counter[str] = field(default_factory=Counter)
    fired: Counter[str] = field(default_factory=Counter)
    crowd: Counter[str] = field(default_factory=Counter)
    crowd_errors: Counter[str] = field(default_factory=Counter)
    starts: Counter[str] = field(default_factory=Counter)
    runs: Counter[str] = field(default_factory=Counter)
    hours: Decimal = Decimal(0)
    twice: Decimal = Decimal(0)
    lost: Decimal = Decimal(0)
    drifts: int = 0
    findings: list[str] = field(default_factory=list)


def live(ground: Ground, nursery: Nursery, directory: Path, database: str, plan: Round) -> Report:
    """Live a round and return what became of it."""
    began, report = time.monotonic(), Report(plan.seed)
    conninfo = ground.conninfo(database)
    with ExitStack() as stack:
        _settle(conninfo, plan)
        address = ground.address()
        scissors = {
            who: Scissors(stack.enter_context(CommitProxy(*address))) for who in ("daemon", "built-in", "run")
        }
        host_clock = _let_time_pass(conninfo, plan)
        stage = Stage(ground, nursery, directory, conninfo, plan, scissors, host_clock)
        stack.callback(_clear, stage)
        people = crowd.Crowd(roles.connect_as(roles.HOST, conninfo), plan.seed)
        people.start()
        try:
            _suffer(stage, report)
        finally:
            people.leave()
        for one in scissors.values():
            report.fired.update(one.settle())
        _recover(stage)
        if not stage.findings:
            _end_billers(stage)
        if not stage.findings:
            _rest(stage)
        _judge(stage, report)
        report.crowd, report.crowd_errors, report.starts = people.done, people.errors, stage.starts
        report.findings += stage.findings + _refusals(stage, people)
    report.seconds = time.monotonic() - began
    return report


def _settle(conninfo: str, plan: Round) -> None:
    """Make the fleet and let a first run agree on the policy, so that it holds since ever."""
    with psycopg.connect(conninfo, autocommit=True) as conn:
        oracle.install(conn, partial_hour=plan.partial_hour)
        roles.admit_billing(conn)
        roles.admit_host(conn)
        clock.start_clock(conn, BEGIN)
        _bill(conninfo, plan, conn)
        crowd.settle(conn, plan.organizations, plan.instances, Random(plan.seed))


def _let_time_pass(conninfo: str, plan: Round) -> tuple[float, float, float]:
    speed = plan.hours_per_second * 3600
    with psycopg.connect(conninfo, autocommit=True) as conn:
        clock.set_clock(conn, speed=speed)
    return (time.time(), BEGIN.timestamp(), speed)


def _suffer(stage: Stage, report: Report) -> None:
    """Let the faults of the round happen, each at its time."""
    began, faults = time.monotonic(), list(stage.plan.faults)
    looked, pause = began, threading.Event()
    while (at := time.monotonic() - began) < stage.plan.seconds and not stage.findings:
        while faults and faults[0].at <= at:
            fault = faults.pop(0)
            is_cut = fault.kind.startswith("cut")
            report.armed[fault.kind] += fault.count if is_cut else 1
            report.fired[fault.kind] += sabotage.do(stage, fault)
            stage.supervise()
        stage.do_what_is_due(time.monotonic())
        stage.supervise()
        if not stage.far_off and time.monotonic() - looked > _OPERATOR_SECONDS:
            looked = time.monotonic()
            sabotage.release_holds(stage)
        pause.wait(_TICK_SECONDS)


def _recover(stage: Stage) -> None:
    """End the faults; whoever was not killed has to live, and the daemon has to bill by itself."""
    stage.do_what_is_due(float("inf"))
    until, pause = time.monotonic() + _PATIENCE_SECONDS, threading.Event()
    before = None
    while time.monotonic() < until:
        stage.do_what_is_due(time.monotonic())
        stage.supervise(more_runs=False)
        if stage.findings:
            return
        sabotage.release_holds(stage)
        if before is None:
            rows = stage.execute("select coalesce(max(id), 0) from billing_runs")
            before = rows[0][0] if rows else None
        elif not stage.runs and not stage.daemon.stopped_at:
            rows = stage.execute(
                "select true from billing_runs where id > %s and trigger = 'daemon' and outcome = 'completed'"
                " limit 1",
                before,
            )
            if rows:
                return
        pause.wait(0.03)
    left = ", ".join(f"run {run.pid}" for run in stage.runs)
    stage.found(
        f"{_PATIENCE_SECONDS:.0f} s after the last fault the daemon has completed no run"
        + (f"; still there: {left}" if left else ""),
        "daemon",
    )


def _end_billers(stage: Stage) -> None:
    """Stop daemon and built-in billing as a service manager does; both have to end with 0."""
    for biller in (stage.daemon, stage.built_in):
        stage.nursery.signal(biller.pid, signal.SIGTERM)
    until, pause = time.monotonic() + _PATIENCE_SECONDS, threading.Event()
    for biller in (stage.daemon, stage.built_in):
        while stage.nursery.status(biller.pid) is None and time.monotonic() < until:
            pause.wait(_TICK_SECONDS)
        status = stage.nursery.status(biller.pid)
        if status != 0:
            stage.found(f"the {biller.kind} answers SIGTERM with {status}", biller.kind)


def _rest(stage: Stage) -> None:
    """Stop the clock where it has come at most, so that nothing waits for a time taken back, and bill until nothing is due."""
    with psycopg.connect(stage.conninfo, autocommit=True) as conn:
        clock.set_clock(conn, at=clock.highest(conn), speed=0)
        crowd.confirm_prices(conn)
        for _ in range(_LAST_RUNS):
            sabotage.release_holds(stage)
            if said := _bill(stage.conninfo, stage.plan, conn):
                continue
            return
    stage.found(f"{_LAST_RUNS} last runs were not enough: {said}")


def _bill(conninfo: str, plan: Round, conn: psycopg.Connection[tuple[object, ...]]) -> str | None:
    """Bill now; None when nothing was left to do."""
    now, conninfo = clock.read_clock(conn), roles.connect_as(roles.BILLING, conninfo)
    terms = Terms(partial_hour=plan.partial_hour)
    try:
        result = run_billing(
            RunOrder(conninfo, terms, "test", "last-run", as_of=now, host_clock=now, wait_seconds=10)
        )
    except BillingError as error:
        return f"{type(error).__name__}: {error}"
    if result.outcome is not Outcome.COMPLETED:
        return f"{result.outcome}: {result.error_message}"
    return f"{result.hours} hours were left" if result.hours else None


def _judge(stage: Stage, report: Report) -> None:
    with psycopg.connect(stage.conninfo, autocommit=True) as conn:
        if not stage.findings:
            verdict = oracle.judge(conn)
            report.hours, report.twice, report.lost = verdict.charged, verdict.twice, verdict.lost
            report.drifts = len(verdict.drifts)
            stage.findings += [f"oracle: {line}" for line in verdict.lines]
            found = verify(stage.conninfo)
            stage.findings += [
                f"verify: {one.check}: {one.message} {one.identifiers}" for one in found.discrepancies
            ]
            if not found.ok and not found.discrepancies:
                stage.found("verify is not satisfied")
        rows = conn.execute(
            "select trigger || ' ' || coalesce(outcome, 'open'), count(*) from billing_runs group by 1"
        )
        report.runs.update(dict(rows.fetchall()))


def _refusals(stage: Stage, people: crowd.Crowd) -> list[str]:
    """Whoever lacked a right, and was not just disturbed by a fault."""
    lines = roles.refusals(stage.log(kind) for kind in stage.scissors)
    if refused := people.errors["InsufficientPrivilege"]:
        lines.append(f"the crowd lacked a right {refused} times")
    return [f"rights: {line}" for line in lines]


def _clear(stage: Stage) -> None:
    """Leave no process behind, whatever happened."""
    stage.do_what_is_due(float("inf"))
    billers: list[Biller] = [stage.daemon, stage.built_in, *stage.runs]
    for biller in billers:
        if stage.nursery.status(biller.pid) is None:
            stage.end(biller)
    stage.close()
