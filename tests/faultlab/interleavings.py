"""Two billers over one organization, and a biller and its host, in every order of their statements.

    python -m tests.faultlab.interleavings [--scene NAME] [--limit N] [--seed S] [--minutes M]

A scene says who acts on an organization that has instances, a closed segment and a wallet, rich or past due: two billers
under one lease (so that nothing but the rows keeps them apart), a biller and another that takes its expired lease over,
a biller and a transaction of the host. Every schedule of a scene (scheduler.py) gets an organization of its own. After
some of them a run goes to its end, and `verify` and the oracle must find nothing. With a limit the schedules are drawn.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
from tests.campaign import throw_away_database
from tests.faultlab.killed_process import copied
from tests.faultlab.scheduler import Act, Schedule, Scheduler
from tests.fleet import Fleet

from containerstacks_billing import logs
from containerstacks_billing.charging import lease as leases
from containerstacks_billing.charging import run_record as runs
from containerstacks_billing.charging.batch import charge_batch
from containerstacks_billing.charging.model import Batch, OpenRun, Outcome
from containerstacks_billing.database.connection import connect
from containerstacks_billing.drill import oracle
from containerstacks_billing.verification.verify import verify

SCHEDULES_OF_A_DATABASE = 25
Connection = psycopg.Connection[Any]


@dataclass
class Place:
    """An organization and what is needed to act on it."""

    fleet: Fleet
    run: OpenRun
    organization: UUID
    elsewhere: UUID
    instance: UUID
    plan: UUID
    other_plan: UUID

    def bill(self, number: int) -> Act:
        """Charge the organization in one batch of the open run."""
        batch = Batch(number, self.organization, self.organization, 3)
        return lambda connection: f"charged {charge_batch(connection, self.run, batch).instances}"

    def take_over(self, connection: Connection) -> str:
        """Take the lease over, open a run and charge the organization."""
        lease = leases.try_acquire(connection, "another")
        if lease is None:
            return "no lease"
        now = self.fleet.now
        run = runs.open_run(connection, lease, self.fleet.terms, trigger="test", as_of=now, host_clock=now)
        batch = Batch(0, self.organization, self.organization, 3)
        return f"charged {charge_batch(connection, run, batch).instances}"

    def host(self, *statements: str) -> Act:
        """Execute statements in one transaction."""
        values = {
            "organization": self.organization,
            "elsewhere": self.elsewhere,
            "instance": self.instance,
            "plan": self.plan,
            "other_plan": str(self.other_plan),
            "now": self.fleet.now,
        }

        def act(connection: Connection) -> str:
            with connection.transaction():
                for statement in statements:
                    connection.execute(statement, values)
            return "committed"

        return act


_ENTRY = (
    "insert into payment_transactions (organization_id, amount, currency, payment_method, payment_provider, status,"
    " description) values (%(organization)s, {}, 'USD', 'paypal', 'paypal', 'completed', 'by the host')"
)
_MOVE_MONEY = "update wallets set balance = balance + {} where organization_id = %(organization)s"
_RESIZE = "update vps_instances set plan_id = %(other_plan)s where id = %(instance)s"
HOSTS: dict[str, tuple[str, ...]] = {
    "resize": (_RESIZE,),
    "stop": ("update vps_instances set status = 'stopped' where id = %(instance)s",),
    "delete": ("delete from vps_instances where id = %(instance)s",),
    "move": ("update vps_instances set organization_id = %(elsewhere)s where id = %(instance)s",),
    "create": (
        "insert into vps_instances (organization_id, plan_id, provider_instance_id, label, status, created_at)"
        " values (%(organization)s, %(other_plan)s, 'x', 'x', 'running', %(now)s)",
    ),
    "reprice": ("update vps_plans set base_price = base_price + 10 where id = %(plan)s",),
    "top-up": (_ENTRY.format("5.00"), _MOVE_MONEY.format("5.00")),
    "debit": (_ENTRY.format("-0.02"), _MOVE_MONEY.format("-0.02")),
    "resize and pay": (_RESIZE, _ENTRY.format("5.00"), _MOVE_MONEY.format("5.00")),
}

Cast = Callable[[Place], dict[str, Act]]
SCENES: dict[str, Cast] = {
    "two billers": lambda place: {"first": place.bill(0), "second": place.bill(1)},
    "takeover": lambda place: {"biller": place.bill(0), "another": place.take_over},
    **{
        name: (lambda place, name=name: {"biller": place.bill(0), "host": place.host(*HOSTS[name])})  # type: ignore[misc]
        for name in HOSTS
    },
}
WALLETS = ("rich", "past due")
ALL = [f"{scene}, {wallet}" for wallet in WALLETS for scene in SCENES]


class Ground:
    """A database on which some schedules are tried, one organization each."""

    def __init__(self, conn: Connection) -> None:
        self.fleet = Fleet(conn, max_catch_up_hours=1_000_000, brake_factor=Decimal(1_000_000))
        oracle.install(conn)
        self.connections = [connect(self.fleet.conninfo, purpose="billing") for _ in range(2)]
        # Deadlocks are looked for sooner than after a second.
        for connection in self.connections:
            connection.execute("set deadlock_timeout = '20ms'")
        self.monitor = psycopg.connect(self.fleet.conninfo, autocommit=True)
        self.scheduler = Scheduler(self.monitor)

    def close(self) -> None:
        """Close the connections."""
        for connection in (*self.connections, self.monitor):
            connection.close()

    def place(self, wallet: str) -> Place:
        """Prepare an organization with a closed segment and hours due, and open a run whose lease has expired."""
        fleet = self.fleet
        plan, other_plan = fleet.plan("7.30"), fleet.plan("14.60")
        organization = fleet.organization("1000.00" if wallet == "rich" else "0.03")
        instance, changed, _ = (fleet.instance(organization, plan) for _ in range(3))
        elsewhere = fleet.organization("1000.00")
        if wallet == "past due":
            fleet.hours(2)
            self.expire_lease()
            fleet.bill(organization=organization, workers=1)
            fleet.top_up(organization, "0.04")
        fleet.hours(1.25)
        fleet.set(changed, plan_id=other_plan)
        fleet.hours(1.5)
        self.expire_lease()
        lease = leases.acquire(fleet.conn, "biller")
        run = runs.open_run(
            fleet.conn, lease, fleet.terms, trigger="test", as_of=fleet.now, host_clock=fleet.now
        )
        self.expire_lease()
        return Place(fleet, run, organization, elsewhere, instance, plan, other_plan)

    def expire_lease(self) -> None:
        """Expire the lease."""
        self.fleet.conn.execute(
            "update billing_leases set expires_at = clock_timestamp() where expires_at > clock_timestamp()"
        )

    def try_out(self, scene: str, beginning: list[str]) -> tuple[Schedule, UUID]:
        """Run the actors of a scene in this order."""
        cast, wallet = scene.split(", ")
        place = self.place(wallet)
        acts = SCENES[cast](place)
        return (
            self.scheduler.run(
                dict(zip(acts, zip(acts.values(), self.connections, strict=True), strict=True)), beginning
            ),
            place.organization,
        )

    def settle(self) -> list[str]:
        """Bill to the end, and return the findings."""
        self.expire_lease()
        self.fleet.hours(2)
        result = self.fleet.bill(workers=1)
        findings = [] if result.outcome is Outcome.COMPLETED else [f"the run ended {result}"]
        findings += [
            f"{instance} is quarantined or held: {why}" for instance, why in self.fleet.quarantine().items()
        ]
        findings += oracle.judge(self.fleet.conn).lines
        verification = verify(self.fleet.conninfo)
        return findings + [str(one) for one in verification.discrepancies]


@dataclass
class Report:
    """What was tried and found."""

    schedules: Counter[str]
    endings: Counter[str]
    complete: list[str]
    findings: list[str]
    diverged: int = 0
    statements: int = 0


def explore(template: str, scenes: list[str], *, limit: int, seed: int, minutes: float) -> Report:
    """Try all schedules of the scenes, or so many of each that are drawn."""
    logs.configure(stream=io.StringIO())
    dice, report = random.Random(seed), Report(Counter(), Counter(), [], [])
    until = time.monotonic() + minutes * 60
    for scene in scenes:
        waiting: list[list[str]] = [[]]
        while waiting and report.schedules[scene] < limit and time.monotonic() < until:
            with copied(template) as copy, psycopg.connect(copy, autocommit=True) as conn:
                ground, whose = Ground(conn), dict[str, Schedule]()
                for _ in range(SCHEDULES_OF_A_DATABASE):
                    if not waiting or report.schedules[scene] >= limit:
                        break
                    beginning = waiting.pop(dice.randrange(len(waiting)))
                    schedule, organization = ground.try_out(scene, beginning)
                    waiting += schedule.branches(len(beginning))
                    whose[str(organization)] = schedule
                    report.schedules[scene] += 1
                    report.statements += len(schedule.steps)
                    report.diverged += schedule.diverged
                    report.endings[", ".join(f"{who} {how}" for who, how in schedule.endings.items())] += 1
                findings = ground.settle()
                ground.close()
            for line in findings:
                guilty = [" → ".join(one.steps) for name, one in whose.items() if name in line]
                report.findings.append(f"{scene}: {line} {guilty}")
            if report.findings:
                return report
        if not waiting:
            report.complete.append(scene)
        print(f"{scene}: {report.schedules[scene]} schedules", file=sys.stderr)
    return report


def main() -> int:
    """Explore, and report; 1 when something was found."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faultlab.interleavings", description="Every order of statements."
    )
    parser.add_argument("--scene", action="append", choices=ALL, help="only this scene (may be repeated)")
    parser.add_argument("--limit", type=int, default=10**9, help="at most so many schedules of each scene")
    parser.add_argument("--seed", type=int, default=0, help="draws the schedules where there is a limit")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so many minutes")
    parser.add_argument("--database", help="try on copies of this migrated database")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with nullcontext(chosen.database) if chosen.database else throw_away_database() as database:
        report = explore(
            database, chosen.scene or ALL, limit=chosen.limit, seed=chosen.seed, minutes=chosen.minutes
        )
    said = {
        "schedules": report.schedules.total(),
        "statements": report.statements,
        "complete": report.complete,
        "schedulesOfScene": report.schedules,
        "endings": report.endings,
        "diverged": report.diverged,
        "findings": report.findings,
    }
    print(json.dumps(said, indent=1))
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
