"""How much is charged after an outage without asking, when parts of it are closed already."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from tests.fleet import Fleet


@pytest.fixture
def fleet(conn: psycopg.Connection[Any]) -> Fleet:
    return Fleet(conn)


def test_closed_hours_beyond_the_bound_are_held(fleet: Fleet) -> None:
    """An instance that was deleted after 73 hours without a run waits for a decision like one that still runs."""
    organization = fleet.organization("10.00")
    gone = fleet.instance(organization, fleet.plan("7.30"))
    fleet.hours(73)
    fleet.delete(gone)
    result = fleet.bill()

    assert (0, 1) == (result.instances_billed, result.held_instances)
    assert [] == fleet.charges()
    assert {gone: "held"} == fleet.quarantine()


def test_closed_and_open_hours_are_counted_together(fleet: Fleet) -> None:
    """Nine closed hours and 64 open ones are 73: none of them is charged, or the next run would charge the rest unasked."""
    organization = fleet.organization("10.00")
    small, large = fleet.plan("7.30"), fleet.plan("14.60")
    web, db = fleet.instance(organization, small), fleet.instance(organization, small)
    fleet.hours(1)
    fleet.bill()
    fleet.hours(9)
    fleet.set(web, plan_id=large)
    fleet.hours(63)
    fleet.set(db, plan_id=large)
    fleet.hours(1)
    fleet.bill()
    again = fleet.bill()

    assert {web: "held", db: "held"} == fleet.quarantine()
    assert (0, 2) == (again.instances_billed, again.held_instances)
    assert ["0.01", "0.01"] == [amount for _, _, amount, _ in fleet.charges()]


@pytest.mark.parametrize("batch_size", [1, 2500])
def test_hours_of_another_organization_do_not_count(fleet: Fleet, batch_size: int) -> None:
    """40 hours are due to the organization it left and 40 to its new one: each is below the bound, in one batch or in two."""
    plan = fleet.plan("7.30")
    old, new = fleet.organization("10.00"), fleet.organization("10.00")
    moving = fleet.instance(old, plan)
    fleet.hours(40)
    fleet.set(moving, organization_id=new)
    fleet.hours(40)
    result = fleet.bill(batch_size=batch_size)

    assert (0, Decimal("0.8")) == (result.held_instances, result.amount)


def test_approved_closed_hours_are_charged(fleet: Fleet) -> None:
    """Of 80 closed hours the first ten were approved: the 70 that are left are within the bound, and all are charged."""
    organization = fleet.organization("10.00")
    gone = fleet.instance(organization, fleet.plan("7.30"))
    ten = fleet.hours(10)
    fleet.hours(70)
    fleet.delete(gone)
    fleet.bill()
    fleet.conn.execute(
        "insert into billing_decisions (organization_id, instance_id, decision, charge_until, decided_by, reason)"
        " values (%s, %s, 'charge', %s, 'somebody', 'it ran')",
        (organization, gone, ten),
    )
    fleet.bill()

    assert [("01 00:00", "04 08:00", "0.8", "billed")] == fleet.charges()


def test_a_change_of_policy_ends_a_started_hour_as_it_began(fleet: Fleet) -> None:
    """Under 'full' an hour that has started is charged to its end, also when its status stops being billable inside it."""
    fleet.terms = replace(fleet.terms, partial_hour="full")
    organization = fleet.organization("10.00")
    fleet.instance(organization, fleet.plan("7.30"))
    fleet.hours(1)
    fleet.bill()
    fleet.hours(1.5)
    fleet.terms = replace(fleet.terms, billable_statuses=("stopped",))
    fleet.bill()
    fleet.terms = replace(fleet.terms, billable_statuses=("running",))
    fleet.hours(0.25)
    fleet.bill()
    fleet.hours(1.25)
    fleet.bill()

    assert [
        ("01 00:00", "01 01:00", "0.01", "billed"),
        ("01 01:00", "01 03:00", "0.02", "billed"),
        ("01 03:00", "01 04:00", "0.01", "billed"),
    ] == fleet.charges()


def test_a_held_instance_is_listed_in_the_run_that_collects_debts(fleet: Fleet) -> None:
    """One instance was due and is held, one was billed, for its debts: that the numbers are equal says nothing."""
    organization = fleet.organization("0.00")
    web = fleet.instance(organization, fleet.plan("7.30"))
    fleet.hours(2)
    fleet.bill()
    fleet.top_up(organization, "5.00")
    fleet.hours(73)
    result = fleet.bill()

    assert (1, 1) == (result.instances_billed, result.held_instances)
    assert {web: "held"} == fleet.quarantine()
