"""How much the statements of a run read: what is due and what is past due, never the history.

Compared by the rows that `EXPLAIN ANALYZE` counts, which are the same on a fast and on a slow machine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import psycopg
from tests.fleet import Fleet

from containerstacks_billing.charging.batch import lock_organizations, pin_planner, rates_of_run
from containerstacks_billing.charging.charger import RunCharger
from containerstacks_billing.charging.model import Batch, BatchResult, BatchScope, OpenRun, Outcome
from containerstacks_billing.charging.run_record import run_parameters
from containerstacks_billing.database.connection import Connection
from containerstacks_billing.database.statements import query

_HISTORY = """
    insert into vps_billing_cycles (organization_id, vps_instance_id, billing_period_start, billing_period_end,
        hourly_rate, total_amount, status, run_id, plan_id)
    select organization_id, vps_instance_id, billing_period_start - hour * interval '1 day',
        billing_period_end - hour * interval '1 day', hourly_rate, total_amount, 'billed', run_id, plan_id
    from vps_billing_cycles, generate_series(1, 500) hour
"""
_FLEET = """
    alter table vps_instances set (autovacuum_enabled = off);
    alter table wallets set (autovacuum_enabled = off);
    alter table vps_billing_cycles set (autovacuum_enabled = off);
    alter table billing_runways set (autovacuum_enabled = off);
    insert into organizations (id, name, slug, owner_id)
    select md5('o' || n)::uuid, 'o' || n, 'o' || n, owner_id from organizations, generate_series(1, 400) n;
    insert into wallets (organization_id, balance, created_at)
    select id, 1000, billing_clock() from organizations where slug like 'o%';
    insert into vps_instances (organization_id, plan_id, provider_instance_id, label, status, created_at)
    select md5('o' || (n % 400 + 1))::uuid, vps_plans.id::text, 'p' || n, 'vps-' || n, 'running', billing_clock()
    from vps_plans, generate_series(1, 4000) n
"""
_INSTANCES = 4000

Reads = Counter[str]


def reads(connection: Connection, name: str, values: Mapping[str, Any]) -> Reads:
    """Return how many rows a statement read from each table, and used of each index, those that a filter removed too."""
    text = f"explain (analyze, timing off, format json) {query(name)}"
    ((plan,),) = connection.execute(text.encode(), values).fetchall()
    found: Reads = Counter()
    waiting = [plan[0]["Plan"]]
    while waiting:
        node = waiting.pop()
        waiting += node.get("Plans", [])
        if "Scan" in node["Node Type"] and (place := node.get("Relation Name") or node.get("Index Name")):
            removed = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
            found[place] += round((node["Actual Rows"] + removed) * node["Actual Loops"])
            if "Index Name" in node:
                found[node["Index Name"]] += 1
    return found


class _Explained(RunCharger):
    """Explains statements with the values of each batch, and rolls that back before the batch is charged."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.names = names
        self.reads: dict[str, list[tuple[Reads, Batch]]] = {name: [] for name in names}
        self.run: OpenRun | None = None

    def charge(self, connection: Connection, run: OpenRun, batch: Batch) -> BatchResult:
        self.run = run
        for name in self.names:
            scope = BatchScope(run, batch, rates_of_run(connection, run))
            with connection.transaction(force_rollback=True):
                pin_planner(connection)
                lock_organizations(connection, scope)
                self.reads[name].append((reads(connection, name, scope.parameters()), batch))
        return super().charge(connection, run, batch)


def test_past_due_charges_are_read_by_their_own_index(conn: psycopg.Connection[Any]) -> None:
    """Nine past-due hours beside 4,500 that were paid: paying and announcing them, and the look for money, read these."""
    fleet = Fleet(conn)
    acme = fleet.organization("0.00")
    plan = fleet.plan("7.30")
    for _ in range(3):
        fleet.instance(acme, plan)
    for _ in range(3):
        fleet.hours(1)
        fleet.bill()
    conn.execute(_HISTORY)
    fleet.top_up(acme, "0.05")
    charger = _Explained("pay_past_due", "announce_past_due")
    look = reads(conn, "organizations_that_can_pay", {"limit": 10})
    fleet.bill(charger)

    assert (Decimal("0.00"), Decimal(0)) == fleet.balance(acme)
    ((paying, _),) = charger.reads["pay_past_due"]
    ((announcing, _),) = charger.reads["announce_past_due"]
    for one in (look, paying, announcing):
        assert {"vps_billing_cycles_past_due_hours"} == {
            name for name in one if name.startswith("vps_billing_cycles_")
        }
    assert (1, True) == (look["vps_billing_cycles"], paying["vps_billing_cycles"] <= 3 * 9)


def test_a_fleet_that_was_never_analyzed_is_read_once(conn: psycopg.Connection[Any]) -> None:
    """The server knows nothing of 4,000 instances just inserted; each batch reads its own, and the runways each a few times."""
    fleet = Fleet(conn)
    fleet.organization("0.00")
    fleet.plan("7.30")
    conn.execute(_FLEET)
    fleet.hours(1)
    charger = _Explained("charge_single_hour", "charge")
    result = fleet.bill(charger, batch_size=1000, workers=1)
    assert (Outcome.COMPLETED, _INSTANCES) == (result.outcome, result.instances_billed)
    assert {-1} == {
        row[0] for row in fleet.rows("select reltuples from pg_class where relname = 'vps_instances'")
    }

    for name in charger.names:
        for read, batch in charger.reads[name]:
            assert (name, True) == (name, read["vps_instances"] <= 3 * batch.instances), read
            assert (name, True) == (name, read["vps_billing_cycles"] <= batch.instances), read
    assert charger.run is not None
    values = run_parameters(charger.run) | {"limit": 50_000}
    rates = list(zip(*conn.execute(query("rates_in_force"), values).fetchall(), strict=True))
    values |= dict(zip(("plan_names", "rates", "rates_with_backups"), map(list, rates), strict=True))
    conn.execute("delete from billing_runways")
    runways = reads(conn, "changed_runways", values)
    assert runways["vps_instances"] <= 3 * _INSTANCES, runways
