"""Promotions by the hundred: `python -m tests.faultlab.failover --promotions 200 --seed 1`.

A fleet lives on. Every cycle some hours pass, the host does this and that, and a run begins with two workers at the address
that names both servers. After a random batch the replica hears nothing any more, while the run and the host go on; after
another one the primary is killed and the replica promoted. Whatever the run makes of it, the next ones bill to the end, and
the oracle compares what was charged with what the surviving timeline owes. Then the dead server becomes the replica.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
from tests.faultlab.primary_and_standby import Servers
from tests.faultlab.replica import Pair, scratch
from tests.fleet import Fleet

from containerstacks_billing.charging.model import Outcome, Progress
from containerstacks_billing.charging.run import run_billing
from containerstacks_billing.drill import oracle
from containerstacks_billing.errors import BillingError
from containerstacks_billing.verification.verify import verify

PROMOTIONS_OF_A_WORLD = 20
ORGANIZATIONS = 12
INSTANCES = 4
_GENEROUS = {"max_catch_up_hours": 1_000_000, "brake_factor": Decimal(1_000_000)}


@dataclass
class Report:
    """What came of it: promotions by what they took away, how the runs that met one ended, and the oracle's findings."""

    promotions: int = 0
    took_charges: int = 0
    took_hours: Decimal = Decimal(0)
    killed: int = 0
    endings: Counter[str] = field(default_factory=Counter)
    due: Decimal = Decimal(0)
    charged: Decimal = Decimal(0)
    twice: Decimal = Decimal(0)
    lost: Decimal = Decimal(0)
    drifts: int = 0
    findings: list[str] = field(default_factory=list)

    def text(self) -> str:
        """Return the report as lines."""
        endings = ", ".join(f"{count} {how}" for how, count in self.endings.most_common())
        return "\n".join(
            [
                f"promotions         {self.promotions} ({self.killed} after SIGKILL, the others after -m immediate)",
                f"that lost charges  {self.took_charges}, {self.took_hours.normalize():f} committed instance-hours",
                f"runs that met one  {endings}",
                f"due, charged       {self.due:.2f}, {self.charged:.2f} instance-hours",
                f"verdict            {self.twice.normalize():f} twice, {self.lost.normalize():f} lost, {self.drifts} drifts",
                *self.findings[:20],
            ]
        )


