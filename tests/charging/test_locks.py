"""A transaction of the host that stays open: its organization waits, all others are charged, and the message names it."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from tests.fleet import Fleet

from containerstacks_billing.charging import lease as leases
from containerstacks_billing.charging.charger import RunCharger
from containerstacks_billing.charging.model import Bounds, Outcome
from containerstacks_billing.errors import LeaseNotObtained

_LOCKS = {
    "its wallet": "select from wallets where organization_id = %s for update",
    "an instance": "update vps_instances set label = 'renamed' where organization_id = %s",
    "the organization": "select from organizations where id = %s for update",
}


@pytest.fixture
def fleet(conn: psycopg.Connection[Any]) -> Fleet:
    return Fleet(conn)


@pytest.mark.parametrize("what", _LOCKS)
def test_an_organization_that_is_locked_waits_alone(fleet: Fleet, what: str) -> None:
    """Ten organizations in one batch, one locked: nine are charged, the run fails by name, the next run charges the tenth."""
    plan = fleet.plan("7.30")
    organizations = [fleet.organization("10.00") for _ in range(10)]
    for organization in organizations:
        fleet.instance(organization, plan)
    fleet.hours(1)
    fleet.bill()
    fleet.hours(1)
    locked = sorted(organizations)[4]
    with psycopg.connect(fleet.conninfo, application_name="host app") as host:
        host.execute(_LOCKS[what], (locked,))
        failed = fleet.bill(RunCharger(Bounds(lock="20ms")))
        pid = host.info.backend_pid
    repaired = fleet.bill()

    assert (Outcome.FAILED, 9) == (failed.outcome, failed.instances_billed)
    assert re.fullmatch(
        rf"organization {locked} cannot be charged: a row of it is locked by process {pid} of \w+ \(host app\),"
        r" in a transaction since 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC",
        str(failed.error_message),
    )
    assert (Outcome.COMPLETED, 1) == (repaired.outcome, repaired.instances_billed)
    assert {Decimal("9.98")} == {fleet.balance(organization)[0] for organization in organizations}


def test_waiting_for_the_row_of_the_lease_counts(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each attempt waits for a lock for its own time: the first one that ends after the bound is the last."""
    monkeypatch.setattr("containerstacks_billing.database.connection.LOCK_TIMEOUT", "300ms")
    attempts: list[None] = []
    with psycopg.connect(fleet.conninfo) as host, psycopg.connect(fleet.conninfo, autocommit=True) as ours:
        host.execute("select from billing_leases for update")
        with pytest.raises(LeaseNotObtained):
            leases.acquire(ours, "us", wait_seconds=0.2, waiting=lambda _: attempts.append(None))
    assert [] == attempts
