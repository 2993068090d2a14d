"""One round of the fault campaign: fleet, host workload and billers in a fresh database, faults of a seed, judgement.

After the faults the daemon must complete a run by itself; then the clock is stopped, last runs charge what is due, and
the oracle and `verify` judge.
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
from tests.faultlab.campaign import injection, roles, workload
from tests.faultlab.campaign.environment import BEGIN, Biller, CommitCutter, Environment
from tests.faultlab.campaign.processes import DurableServer, ForkServer
from tests.faultlab.campaign.schedule import Round

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
    """Result of a round: faults, starts and runs by kind, hours, findings."""

    seed: int
    seconds: float = 0.0
    armed: Counter[str] = field(default_factory=Counter)
    fired: Counter[str] = field(default_factory=Counter)
    workload: Counter[str] = field(default_factory=Counter)
    workload_errors: Counter[str] = field(default_factory=Counter)
    starts: Counter[str] = field(default_factory=Counter)
    runs: Counter[str] = field(default_factory=Counter)
    hours: Decimal = Decimal(0)
    twice: Decimal = Decimal(0)
    lost: Decimal = Decimal(0)
    drifts: int = 0
    findings: list[str] = field(default_factory=list)


def run_round(
    server: DurableServer, fork_server: ForkServer, directory: Path, database: str, plan: Round
) -> Report:
    """Run a round and return its report."""
    began, report = time.monotonic(), Report(plan.seed)
    conninfo = server.conninfo(database)
    with ExitStack() as stack:
        _set_up(conninfo, plan)
        address = server.address()
        cutters = {
            who: CommitCutter(stack.enter_context(CommitProxy(*address)))
            for who in ("daemon", "built-in", "run")
        }
        host_clock = _start_clock(conninfo, plan)
        environment = Environment(server, fork_server, directory, conninfo, plan, cutters, host_clock)
        stack.callback(_clean_up, environment)
        host = workload.HostWorkload(roles.connect_as(roles.HOST, conninfo), plan.seed)
        host.start()
        try:
            _inject_faults(environment, report)
        finally:
            host.stop()
        for one in cutters.values():
            report.fired.update(one.settle())
        _recover(environment)
        if not environment.findings:
            _end_billers(environment)
        if not environment.findings:
            _drain(environment)
        _judge(environment, report)
        report.workload, report.workload_errors, report.starts = host.done, host.errors, environment.starts
        report.findings += environment.findings + _missing_rights(environment, host)
    report.seconds = time.monotonic() - began
    return report


def _set_up(conninfo: str, plan: Round) -> None:
    """Create the fleet after a first run has recorded the billing policy, so that the policy covers all of it."""
    with psycopg.connect(conninfo, autocommit=True) as conn:
        oracle.install(conn, partial_hour=plan.partial_hour)
        roles.admit_billing(conn)
        roles.admit_host(conn)
        clock.start_clock(conn, BEGIN)
        _bill(conninfo, plan, conn)
        workload.settle(conn, plan.organizations, plan.instances, Random(plan.seed))


def _start_clock(conninfo: str, plan: Round) -> tuple[float, float, float]:
    speed = plan.hours_per_second * 3600
    with psycopg.connect(conninfo, autocommit=True) as conn:
        clock.set_clock(conn, speed=speed)
    return (time.time(), BEGIN.timestamp(), speed)


def _inject_faults(environment: Environment, report: Report) -> None:
    """Inject the faults of the round, each at its time."""
    began, faults = time.monotonic(), list(environment.plan.faults)
    looked, pause = began, threading.Event()
    while (at := time.monotonic() - began) < environment.plan.seconds and not environment.findings:
        while faults and faults[0].at <= at:
            fault = faults.pop(0)
            is_cut = fault.kind.startswith("cut")
            report.armed[fault.kind] += fault.count if is_cut else 1
            report.fired[fault.kind] += injection.inject(environment, fault)
            environment.supervise()
        environment.do_what_is_due(time.monotonic())
        environment.supervise()
        if not environment.far_off and time.monotonic() - looked > _OPERATOR_SECONDS:
            looked = time.monotonic()
            injection.release_holds(environment)
        pause.wait(_TICK_SECONDS)


def _recover(environment: Environment) -> None:
    """End the faults; the surviving billers must run on, and the daemon must complete a run."""
    environment.do_what_is_due(float("inf"))
    until, pause = time.monotonic() + _PATIENCE_SECONDS, threading.Event()
    before = None
    while time.monotonic() < until:
        environment.do_what_is_due(time.monotonic())
        environment.supervise(more_runs=False)
        if environment.findings:
            return
        injection.release_holds(environment)
        if before is None:
            rows = environment.execute("select coalesce(max(id), 0) from billing_runs")
            before = rows[0][0] if rows else None
        elif not environment.runs and not environment.daemon.stopped_at:
            rows = environment.execute(
                "select true from billing_runs where id > %s and trigger = 'daemon' and outcome = 'completed'"
                " limit 1",
                before,
            )
            if rows:
                return
        pause.wait(0.03)
    left = ", ".join(f"run {run.pid}" for run in environment.runs)
    environment.found(
        f"{_PATIENCE_SECONDS:.0f} s after the last fault the daemon has completed no run"
        + (f"; still there: {left}" if left else ""),
        "daemon",
    )


def _end_billers(environment: Environment) -> None:
    """Stop daemon and built-in billing with SIGTERM; both must exit with 0."""
    for biller in (environment.daemon, environment.built_in):
        environment.fork_server.signal(biller.pid, signal.SIGTERM)
    until, pause = time.monotonic() + _PATIENCE_SECONDS, threading.Event()
    for biller in (environment.daemon, environment.built_in):
        while environment.fork_server.status(biller.pid) is None and time.monotonic() < until:
            pause.wait(_TICK_SECONDS)
        status = environment.fork_server.status(biller.pid)
        if status != 0:
            environment.found(f"the {biller.kind} answers SIGTERM with {status}", biller.kind)


def _drain(environment: Environment) -> None:
    """Stop the clock at its highest reading, so that nothing waits for time that was set back; bill until nothing is due."""
    with psycopg.connect(environment.conninfo, autocommit=True) as conn:
        clock.set_clock(conn, at=clock.highest(conn), speed=0)
        workload.confirm_prices(conn)
        for _ in range(_LAST_RUNS):
            injection.release_holds(environment)
            if said := _bill(environment.conninfo, environment.plan, conn):
                continue
            return
    environment.found(f"{_LAST_RUNS} last runs were not enough: {said}")


def _bill(conninfo: str, plan: Round, conn: psycopg.Connection[tuple[object, ...]]) -> str | None:
    """Bill now; None when nothing was left to do."""
    now, conninfo = clock.read_clock(conn), roles.connect_as(roles.BILLING, conninfo)
    terms = Terms(partial_hour=plan.partial_hour)
    try:
        result = run_billing(
            RunOrder(conninfo, terms, "test", "last-run", as_of=now, host_clock=lambda: now, wait_seconds=10)
        )
    except BillingError as error:
        return f"{type(error).__name__}: {error}"
    if result.outcome is not Outcome.COMPLETED:
        return f"{result.outcome}: {result.error_message}"
    return f"{result.hours} hours were left" if result.hours else None


def _judge(environment: Environment, report: Report) -> None:
    with psycopg.connect(environment.conninfo, autocommit=True) as conn:
        if not environment.findings:
            verdict = oracle.judge(conn)
            report.hours, report.twice, report.lost = verdict.charged, verdict.twice, verdict.lost
            report.drifts = len(verdict.drifts)
            environment.findings += [f"oracle: {line}" for line in verdict.lines]
            found = verify(environment.conninfo)
            environment.findings += [
                f"verify: {one.check}: {one.message} {one.identifiers}" for one in found.discrepancies
            ]
            if not found.ok and not found.discrepancies:
                environment.found("verify is not satisfied")
        rows = conn.execute(
            "select trigger || ' ' || coalesce(outcome, 'open'), count(*) from billing_runs group by 1"
        )
        report.runs.update(dict(rows.fetchall()))


def _missing_rights(environment: Environment, host: workload.HostWorkload) -> list[str]:
    """Missing rights of billers and host; no fault explains those."""
    lines = roles.missing_rights(environment.log(kind) for kind in environment.cutters)
    if refused := host.errors["InsufficientPrivilege"]:
        lines.append(f"the host lacked a right {refused} times")
    return [f"rights: {line}" for line in lines]


def _clean_up(environment: Environment) -> None:
    """Kill the remaining processes and close the connection."""
    environment.do_what_is_due(float("inf"))
    billers: list[Biller] = [environment.daemon, environment.built_in, *environment.runs]
    for biller in billers:
        if environment.fork_server.status(biller.pid) is None:
            environment.end(biller)
    environment.close()
