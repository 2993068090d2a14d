"""Every commit of a run is cut before, during and after it.

    python -m tests.faultlab.cuts [--each N] [--seed S] [--minutes M]

A run over a busy fleet is traced through the proxy; its commits, single statements that commit by themselves
included, are the commits to cut, named by their last statement. Then hour after hour a run
meets the cut that happened least often so far, at an occurrence drawn from the seed; commits of batches are cut three
times in a row. The process survives: it ends its run, or raises a documented error. A batch whose commit was cut is
derived again from the rows by the same run. After every few runs the fleet is settled, and `verify` and the oracle must
find nothing.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import re
import secrets
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from functools import cache

import psycopg
from tests.campaign import throw_away_database
from tests.faultlab.busy_fleet import BusyFleet
from tests.faultlab.killed_process import copied
from tests.faultlab.kills import KillCounts

from containerstacks_billing import logs
from containerstacks_billing.charging import lease as leases
from containerstacks_billing.charging import worker
from containerstacks_billing.charging.model import Outcome
from containerstacks_billing.charging.run import run_billing
from containerstacks_billing.database import statements as queries
from containerstacks_billing.drill.commit_proxy import CommitProxy, Where
from containerstacks_billing.errors import BillingError, DatabaseUnavailable, OutcomeUnknown

WAYS: tuple[Where, ...] = ("before", "during", "after")
RUNS_PER_DATABASE = 90
RUNS_BEFORE_SETTLING = 15
HOURS_TRACED = 4
RENEWAL, BATCH = "renew_lease", "record_batch"
CUTS_OF_A_BATCH = 3

Cut = tuple[str, str]


@cache
def _names() -> dict[str, str]:
    """Statements as the server gets them, and their names."""

    def numbered(text: str) -> str:
        numbers: dict[str, int] = {}
        bound = re.sub(r"%\((\w+)\)s", lambda m: f"${numbers.setdefault(m[1], len(numbers) + 1)}", text)
        return bound.replace("%%", "%")

    return {numbered(queries.query(name)): name for name in queries._sections()["name"]}


def named(statements: Sequence[str]) -> str:
    """Name a transaction by its last statement that has a name."""
    found = [_names()[text] for text in statements if text in _names()]
    return found[-1] if found else "reading of the schema"


class Cutting:
    """A busy fleet, and the proxy through which it is billed."""

    def __init__(self, busy: BusyFleet) -> None:
        self.busy = busy
        self.proxy = CommitProxy(busy.conn.info.host, busy.conn.info.port)

    def bill(self) -> Outcome | BillingError:
        """Bill through the proxy; return the outcome or the error."""
        try:
            return run_billing(
                self.busy.order(conninfo=self.proxy.conninfo(self.busy.fleet.conninfo))
            ).outcome
        except BillingError as error:
            return error

    def trace(self, *, rough: bool) -> Counter[str]:
        """Count the commits of a run after such an hour, by name."""
        seen: Counter[str] = Counter()

        def note(statements: Sequence[str]) -> bool:
            seen[named(statements)] += 1
            return False

        for _ in range(HOURS_TRACED):
            seen.clear()
            self.busy.hour(rough=rough)
            self.proxy.arm("before", interesting=note)
            self.bill()
        self.proxy.disarm()
        return seen

    def cut(self, name: str, where: Where, occurrence: int) -> tuple[int, str | None]:
        """Bill and cut these commits; return how many were cut, and what was wrong with how it ended."""
        self.busy.expire_lease()
        fired = self.proxy.fired
        times = CUTS_OF_A_BATCH if name == BATCH else 1
        self.proxy.arm(
            where, times, interesting=lambda statements: named(statements) == name, skip=occurrence - 1
        )
        usual = leases.RENEW_SECONDS
        leases.RENEW_SECONDS = 0.01 if name == RENEWAL else usual  # type: ignore[assignment]
        try:
            end = self.bill()
        finally:
            leases.RENEW_SECONDS = usual  # type: ignore[assignment]
            self.proxy.disarm()
        is_expected = end is Outcome.COMPLETED or end is Outcome.FAILED
        if name not in {BATCH, RENEWAL} and isinstance(end, DatabaseUnavailable | OutcomeUnknown):
            is_expected = True
        return (
            self.proxy.fired - fired,
            None if is_expected else f"{name} cut {where}: the run ended with {end!r}",
        )


def run_database(template: str, counts: KillCounts, seed: int, each: int, until: float) -> list[Cut]:
    """Cut commits of one fleet; return every cut that is possible."""
    dice = random.Random(seed)
    with copied(template) as copy, psycopg.connect(copy, autocommit=True) as conn:
        cutting = Cutting(BusyFleet(conn, seed))
        with cutting.proxy:
            calm = cutting.trace(rough=False) + Counter({RENEWAL: 1})
            seen = cutting.trace(rough=True) | calm
            cuts: list[Cut] = [(name, where) for name in sorted(seen) for where in WAYS]
            for number in range(1, RUNS_PER_DATABASE + 1):
                name, where = chosen = counts.next(cuts, dice)  # type: ignore[arg-type]
                done = counts.attempts(chosen) >= each or time.monotonic() > until
                if not done:
                    cutting.busy.hour(rough=name not in calm)
                    fired, wrong = cutting.cut(name, where, dice.randint(1, calm[name] or seen[name]))  # type: ignore[arg-type]
                    counts.kills[chosen] += fired
                    counts.missed[chosen] += not fired
                    counts.findings += [f"seed {seed}, run {number}: {wrong}"] if wrong else []
                if done or number % RUNS_BEFORE_SETTLING == 0 or number == RUNS_PER_DATABASE:
                    counts.settled += 1
                    counts.findings += [
                        f"seed {seed}, after run {number}: {line}" for line in cutting.busy.settle()
                    ]
                if done or counts.findings:
                    break
        counts.hours_charged += cutting.busy.hours_charged()
    return cuts


def campaign(template: str, *, each: int, seed: int, minutes: float) -> tuple[KillCounts, list[Cut]]:
    """Go on with fresh fleets until every commit was cut often enough."""
    worker.LONGEST_PAUSE_SECONDS = 0.0
    logs.configure(stream=io.StringIO())
    counts, began, cuts = KillCounts(), time.monotonic(), list[Cut]()
    while not counts.findings and time.monotonic() < began + minutes * 60:
        cuts = sorted({*cuts, *run_database(template, counts, seed, each, began + minutes * 60)})
        pace = counts.kills.total() / (time.monotonic() - began)
        print(f"{counts.kills.total()} cuts, {pace:.1f} a second; next seed {seed + 1}", file=sys.stderr)
        seed += 1
        if min(counts.attempts(one) for one in cuts) >= each:  # type: ignore[arg-type]
            break
    return counts, cuts


def main() -> int:
    """Cut, and report; 1 when something was found."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faultlab.cuts", description="Every commit cut three ways."
    )
    parser.add_argument(
        "--each", type=int, default=1, help="how often each commit is cut each way (default 1)"
    )
    parser.add_argument(
        "--seed", type=int, default=secrets.randbelow(10**6), help="the seed of the first fleet"
    )
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so many minutes")
    parser.add_argument("--database", help="copy the databases from this migrated one")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with nullcontext(chosen.database) if chosen.database else throw_away_database() as database:
        counts, cuts = campaign(database, each=chosen.each, seed=chosen.seed, minutes=chosen.minutes)
    report = {
        "cuts": counts.kills.total(),
        "ways": {
            way: sum(count for (_, where), count in counts.kills.items() if where == way) for way in WAYS
        },
        "commits": len({name for name, _ in cuts}),
        "leastOfACommitAndWay": min(counts.kills[one] for one in cuts),  # type: ignore[index]
        "settled": counts.settled,
        "hoursCharged": counts.hours_charged,
        "findings": counts.findings,
        "cutsOfCommit": {name: sum(counts.kills[name, way] for way in WAYS) for name, _ in cuts},  # type: ignore[index]
        "neverCut": [f"{name} ({where})" for name, where in cuts if not counts.kills[name, where]],  # type: ignore[index]
    }
    print(json.dumps(report, indent=1))
    return 1 if counts.findings else 0


if __name__ == "__main__":
    sys.exit(main())
