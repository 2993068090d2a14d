"""A primary and a standby with a fleet, for tests of failover."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from tests.daemons import eventually
from tests.faultlab.replica import DATABASE, Pair
from tests.fleet import Fleet

from containerstacks_billing.charging.model import Progress, RunResult
from containerstacks_billing.charging.run import run_billing
from containerstacks_billing.drill import oracle
from containerstacks_billing.schema.migrator import migrate
from containerstacks_billing.verification.verify import verify

ORGANIZATIONS = 8
INSTANCES = 3  # of each
SYNCHRONOUS = {"synchronous_standby_names": "standby", "synchronous_commit": "on"}


class FailoverPair:
    """A pair of servers, a fleet on its primary, and the assertions that every test shares."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.conn = psycopg.connect(pair.primary.conninfo(), autocommit=True)
        self.fleet = Fleet(self.conn)
        oracle.install(self.conn)
        plan = self.fleet.plan("7.30")
        self.organizations = [self.fleet.organization("1000.00") for _ in range(ORGANIZATIONS)]
        for organization in self.organizations:
            for _ in range(INSTANCES):
                self.fleet.instance(organization, plan)
        self.fleet.hours(2)

    def bill(self, progressed: Callable[[Progress], None] = lambda _: None, **changes: Any) -> RunResult:
        """Bill at the address that names both hosts, an organization at a time."""
        changes = {"conninfo": self.pair.conninfo, "batch_size": INSTANCES, "workers": 1, **changes}
        return run_billing(self.fleet.order(progressed=progressed, wait_seconds=0, **changes))

    def fail_over(self, *, hard: bool = False) -> None:
        """Kill the primary and promote the replica; the fleet's own connection follows."""
        self.conn.close()
        self.pair.kill(hard=hard)
        self.pair.promote()
        self.follow()

    def follow(self) -> None:
        """Connect to the present primary."""
        self.conn.close()
        self.conn = self.fleet.conn = psycopg.connect(self.pair.primary.conninfo(), autocommit=True)

    def lease_runs_out(self) -> None:
        """Expire the lease of a dead holder."""
        self.conn.execute("update billing_leases set expires_at = clock_timestamp()")

    def charged(self) -> int:
        """Count the hours that are charged."""
        return int(sum((run_billing.hours for run_billing in self._bills()), Decimal(0)))

    def charged_organizations(self) -> set[UUID]:
        """Name the organizations that are charged."""
        return {run_billing.organization_id for run_billing in self._bills()}

    def assert_all_charged_once(self, hours: int = 2) -> None:
        """Every hour of every instance, and books that agree with it to the cent."""
        due = ORGANIZATIONS * INSTANCES * hours
        assert due == self.charged()
        found = verify(self.pair.primary.conninfo())
        assert found.ok, found.discrepancies
        assert () == oracle.judge(self.conn).lines
        spent = {self.fleet.balance(organization) for organization in self.organizations}
        assert {(Decimal("1000.00") - INSTANCES * hours * Decimal("0.01"), Decimal(0))} == spent

    def _bills(self) -> list[Any]:
        return self.fleet.rows(
            "select organization_id, extract(epoch from billing_period_end - billing_period_start) / 3600 as hours"
            " from vps_billing_cycles where run_id is not null"
        )


class Servers:
    """A pair that is reused: for each test a fresh database, and a replica that follows."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._pairs: dict[bool, Pair] = {}

    def failover_pair(self, *, synchronous: bool = False) -> FailoverPair:
        """Return a fresh fleet on a pair."""
        return FailoverPair(self.pair(synchronous=synchronous))

    def pair(self, *, synchronous: bool = False) -> Pair:
        """Return a pair with a fresh, migrated database and a replica that follows."""
        pair = self._pairs.get(synchronous)
        if pair is None:
            pair = self._pairs[synchronous] = Pair(self._directory / ("s" if synchronous else "a"))
            migrate(pair.primary.conninfo())
            with psycopg.connect(pair.primary.conninfo("postgres"), autocommit=True) as conn:
                conn.execute(f"alter database {DATABASE} rename to template".encode())
        pair.standby.kill()
        pair.primary.kill()
        pair.primary.start()
        with psycopg.connect(pair.primary.conninfo("postgres"), autocommit=True) as conn:
            conn.execute(f"drop database if exists {DATABASE} with (force)".encode())
            conn.execute(f"create database {DATABASE} template template".encode())
        pair.settings = SYNCHRONOUS if synchronous else {}
        pair.replicate()
        if synchronous:
            eventually(
                lambda: pair.primary.one("select count(*) from pg_stat_replication where sync_state = 'sync'")
            )
        return pair

    def stop(self) -> None:
        """End them for good."""
        for pair in self._pairs.values():
            pair.stop()
