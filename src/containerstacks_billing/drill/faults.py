"""Kinds of faults of a drill, injected one after the other."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from typing import LiteralString

from containerstacks_billing.drill.commit_proxy import CommitProxy, Where, every_commit
from containerstacks_billing.drill.environment import DrillEnvironment
from containerstacks_billing.drill.processes import Billers

_SECONDS_PER_RUN = 90.0
_CUTS: tuple[Where, ...] = ("before", "during", "after")
_MISSES = 50


@dataclass
class Drill:
    """State shared by the faults: environment, billers, random numbers, counts and problems.

    `times` counts how often the act under way hit; `usual_seconds` is how long a run takes here when nothing disturbs
    it.
    """

    stage: DrillEnvironment
    billers: Billers
    dice: random.Random
    done: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    times: int = 0
    usual_seconds: float = 1.0

    def finish(self, process: BaseProcess) -> None:
        """Wait until a biller exits."""
        process.join(_SECONDS_PER_RUN)
        if process.is_alive():
            self.problems.append(f"a run did not come to its end within {_SECONDS_PER_RUN:.0f} s")
            process.kill()
            process.join()


@dataclass(frozen=True)
class FaultKind:
    """One kind of fault: title, share of the time, injection, and minimum number of times."""

    title: str
    share: float
    once: Callable[[Drill], None]
    least: int = 1
    needs_own_server: bool = False


def inject(drill: Drill, act: FaultKind, seconds: float) -> None:
    """Inject one kind of fault repeatedly; an attempt that hit nothing is not counted."""
    until = time.monotonic() + seconds
    drill.times = misses = 0
    while not drill.problems and (drill.times < act.least or time.monotonic() < until):
        before = drill.done.total()
        act.once(drill)
        if drill.done.total() > before:
            drill.times += 1
        elif (misses := misses + 1) > _MISSES and drill.times < act.least:
            # Faults that were never done are no proof, so this is no PASS.
            drill.problems.append(f"{act.title}: there was nothing to hit in {misses} tries")


def _kill_a_biller(drill: Drill) -> None:
    biller = drill.billers.start()
    drill.billers.pause(drill.dice.uniform(0.0, drill.usual_seconds))
    if biller.is_alive():
        biller.kill()
        drill.done["billing processes killed with SIGKILL"] += 1
    else:
        drill.usual_seconds *= 0.8  # it was done by then: runs take less by now than the first did
    biller.join()
    drill.billers.let_lease_lapse()


def charges(statements: Sequence[str]) -> bool:
    """Return whether a transaction is that of a batch."""
    return any(statement.lstrip().startswith("insert into vps_billing_cycles") for statement in statements)


def _cut_commits(drill: Drill) -> None:
    with CommitProxy(drill.stage.host, drill.stage.port) as proxy:
        where = _CUTS[drill.times % len(_CUTS)]
        # Batches most of the time; now and then whatever else a run commits: lease, run, plan, runways.
        what = drill.dice.choice((charges, charges, charges, every_commit))
        proxy.arm(where, drill.dice.randint(2, 6), interesting=what, skip=drill.dice.randint(0, 6))
        drill.finish(drill.billers.start(proxy.conninfo(drill.stage.billing)))
        drill.done[f"connections cut {where} a COMMIT"] += proxy.fired
    drill.billers.let_lease_lapse()


def _two_at_once(drill: Drill) -> None:
    """Let a second biller take over the lease of a live one."""
    pair = [drill.billers.start(), drill.billers.start(trigger="drill-rival")]
    drill.billers.pause(drill.dice.uniform(0.1, drill.usual_seconds))
    drill.billers.let_lease_lapse()
    for one in pair:
        drill.finish(one)
    drill.done["leases taken from a biller that went on"] += 1


def _stop_past_the_lease(drill: Drill) -> None:
    """Stop a biller, let another bill, and continue the first after its lease expired."""
    frozen = drill.billers.start(trigger="drill-frozen")
    drill.billers.until(lambda: drill.billers.count("outcome is null and trigger = 'drill-frozen'"), 10)
    drill.billers.pause(drill.dice.uniform(0.0, drill.usual_seconds / 2))
    if frozen.pid is None or not frozen.is_alive():
        return drill.finish(frozen)
    os.kill(frozen.pid, signal.SIGSTOP)
    try:
        drill.billers.let_lease_lapse()
        drill.finish(drill.billers.start())
    finally:
        os.kill(frozen.pid, signal.SIGCONT)
    drill.finish(frozen)
    drill.done["billers stopped past their lease, and woken"] += 1
    return None


def _crash_the_server(drill: Drill) -> None:
    biller = drill.billers.start()
    drill.billers.pause(drill.dice.uniform(0.1, drill.usual_seconds))
    drill.stage.crash_server()
    drill.done["servers crashed and started again"] += 1
    drill.finish(biller)
    drill.billers.let_lease_lapse()


def _restart_the_daemon(drill: Drill) -> None:
    """Kill the daemon during a run, restart it, check that it bills, and stop it with SIGTERM."""
    with drill.billers.daemon() as daemon:
        if not _bills(drill, daemon, "outcome is null or batches > 0"):
            return
        drill.billers.pause(drill.dice.uniform(0.0, drill.usual_seconds / 2))
        daemon.kill()
        daemon.wait()
        drill.done["daemons killed with SIGKILL, and started again"] += 1
    drill.billers.let_lease_lapse()
    with drill.billers.daemon() as daemon:
        # SIGTERM arrives during its run: the run has to complete, and the process to end with 0.
        if not _bills(drill, daemon, "outcome is null or outcome = 'completed'"):
            return
        daemon.terminate()
        try:
            code = daemon.wait(_SECONDS_PER_RUN)
        except subprocess.TimeoutExpired:
            drill.problems.append(f"the daemon did not stop within {_SECONDS_PER_RUN:.0f} s of SIGTERM")
            return
        if code != 0:
            drill.problems.append(f"the daemon ended with {code} after SIGTERM, not with 0")
        drill.done["daemons stopped with SIGTERM during a run"] += 1
        if not drill.billers.count("id = (select max(id) from billing_runs) and outcome = 'completed'"):
            drill.problems.append("the daemon did not complete the run in which it was told to stop")


def _bills(drill: Drill, daemon: subprocess.Popen[bytes], condition: LiteralString) -> bool:
    """Wait until a started daemon bills; record a problem and return False when it does not."""
    since = drill.billers.last_run()

    def billing() -> bool:
        return daemon.poll() is not None or drill.billers.count(condition, after=since) > 0

    if drill.billers.until(billing, _SECONDS_PER_RUN) and daemon.poll() is None:
        return True
    said = drill.billers.daemon_log.read_text(errors="replace").strip().splitlines()[-1:]
    drill.problems.append(f"the daemon did not bill after its start: {' '.join(said)}")
    return False


ACTS = (
    FaultKind("Daemons are killed, started again and stopped", 0.2, _restart_the_daemon),
    FaultKind("Billing processes are killed at any moment", 0.25, _kill_a_biller, least=3),
    FaultKind("Connections are cut before, during and after COMMIT", 0.25, _cut_commits, least=3),
    FaultKind("Two billers bill at once", 0.1, _two_at_once),
    FaultKind("Billers are stopped past their lease, and woken", 0.1, _stop_past_the_lease),
    FaultKind("The server crashes during a run", 0.1, _crash_the_server, needs_own_server=True),
)
