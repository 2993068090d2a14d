"""Small fleet in which every hour exercises every statement of a run.

Organizations that are rich, poor, alternating and large; instances that are stopped, resized, moved, created and deleted;
watermarks that are moved back; an organization whose charges the database refuses. `hour` advances it by an hour,
`settle` repairs what the host broke, bills to the end, and returns the findings of `verify` and the oracle.
"""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
from tests.fleet import Fleet

from containerstacks_billing.charging.model import Outcome, RunResult
from containerstacks_billing.charging.run import RunOrder, run_billing
from containerstacks_billing.drill import oracle
from containerstacks_billing.verification.verify import verify

HALF_AN_HOUR = timedelta(minutes=30)
# The successor's tables are there, so the charges of a run are described for its invoices.
_INVOICES = "create table organization_egress_credits ()"
_REFUSAL = """
    create table test_refusals (organization_id uuid);
    create function test_refuse() returns trigger language plpgsql as $$
    begin
        if exists (select from test_refusals where organization_id = new.organization_id) then
            raise exception 'charges of this organization are refused';
        end if;
        return new;
    end $$;
    create trigger test_refuse before insert on vps_billing_cycles for each row execute function test_refuse();
"""


class BusyFleet:
    """The fleet and the organizations and instances that have a part in it."""

    def __init__(self, conn: psycopg.Connection[Any], seed: int = 0) -> None:
        self.conn = conn
        self.random = random.Random(seed)
        self.fleet = fleet = Fleet(conn, max_catch_up_hours=1_000_000, brake_factor=Decimal(1_000_000))
        oracle.install(conn)
        conn.execute(_REFUSAL)
        conn.execute(_INVOICES)
        self.small, self.large = fleet.plan("7.30"), fleet.plan("68.00", "5.00")
        self.rich, self.other = fleet.organization("100000.00"), fleet.organization("100000.00")
        self.poor, self.wavering = fleet.organization("0.05"), fleet.organization("0.00")
        self.big, self.hurt, self.refused = (fleet.organization("100000.00") for _ in range(3))
        self.shifting = [fleet.instance(self.rich, self.small) for _ in range(2)]
        self.wanderer = fleet.instance(self.other, self.small)
        self.fleeting: UUID | None = None
        for organization in (self.poor, self.wavering, self.refused):
            fleet.instance(organization, self.small)
            fleet.instance(organization, self.large)
        for _ in range(9):
            fleet.instance(self.big, self.small)
        self.broken = fleet.instance(self.hurt, self.small)
        fleet.instance(self.hurt, self.small)
        self.hours = 0
        self.statuses: tuple[str, ...] = ("running",)

    def hour(self, *, rough: bool) -> None:
        """Advance by an hour of host changes; a rough one adds damage, refusals and a change of policy."""
        fleet = self.fleet
        self.hours += 1
        with self.conn.transaction():
            self.repair()
            fleet.at(HALF_AN_HOUR)
            first, second = self.shifting
            fleet.set(first, plan_id=self.large if self.hours % 2 else self.small)
            fleet.set(second, status="stopped" if self.hours % 2 else "running")
            fleet.set(self.wanderer, organization_id=self.other if self.hours % 2 else self.rich)
            if self.random.random() < 0.3:
                fleet.reprice(self.large, "68.00" if self.hours % 2 else "61.00", "5.00")
            if self.fleeting:
                fleet.delete(self.fleeting)
            self.fleeting = fleet.instance(self.rich, self.small)
            fleet.top_up(self.poor, "0.08")
            fleet.top_up(self.wavering, "30.00" if self.hours % 2 else f"-{fleet.balance(self.wavering)[0]}")
        # A price begins with its commit, which is at half past.
        with self.conn.transaction():
            fleet.at(HALF_AN_HOUR)
            if rough:
                self.conn.execute("insert into test_refusals values (%s)", (self.refused,))
                self._damage()
                # No instance has the other status: the policy changes, and what is owed does not.
                self.statuses = ("running", "restoring") if len(self.statuses) == 1 else ("running",)

    def _damage(self) -> None:
        """Restore an older row of an instance, from before its last charge: only the unique key detects it."""
        self.conn.execute(
            "update vps_instances i set last_billed_at = start, rated_until = start from (select vps_instance_id,"
            " max(billing_period_start) as start from vps_billing_cycles where vps_instance_id = %s and run_id is not null"
            " group by 1) c where i.id = c.vps_instance_id",
            (self.broken,),
        )

    def repair(self) -> None:
        """Correct the damaged row as the quarantine's reason says, and end the refusals."""
        self.conn.execute("delete from test_refusals")
        self.conn.execute(
            "update vps_instances i set last_billed_at = until, rated_until = until from (select vps_instance_id,"
            " max(billing_period_end) as until from vps_billing_cycles where vps_instance_id = %s and run_id is not null"
            " group by 1) c where i.id = c.vps_instance_id and coalesce(i.last_billed_at, i.created_at) < until",
            (self.broken,),
        )

    def order(self, **changes: Any) -> RunOrder:
        """Return the order of a run with several batches and slices."""
        terms = replace(self.fleet.terms, billable_statuses=self.statuses)
        return replace(self.fleet.order(workers=1, batch_size=8), terms=terms, **changes)

    def expire_lease(self) -> None:
        """Expire the lease of a dead holder."""
        self.conn.execute(
            "update billing_leases set expires_at = clock_timestamp() where expires_at > clock_timestamp()"
        )

    def hours_charged(self) -> int:
        """Return how many hours of instances were charged in all."""
        rows = self.fleet.rows(
            "select coalesce(sum(extract(epoch from billing_period_end - billing_period_start)), 0) / 3600 as hours"
            " from vps_billing_cycles where run_id is not null"
        )
        return int(rows[0].hours)

    def settle(self) -> list[str]:
        """Repair, bill to the end, and return the findings."""
        self.repair()
        self.expire_lease()
        result: RunResult = run_billing(self.order())
        findings = [] if result.outcome is Outcome.COMPLETED else [f"the run ended {result}"]
        findings += [
            f"{instance} is quarantined or held: {why}" for instance, why in self.fleet.quarantine().items()
        ]
        findings += oracle.judge(self.conn).lines
        verification = verify(self.fleet.conninfo)
        findings += [str(discrepancy) for discrepancy in verification.discrepancies]
        findings += [check.name for check in verification.checks if not check.ok]
        return findings
