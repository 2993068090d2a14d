"""SIGKILL at every boundary of every statement of a run.

    python -m tests.faultlab.kills [--each N] [--seed S] [--minutes M]

A run over a busy fleet is traced. Its statements, those of opening and closing transactions and the
opening of connections are the boundaries, each three times: before it is sent, when it is sent and not answered, after
its answer. Then hour after hour a run is forked off this process and kills itself, with SIGKILL, at one of
them: the boundary with the fewest kills so far, at an occurrence drawn from the seed. Where that lies within the batches
the run is opened and planned here, and what is forked off and killed is its worker: that costs a third. What a killed
run leaves is left to the next, which is killed too. After every few kills the fleet is settled: what the host broke is repaired, one run
goes to its end, and then `verify` and the oracle must find nothing, and nothing may be missing.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import secrets
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field

import psycopg
from tests.campaign import throw_away_database
from tests.faultlab.busy_fleet import BusyFleet
from tests.faultlab.killed_process import copied, dies
from tests.faultlab.steps import Moment, watched

from containerstacks_billing import logs
from containerstacks_billing.charging import lease as leases
from containerstacks_billing.charging import run_record as runs
from containerstacks_billing.charging import worker
from containerstacks_billing.charging.charger import RunCharger
from containerstacks_billing.charging.run import charge_batches, run_billing
from containerstacks_billing.database.run_pool import RunPool
from containerstacks_billing.errors import BillingError

KILLS_PER_DATABASE = 120
KILLS_BEFORE_SETTLING = 20
HOURS_TRACED = 4

RENEWAL = "run: renew_lease"
Boundary = tuple[str, Moment]


@dataclass
class KillCounts:
    """Counts so far: kills at each boundary, runs that ended before they reached theirs, findings."""

    kills: Counter[Boundary] = field(default_factory=Counter)
    missed: Counter[Boundary] = field(default_factory=Counter)
    settled: int = 0
    findings: list[str] = field(default_factory=list)
    hours_charged: int = 0

    def next(self, boundaries: list[Boundary], dice: random.Random) -> Boundary:
        """Choose the boundary with the fewest attempts, so that one that is rarely reached does not block the rest."""
        fewest = min(self.attempts(one) for one in boundaries)
        return dice.choice([one for one in boundaries if self.attempts(one) == fewest])

    def attempts(self, one: Boundary) -> float:
        """Kills, and a little for each attempt that came to nothing."""
        return self.kills[one] + self.missed[one] / 10


def placed(name: str) -> str:
    """Prefix the name of an exchange by its thread: a batch, or the run around the batches."""
    return f"{'batch' if threading.current_thread().name.startswith('billing-worker') else 'run'}: {name}"


def trace(busy: BusyFleet, *, rough: bool) -> Counter[str]:
    """Count the exchanges of a run after such an hour, by name."""
    seen: Counter[str] = Counter()

    def note(name: str, moment: Moment) -> None:
        if moment is Moment.BEFORE:
            seen[placed(name)] += 1

    for _ in range(HOURS_TRACED):
        seen.clear()
        busy.hour(rough=rough)
        with watched(note):
            run_billing(busy.order())
    return seen


def kill(busy: BusyFleet, boundary: Boundary, occurrence: int) -> bool:
    """Fork a run that kills itself at this occurrence of the boundary; False when it ended before."""
    busy.expire_lease()
    doomed = _batches(busy) if boundary[0].startswith("batch") else lambda: run_billing(busy.order())
    return dies(lambda: _die_at(boundary, occurrence, doomed), f"a run at {boundary}", (BillingError,))


def _batches(busy: BusyFleet) -> Callable[[], object]:
    """Take the lease, open a run and plan it; return how to charge its batches."""
    order = busy.order()
    lease = leases.acquire(busy.conn, order.holder)
    run = runs.open_run(
        busy.conn, lease, order.terms, trigger="test", as_of=busy.fleet.now, host_clock=busy.fleet.now
    )
    batches = list(runs.plan_batches(busy.conn, run, order.batch_size))

    def charge() -> None:
        with RunPool(order.conninfo) as connections:
            # As in a run, one worker finds the connection that planned it and another has to open its own.
            with connections.connection():
                pass
            charge_batches(order, run, batches, threading.Event(), connections, RunCharger())

    return charge


def _die_at(boundary: Boundary, occurrence: int, doomed: Callable[[], object]) -> None:
    left = occurrence

    def tell(name: str, moment: Moment) -> None:
        nonlocal left
        if (placed(name), moment) == boundary:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    if boundary[0] == RENEWAL:
        leases.RENEW_SECONDS = 0.02  # type: ignore[assignment]
    with watched(tell):
        doomed()


def boundaries_of(seen: Counter[str]) -> list[Boundary]:
    """Name every boundary; a connection has none while it is being opened."""
    return [
        (name, moment)
        for name in sorted(seen)
        for moment in Moment
        if not (name.endswith(": connect") and moment is Moment.DURING)
    ]


def run_database(
    template: str, counts: KillCounts, seed: int, each: int, share: int, until: float
) -> list[Boundary]:
    """Kill runs over one fleet; return the boundaries that were traced."""
    dice = random.Random(seed)
    with copied(template) as copy, psycopg.connect(copy, autocommit=True) as conn:
        busy = BusyFleet(conn, seed)
        calm = trace(busy, rough=False) + Counter({RENEWAL: 1})
        seen = trace(busy, rough=True) | calm
        boundaries = boundaries_of(seen)[seed % share :: share]
        for number in range(1, KILLS_PER_DATABASE + 1):
            boundary = counts.next(boundaries, dice)
            done = counts.attempts(boundary) >= each or time.monotonic() > until
            if not done:
                busy.hour(rough=boundary[0] not in calm)
                dead = kill(busy, boundary, dice.randint(1, calm[boundary[0]] or seen[boundary[0]]))
                (counts.kills if dead else counts.missed)[boundary] += 1
            if done or number % KILLS_BEFORE_SETTLING == 0 or number == KILLS_PER_DATABASE:
                counts.settled += 1
                counts.findings += [f"seed {seed}, after kill {number}: {line}" for line in busy.settle()]
            if done or counts.findings:
                break
        counts.hours_charged += busy.hours_charged()
    return boundaries


def campaign(
    template: str, *, each: int, seed: int, minutes: float, share: int = 1
) -> tuple[KillCounts, list[Boundary]]:
    """Go on with fresh fleets until every boundary has its kills."""
    worker.LONGEST_PAUSE_SECONDS = 0.0
    logs.configure(stream=io.StringIO())  # the log of refused organizations is of no interest here
    counts, began = KillCounts(), time.monotonic()
    until = began + minutes * 60
    boundaries: list[Boundary] = []
    while not counts.findings and time.monotonic() < until:
        boundaries = sorted({*boundaries, *run_database(template, counts, seed, each, share, until)})
        killed = counts.kills.total()
        pace = killed / (time.monotonic() - began)
        print(f"{killed} kills, {pace:.1f} a second; next seed {seed + share}", file=sys.stderr)
        seed += share
        if min(counts.attempts(one) for one in boundaries) >= each:
            break
    return counts, boundaries


def main() -> int:
    """Kill, and report; 1 when something was found."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faultlab.kills", description=__doc__.splitlines()[0]
    )  # type: ignore[union-attr]
    parser.add_argument(
        "--share", type=int, default=1, help="only every n-th boundary, from one the seed chooses"
    )
    parser.add_argument("--each", type=int, default=1, help="kills at each boundary (default 1)")
    parser.add_argument(
        "--seed", type=int, default=secrets.randbelow(10**6), help="the seed of the first fleet"
    )
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so many minutes")
    parser.add_argument("--database", help="copy the databases from this migrated one")
    parser.add_argument("--json", action="store_true", help="report as one document")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with nullcontext(chosen.database) if chosen.database else throw_away_database() as database:
        counts, boundaries = campaign(
            database, each=chosen.each, seed=chosen.seed, minutes=chosen.minutes, share=chosen.share
        )
    names = sorted({name for name, _ in boundaries})
    of_name = {name: sum(counts.kills[name, moment] for moment in Moment) for name in names}
    report = {
        "kills": counts.kills.total(),
        "boundaries": len(boundaries),
        "statements": len(names),
        "leastAtABoundary": min(counts.kills[one] for one in boundaries),
        "leastAtAStatement": min(of_name.values()),
        "settled": counts.settled,
        "hoursCharged": counts.hours_charged,
        "missed": counts.missed.total(),
        "findings": counts.findings,
        "killsOfStatement": of_name,
        "neverKilledAt": [
            f"{name} ({moment})" for name, moment in boundaries if not counts.kills[name, moment]
        ],
    }
    print(json.dumps(report) if chosen.json else json.dumps(report, indent=1))
    return 1 if counts.findings else 0


if __name__ == "__main__":
    sys.exit(main())
