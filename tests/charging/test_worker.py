"""A batch that the database refuses: divided until the damaged organization is alone, and every other one is charged."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest
from tests.fleet import Fleet

from containerstacks_billing.charging.model import Outcome
from containerstacks_billing.errors import LeaseLost

_REFUSALS = {
    "a trigger that raises": """
        create function refuse() returns trigger language plpgsql as $$
        begin raise exception 'not this one'; end $$;
        create trigger refuse before insert on vps_billing_cycles
            for each row when (new.organization_id = '{organization}') execute function refuse()
    """,
    "a trigger that divides by zero": """
        create function refuse() returns trigger language plpgsql as $$
        begin perform 1 / 0; return new; end $$;
        create trigger refuse before insert on payment_transactions
            for each row when (new.organization_id = '{organization}') execute function refuse()
    """,
    "a check": "alter table vps_billing_cycles add constraint refuse check (organization_id <> '{organization}') not valid",
    "a unique key of the host": """
        create unique index refuse on payment_transactions (organization_id) where organization_id = '{organization}'
            and payment_method = 'wallet_debit'
    """,
}
_REPAIRS = {
    "a trigger that raises": "drop trigger refuse on vps_billing_cycles",
    "a trigger that divides by zero": "drop trigger refuse on payment_transactions",
    "a check": "alter table vps_billing_cycles drop constraint refuse",
    "a unique key of the host": "drop index refuse",
}


@pytest.fixture
def fleet(conn: psycopg.Connection[Any]) -> Fleet:
    return Fleet(conn)


def hours_charged(fleet: Fleet) -> dict[UUID, Decimal]:
    """Hours charged by organization."""
    rows = fleet.rows(
        "select organization_id, sum(extract(epoch from billing_period_end - billing_period_start)) / 3600 as hours"
        " from vps_billing_cycles where run_id is not null group by 1"
    )
    return {row.organization_id: row.hours.normalize() for row in rows}


@pytest.mark.parametrize("refusal", _REFUSALS)
def test_one_organization_that_is_refused_stops_no_other(fleet: Fleet, refusal: str) -> None:
    """Forty organizations in one batch: 39 are charged, the run names the one, the next run charges what it owes."""
    plan = fleet.plan("7.30")
    organizations = [fleet.organization("10.00") for _ in range(40)]
    for organization in organizations:
        fleet.instance(organization, plan)
        fleet.instance(organization, plan)
    fleet.hours(1)
    fleet.bill()
    refused = organizations[17]
    fleet.conn.execute(_REFUSALS[refusal].format(organization=refused))
    fleet.hours(2)
    failed = fleet.bill(batch_size=1000)
    after_failure = hours_charged(fleet)
    fleet.conn.execute(_REPAIRS[refusal])
    fleet.hours(1)
    repaired = fleet.bill(batch_size=1000)

    assert (Outcome.FAILED, 78) == (failed.outcome, failed.instances_billed)
    assert str(failed.error_message).startswith(f"organization {refused} cannot be charged: ")
    assert {o: Decimal(2 if o == refused else 6) for o in organizations} == after_failure
    assert (Outcome.COMPLETED, 80) == (repaired.outcome, repaired.instances_billed)
    assert {o: Decimal(8) for o in organizations} == hours_charged(fleet)
    assert {Decimal("9.92")} == {fleet.balance(organization)[0] for organization in organizations}


def test_one_refused_instance_of_a_large_organization_stops_only_its_slice(fleet: Fleet) -> None:
    """Ten instances in slices of three: the slice with the refused one waits, the other instances are charged."""
    organization, plan = fleet.organization("10.00"), fleet.plan("7.30")
    instances = sorted(fleet.instance(organization, plan) for _ in range(10))
    fleet.hours(1)
    fleet.conn.execute(
        f"alter table vps_billing_cycles add constraint refuse check (vps_instance_id <> '{instances[4]}')"
    )
    failed = fleet.bill(batch_size=3)
    fleet.conn.execute("alter table vps_billing_cycles drop constraint refuse")
    repaired = fleet.bill(batch_size=3)

    assert (Outcome.FAILED, 7) == (failed.outcome, failed.instances_billed)
    assert f"organization {organization} cannot be charged" in str(failed.error_message)
    assert (Outcome.COMPLETED, 3) == (repaired.outcome, repaired.instances_billed)
    assert {organization: Decimal(10)} == hours_charged(fleet)
    assert (Decimal("9.90"), Decimal(0)) == fleet.balance(organization)


def test_several_that_are_refused_are_counted(fleet: Fleet) -> None:
    """The first is named, the others are counted, and all others are charged."""
    plan = fleet.plan("7.30")
    organizations = [fleet.organization("10.00") for _ in range(9)]
    for organization in organizations:
        fleet.instance(organization, plan)
    fleet.hours(1)
    fleet.conn.execute(
        "alter table vps_billing_cycles add constraint refuse check (organization_id not in"
        f" ('{organizations[1]}', '{organizations[5]}', '{organizations[8]}'))"
    )
    failed = fleet.bill(workers=1)

    assert (Outcome.FAILED, 6) == (failed.outcome, failed.instances_billed)
    assert str(failed.error_message).endswith("(and 2 more)")


def test_a_run_whose_hours_were_taken_back_charges_none_of_them(fleet: Fleet) -> None:
    """The clock is set back under a run: its batches charge nothing, and the next run charges by the clock as it is."""
    fleet.instance(fleet.organization(), fleet.plan("7.30"))
    fleet.hours(10)
    ahead = fleet.now
    fleet.at("2026-03-01 02:00")

    with pytest.raises(LeaseLost, match="charged nothing"):
        fleet.bill(as_of=ahead, host_clock=ahead)
    assert [] == fleet.charges()
    assert Decimal(2) == fleet.bill().hours
