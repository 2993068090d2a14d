"""SIGKILL and cut commits inside reversals, credits, their undo and the settlement of discrepancies.

    python -m tests.faultlab.order_attacks [--kills N] [--cuts N] [--seed S]

Hour after hour a busy fleet is billed and one of these is begun: it kills itself at an exchange with the server that is drawn
from the seed, or loses the connection at a commit, before, during or after it. What the host does meanwhile, a top-up and a
run, comes in between. Then the same command is given again to its end, and once more, when there must be nothing left to
do; the books are proved after every few attacks, and no hour of an order may have been adjusted twice.
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
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal

import psycopg
from tests.campaign import throw_away_database
from tests.faultlab.busy_fleet import BusyFleet
from tests.faultlab.killed_process import copied, dies
from tests.faultlab.steps import Moment, watched

from containerstacks_billing import logs
from containerstacks_billing.adjustments.model import Mode, Order, OrderKind, Scope
from containerstacks_billing.adjustments.orders import post_order
from containerstacks_billing.charging.run import run_billing
from containerstacks_billing.drill.commit_proxy import CommitProxy, Where
from containerstacks_billing.errors import BillingError
from containerstacks_billing.reconciliation.model import Action
from containerstacks_billing.reconciliation.reconcile import Settlement, settle
from containerstacks_billing.verification.verify import verify

ATTACKS_PER_DATABASE = 100
ATTACKS_BEFORE_PROOF = 5
WAYS: tuple[Where, ...] = ("before", "during", "after")
# The same work on a given database; it returns how many rows it wrote.
Work = Callable[[str], int]


@dataclass
class Attacks:
    """What was done so far, by kind of work, and what was found."""

    kills: Counter[str] = field(default_factory=Counter)
    cuts: Counter[str] = field(default_factory=Counter)
    proofs: int = 0
    findings: list[str] = field(default_factory=list)


class Attacked:
    """One busy fleet, the work that is begun on it, and the orders that can be undone."""

    def __init__(self, conn: psycopg.Connection[object], seed: int) -> None:
        self.busy = BusyFleet(conn, seed)
        self.dice = random.Random(seed)
        self.undoable: list[tuple[OrderKind, int]] = []

    def hour(self) -> None:
        """Let an hour pass and bill it."""
        self.busy.hour(rough=False)
        run_billing(self.busy.order())

    def work(self) -> tuple[str, Work]:
        """Choose what is begun next."""
        name = self.dice.choice(["reversal of a run", "reversal of a span", "credit", "undo", "settlement"])
        if name == "settlement":
            return name, self._settlement()
        if name == "undo" and self.undoable:
            kind, number = self.undoable.pop(self.dice.randrange(len(self.undoable)))
            order = Order(kind, Mode.UNDO, Scope(), "attacked", name, undoes=number)
        elif name == "reversal of a run":
            [row] = self.busy.fleet.rows("select max(id) as run from billing_runs where outcome is not null")
            scope = Scope(run=row.run - self.dice.randrange(3))
            order = Order(OrderKind.REVERSAL, Mode.WAIVE, scope, "attacked", name)
        else:
            begin = self.busy.fleet.now - timedelta(minutes=self.dice.randrange(30, 400))
            scope = Scope(begin=begin, end=begin + timedelta(minutes=self.dice.randrange(30, 200)))
            order = Order(OrderKind.REVERSAL, Mode.WAIVE, scope, "attacked", name)
            if name == "credit":
                factor = self.dice.choice([Decimal(1), Decimal("0.3"), Decimal(3)])
                order = Order(OrderKind.CREDIT, Mode.CREDIT, scope, "attacked", name, factor=factor)

        def post(conninfo: str) -> int:
            done = post_order(conninfo, order, holder="attacked", wait_seconds=0, at_once=2)
            if order.mode is not Mode.UNDO and done.order.order_id is not None:
                self.undoable = [*self.undoable, (order.kind, done.order.order_id)]
            return done.adjustments + done.repriced

        return name, post

    def _settlement(self) -> Work:
        """Overwrite balances as a host does, and accept or restore them."""
        for organization in (self.busy.rich, self.busy.other, self.busy.big):
            self.busy.conn.execute(
                "update wallets set balance = balance + 7 where organization_id = %s", (organization,)
            )
        action = self.dice.choice([Action.ACCEPT, Action.RESTORE])
        chosen = Settlement(action, "attacked", "settlement", None, "balances", False, "USD")
        return lambda conninfo: sum(not one.is_open for one in settle(conninfo, chosen))

    def finish(self, name: str, work: Work) -> list[str]:
        """Let the host and a run act, give the work again to its end, and once more; return what is wrong."""
        self.busy.fleet.top_up(self.busy.big, "1.00")
        self.busy.expire_lease()
        if self.dice.random() < 0.5:
            self.busy.fleet.top_up(self.busy.poor, "0.03")
            run_billing(self.busy.order())
        work(self.busy.fleet.conninfo)
        # What a poor wallet could not bear of an undo may be posted later, so one that can pays it now.
        self.busy.fleet.top_up(self.busy.wavering, "50.00")
        self.busy.fleet.top_up(self.busy.poor, "50.00")
        work(self.busy.fleet.conninfo)
        left = work(self.busy.fleet.conninfo)
        return [f"{name}: given again, it wrote {left} rows"] if left else []

    def proof(self) -> list[str]:
        """Return what `verify` finds, and orders that adjusted an hour twice."""
        found = [str(one) for one in verify(self.busy.fleet.conninfo).discrepancies]
        twice = self.busy.fleet.rows(
            "select one.order_id, one.charge_id from billing_adjustments one join billing_adjustments other"
            " using (organization_id, charge_id, order_id) where one.id < other.id"
            " and one.hours_from < other.hours_until and other.hours_from < one.hours_until"
        )
        return found + [f"order {row.order_id} adjusted an hour of {row.charge_id} twice" for row in twice]


def exchanges(attacked: Attacked) -> int:
    """Count the exchanges of some work with the server."""
    _, work = attacked.work()
    seen = 0

    def note(_: str, moment: Moment) -> None:
        nonlocal seen
        seen += moment is Moment.BEFORE

    with watched(note):
        work(attacked.busy.fleet.conninfo)
    return seen


def _die_at(number: int, moment: Moment, work: Callable[[], object]) -> None:
    left = number

    def tell(_: str, now: Moment) -> None:
        nonlocal left
        if now is moment:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    with watched(tell):
        work()


def attack_once(attacked: Attacked, counts: Attacks, *, cut: CommitProxy | None, reach: int) -> None:
    """Begin some work, break it off, and finish it."""
    attacked.hour()
    name, work = attacked.work()
    dice, busy = attacked.dice, attacked.busy
    if cut is None:
        number, moment = dice.randint(1, reach), dice.choice(list(Moment))
        killed = dies(
            lambda: _die_at(number, moment, lambda: work(busy.fleet.conninfo)), name, (BillingError,)
        )
        counts.kills[name] += killed
    else:
        fired = cut.fired
        cut.arm(dice.choice(WAYS), 1, interesting=lambda _: True, skip=dice.randint(0, 6))
        try:
            work(cut.conninfo(busy.fleet.conninfo))
        except BillingError:
            pass
        finally:
            cut.disarm()
        counts.cuts[name] += cut.fired - fired
    counts.findings += attacked.finish(name, work)


def campaign(template: str, *, kills: int, cuts: int, seed: int, minutes: float) -> Attacks:
    """Attack fresh fleets until there were enough kills and cuts, or something was found."""
    logs.configure(stream=io.StringIO())
    counts, until = Attacks(), time.monotonic() + minutes * 60
    while not counts.findings and time.monotonic() < until:
        missing = counts.kills.total() < kills, counts.cuts.total() < cuts
        if not any(missing):
            break
        with copied(template) as copy, psycopg.connect(copy, autocommit=True) as conn:
            attacked = Attacked(conn, seed)
            for _ in range(4):
                attacked.hour()
            reach = exchanges(attacked) if missing[0] else 0
            host, port = conn.info.host, conn.info.port
            with nullcontext() if missing[0] else CommitProxy(host, port) as proxy:
                for number in range(1, ATTACKS_PER_DATABASE + 1):
                    attack_once(attacked, counts, cut=proxy, reach=max(reach, 60))
                    done = (counts.cuts.total() >= cuts) if proxy else (counts.kills.total() >= kills)
                    if done or number % ATTACKS_BEFORE_PROOF == 0:
                        counts.proofs += 1
                        counts.findings += [
                            f"seed {seed}, after {number}: {line}" for line in attacked.proof()
                        ]
                    if done or counts.findings or time.monotonic() > until:
                        break
        print(
            f"{counts.kills.total()} kills, {counts.cuts.total()} cuts; next seed {seed + 1}", file=sys.stderr
        )
        seed += 1
    return counts


def main() -> int:
    """Attack, and report; 1 when something was found."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faultlab.order_attacks",
        description="Reversals, credits and settlements, broken off.",
    )
    parser.add_argument("--kills", type=int, default=100, help="so many SIGKILLs (default 100)")
    parser.add_argument("--cuts", type=int, default=30, help="so many cut commits (default 30)")
    parser.add_argument(
        "--seed", type=int, default=secrets.randbelow(10**6), help="the seed of the first fleet"
    )
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so many minutes")
    parser.add_argument("--database", help="copy the databases from this migrated one")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with nullcontext(chosen.database) if chosen.database else throw_away_database() as database:
        counts = campaign(
            database, kills=chosen.kills, cuts=chosen.cuts, seed=chosen.seed, minutes=chosen.minutes
        )
    report = {
        "kills": counts.kills.total(),
        "cuts": counts.cuts.total(),
        "proofs": counts.proofs,
        "killsOf": dict(counts.kills),
        "cutsOf": dict(counts.cuts),
        "findings": counts.findings,
    }
    print(json.dumps(report))
    return 1 if counts.findings else 0


if __name__ == "__main__":
    sys.exit(main())