class World:
    """A fleet on a pair, for some promotions in a row."""

    def __init__(self, pair: Pair, random: random.Random, report: Report) -> None:
        self._pair, self._random, self._report = pair, random, report
        self._conn = psycopg.connect(pair.primary.conninfo(), autocommit=True)
        self._fleet = fleet = Fleet(self._conn, **_GENEROUS)
        oracle.install(self._conn)
        self._plans = [fleet.plan("7.30"), fleet.plan("68.00", "5.00"), fleet.plan("9.99")]
        self._organizations = [
            fleet.organization(random.choice(["100000.00", "3.00", "0.40"])) for _ in range(ORGANIZATIONS)
        ]
        self._instances = [
            fleet.instance(organization, random.choice(self._plans))
            for organization in self._organizations
            for _ in range(INSTANCES)
        ]

    def cycle(self) -> None:
        """Run through one promotion."""
        random, report = self._random, self._report
        self._fleet.hours(random.choice([1, 1, 2, 2.5, 26]))
        self._host_acts(4)
        self._pair.follow()
        stalled, killed = sorted(random.uniform(0, 1) for _ in range(2))
        hard = random.random() < 0.25
        done = {"stalled": False, "killed": False}

        def progressed(progress: Progress) -> None:
            share = progress.batches / max(progress.batches_planned, 1)
            if share >= stalled and not done["stalled"]:
                done["stalled"] = True
                self._pair.stall()
            if share >= killed and progress.batches > 1 and not done["killed"]:
                done["killed"] = True
                self._fail_over(hard)

        if random.random() < 0.2:
            # Not even lease and run reach the replica.
            done["stalled"] = True
            self._pair.stall()
        how = self._bill(progressed)
        if not done["killed"]:
            how = "ended before it"
            self._fail_over(hard)
        report.endings[how] += 1
        self._settle()
        self._judge()
        self._pair.rejoin()
        self._follow()

    def end(self) -> None:
        """Run `verify`."""
        found = verify(self._pair.primary.conninfo())
        self._report.findings += [f"verify: {one}" for one in found.discrepancies]
        self._conn.close()

    def _bill(self, progressed: Any = lambda _: None) -> str:
        try:
            order = self._fleet.order(
                conninfo=self._pair.conninfo, batch_size=INSTANCES, wait_seconds=0, progressed=progressed
            )
            return run_billing(order).outcome.value
        except BillingError as error:
            return type(error).__name__

    def _fail_over(self, hard: bool) -> None:
        self._host_acts(2)
        before = self._hours_charged()
        self._conn.close()
        self._pair.kill(hard=hard)
        self._pair.promote()
        self._follow()
        taken = before - self._hours_charged()
        self._report.promotions += 1
        self._report.killed += hard
        self._report.took_charges += taken > 0
        self._report.took_hours += taken

    def _follow(self) -> None:
        self._conn.close()
        self._conn = self._fleet.conn = psycopg.connect(self._pair.primary.conninfo(), autocommit=True)
        known = {row[0] for row in self._conn.execute("select id from vps_instances").fetchall()}
        self._instances = [instance for instance in self._instances if instance in known]

    def _settle(self) -> None:
        """Bill until nothing is left, as the next ticks would."""
        self._conn.execute("update billing_leases set expires_at = clock_timestamp()")
        outcomes = [self._bill() for _ in range(2)]
        if outcomes[-1] != Outcome.COMPLETED.value:
            self._report.findings.append(f"the runs after a promotion ended with {', '.join(outcomes)}")

    def _judge(self) -> None:
        verdict = oracle.judge(self._conn)
        report = self._report
        report.twice += verdict.twice
        report.lost += verdict.lost
        report.drifts += len(verdict.drifts)
        report.findings += verdict.lines
        self._due, self._charged = verdict.due, verdict.charged

    def count(self) -> None:
        """Add the hours due and charged of this fleet."""
        self._report.due += self._due
        self._report.charged += self._charged

    def _hours_charged(self) -> Decimal:
        row = self._conn.execute(
            "select coalesce(sum(extract(epoch from billing_period_end - billing_period_start)), 0) / 3600"
            " from vps_billing_cycles where run_id is not null"
        ).fetchone()
        return Decimal(row[0]) if row else Decimal(0)

    def _host_acts(self, times: int) -> None:
        random, fleet = self._random, self._fleet
        for _ in range(times):
            instance, organization = random.choice(self._instances), random.choice(self._organizations)
            act = random.randrange(7)
            if act == 0:
                fleet.top_up(organization, random.choice(["0.03", "5.00", "-0.01"]))
            elif act == 1:
                fleet.set(instance, status="stopped")
            elif act == 2:
                fleet.set(instance, status="running")
            elif act == 3:
                fleet.set(instance, plan_id=random.choice(self._plans))
            elif act == 4:
                fleet.set(instance, organization_id=organization)
            elif act == 5 and len(self._instances) > ORGANIZATIONS:
                fleet.delete(instance)
                self._instances.remove(instance)
            else:
                self._instances.append(self._born(organization))

    def _born(self, organization: UUID) -> UUID:
        return self._fleet.instance(organization, self._random.choice(self._plans))


def campaign(promotions: int, seed: int) -> Report:
    """Promote so many replicas; stops with the first world in which the oracle finds something."""
    report = Report()
    with scratch() as directory:
        servers = Servers(directory)
        try:
            while report.promotions < promotions and not report.findings:
                # Each world has a seed of its own.
                world = World(servers.pair(), random.Random(f"{seed}.{report.promotions}"), report)
                for _ in range(min(PROMOTIONS_OF_A_WORLD, promotions - report.promotions)):
                    world.cycle()
                    if report.findings:
                        break
                world.count()
                world.end()
        finally:
            servers.stop()
    return report


def main() -> int:
    """Print the figures; 1 when something was charged twice, lost or adrift."""
    parser = argparse.ArgumentParser(prog="python -m tests.faultlab.failover", description=__doc__)
    parser.add_argument("--promotions", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    arguments = parser.parse_args()
    began = time.monotonic()
    report = campaign(arguments.promotions, arguments.seed)
    seconds = time.monotonic() - began
    print(f"seed               {arguments.seed}\nseconds            {seconds:.0f}\n{report.text()}")
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
