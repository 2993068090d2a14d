"""The single-hour statement and the general one: on any fleet with one hour due they leave equal rows."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from tests.fleet import Fleet

from containerstacks_billing.charging.charger import RunCharger
from containerstacks_billing.charging.model import Batch, BatchResult, OpenRun, Outcome
from containerstacks_billing.database.connection import Connection

_ROWS = {
    "charges": """
        select organization_id, vps_instance_id, billing_period_start, billing_period_end, hourly_rate, total_amount, status,
            payment_transaction_id is not null as is_posted, run_id, plan_id, segment_id, past_due_since
        from vps_billing_cycles order by 1, 2, 3
    """,
    "entries": """
        select organization_id, amount, description, metadata, provider_transaction_id
        from payment_transactions where payment_method = 'wallet_debit' order by 1, 5
    """,
    "wallets": "select id, balance, billing_carry, past_due_since from wallets order by 1",
    "instances": "select id, last_billed_at, rated_until from vps_instances order by 1",
    "runs": "select id, outcome, instances_billed, hours, amount, past_due_instances from billing_runs order by 1",
    "events": "select kind, organization_id, payload from billing_events order by 1, 2, payload::text",
}


class _General(RunCharger):
    """Charges every batch by the general statement; counts those that the plan found ordinary."""

    def __init__(self) -> None:
        super().__init__()
        self.ordinary = 0

    def begin(self, run: OpenRun, batches: Sequence[Batch]) -> None:
        self.ordinary += sum(batch.is_ordinary for batch in batches)
        super().begin(run, batches)

    def charge(self, connection: Connection, run: OpenRun, batch: Batch) -> BatchResult:
        return super().charge(connection, run, replace(batch, is_ordinary=False))


def settle_in(fleet: Fleet, dice: random.Random) -> None:
    """Create organizations from empty to rich, with instances on plans that cost nothing, little and an odd amount."""
    plans = [
        fleet.plan(price, markup)
        for price, markup in (("0", "0"), ("7.30", "0"), ("6.20", "0.37"), ("19.99", "2"))
    ]
    for _ in range(12):
        organization = fleet.organization(
            dice.choice(["0", "0.01", "0.02", "0.03", "0.05", "0.30", "100.00"])
        )
        for _ in range(dice.randint(1, 4)):
            fleet.at(fleet.now.replace(minute=dice.randint(0, 59), second=dice.randint(0, 59)))
            fleet.instance(organization, dice.choice(plans))
    fleet.hours(1)


def rows(fleet: Fleet) -> dict[str, list[Any]]:
    """All that a run writes, without what is drawn at random."""
    return {name: [tuple(row) for row in fleet.rows(statement)] for name, statement in _ROWS.items()}


@pytest.mark.parametrize("seed", range(6))
def test_both_statements_leave_equal_rows(
    database: str, make_database: Callable[[str], str], seed: int
) -> None:
    """Three hours of one fleet are charged in two copies of it: charges, entries, wallets and events are equal."""
    with psycopg.connect(database, autocommit=True) as conn:
        fleet = Fleet(conn)
        settle_in(fleet, random.Random(seed))
        name, now = conn.info.dbname, fleet.now
    written, ordinary = [], 0
    for kind in (_General, RunCharger):
        with psycopg.connect(make_database(name), autocommit=True) as conn:
            fleet = Fleet(conn, at=now)
            for _ in range(3):
                fleet.hours(1)
                charger = kind()
                assert Outcome.COMPLETED is fleet.bill(charger, batch_size=7).outcome
                ordinary += charger.ordinary if isinstance(charger, _General) else 0
            written.append(rows(fleet))

    assert ordinary > 3
    assert {"billed", "failed"} == {charge[6] for charge in written[0]["charges"]}
    assert written[0] == written[1]
