"""A plain run, and nothing that disturbs it: python -m tests.planted.control_run CONNINFO.

A bug that shows here is none that needs faults to be found. So each planted one has to leave this right: hours and parts
of hours, a price that changes, an instance that is resized, stopped and deleted between two runs, a wallet that runs
dry and is topped up. Exit 1 says what is wrong.
"""

from __future__ import annotations

import sys
from decimal import Decimal

import psycopg
from tests.fleet import Fleet

from containerstacks_billing.charging.model import Outcome
from containerstacks_billing.drill import oracle
from containerstacks_billing.verification.verify import verify


def live(fleet: Fleet) -> list[str]:
    """Run a day with frequent runs; return what is wrong with it."""
    oracle.install(fleet.conn)
    small, odd = fleet.plan("7.30"), fleet.plan("6.20")
    rich, poor = fleet.organization("100.00"), fleet.organization("0.05")
    web, db, cache = (fleet.instance(rich, plan) for plan in (small, odd, odd))
    dry = fleet.instance(poor, small)
    outcomes = []
    for hour in range(1, 13):
        fleet.hours(1 if hour % 3 else 2.5)
        outcomes.append(fleet.bill(batch_size=10 if hour % 2 else 3).outcome)
        match hour:
            case 2:
                fleet.reprice(odd, "8.40")
            case 4:
                fleet.set(web, plan_id=odd)
            case 5:
                fleet.set(db, status="stopped")
            case 7:
                fleet.set(db, status="running")
            case 8:
                fleet.delete(cache)
                fleet.top_up(poor, "1.00")
            case 10:
                fleet.delete(dry)
    fleet.hours(1)
    outcomes += [fleet.bill().outcome, fleet.bill().outcome]
    wrong = [f"a run ended as {outcome}" for outcome in outcomes if outcome is not Outcome.COMPLETED]
    verdict = oracle.judge(fleet.conn)
    wrong += verdict.lines
    wrong += [str(discrepancy) for discrepancy in verify(fleet.conninfo).discrepancies]
    if not verdict.charged > Decimal(40):
        wrong.append(f"only {verdict.charged} hours were charged")
    return wrong


if __name__ == "__main__":
    with psycopg.connect(sys.argv[1], autocommit=True) as connection:
        found = live(Fleet(connection))
    print("\n".join(found))
    sys.exit(1 if found else 0)
