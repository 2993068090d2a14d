"""The brake in a run: a held run charges nothing, holds every later run, and passes after its release."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from tests.fleet import Fleet

from containerstacks_billing.charging.fleet_reading import latest_hold, release_hold
from containerstacks_billing.charging.model import Outcome


@pytest.fixture
def fleet(conn: psycopg.Connection[Any]) -> Fleet:
    return Fleet(conn)


def release(fleet: Fleet) -> str:
    """Release the hold that stands, and return its sentence."""
    hold = latest_hold(fleet.conn)
    assert hold is not None
    assert release_hold(fleet.conn, hold, "operator", "looked at it")
    return hold.sentence


def test_a_price_typed_wrong_is_held_for_every_trigger_until_it_is_released(fleet: Fleet) -> None:
    """$7.30 becomes $73.00: no run charges, of one organization neither; released, the missing hours are charged once."""
    organization, plan = fleet.organization("10.00"), fleet.plan("7.30", provider_plan_id="vc-1")
    fleet.instance(organization, plan)
    fleet.hours(1)
    fleet.bill()
    fleet.reprice(plan, "73.00")
    fleet.hours(1)
    first = fleet.bill(trigger="daemon")
    fleet.hours(1)
    later = [fleet.bill(trigger="built-in"), fleet.bill(trigger="manual", organization=organization)]

    said = f"plan {fleet.rows('select name from vps_plans')[0].name} ({plan}) costs 0.10000000 per hour, 0.01000000 at the last run"
    assert (Outcome.HELD, said) == (first.outcome, first.error_message)
    assert [(Outcome.HELD, f"run {first.run_id} was held: {said}")] * 2 == [
        (run.outcome, run.error_message) for run in later
    ]
    assert [("01 00:00", "01 01:00", "0.01", "billed")] == fleet.charges()

    assert said == release(fleet)
    passed = fleet.bill()
    assert (Outcome.COMPLETED, Decimal("0.20")) == (passed.outcome, passed.amount)
    assert [
        ("01 00:00", "01 01:00", "0.01", "billed"),
        ("01 01:00", "01 03:00", "0.2", "billed"),
    ] == fleet.charges()
    fleet.hours(1)
    assert Outcome.COMPLETED is fleet.bill().outcome


def test_a_price_that_was_wrong_for_an_hour_between_two_runs_is_seen(fleet: Fleet) -> None:
    """It is right again when the run looks, but the hours in between would be charged at the wrong one."""
    organization, plan = fleet.organization("10.00"), fleet.plan("7.30")
    fleet.instance(organization, plan)
    fleet.hours(1)
    fleet.bill()
    fleet.reprice(plan, "730.00")
    fleet.hours(2)
    fleet.reprice(plan, "7.30")
    fleet.hours(1)
    held = fleet.bill()

    assert Outcome.HELD is held.outcome
    assert str(held.error_message).endswith(
        " cost up to 1.00000000 per hour since the last run (now 0.01000000; 0.01000000 before)"
    )


def test_what_is_released_is_what_the_next_run_is_compared_with(fleet: Fleet) -> None:
    """A release is not a free pass: a second mistake after it is held for itself."""
    organization, plan = fleet.organization("100.00"), fleet.plan("7.30")
    fleet.instance(organization, plan)
    fleet.hours(1)
    fleet.bill()
    fleet.reprice(plan, "73.00")
    fleet.hours(1)
    fleet.bill()
    release(fleet)
    fleet.reprice(plan, "7300.00")
    fleet.hours(1)
    again = fleet.bill()

    assert Outcome.HELD is again.outcome
    assert "costs 10.00000000 per hour, 0.10000000 at the last run" in str(again.error_message)
    release(fleet)
    assert Outcome.COMPLETED is fleet.bill().outcome


def test_a_fleet_that_multiplies_is_held(fleet: Fleet) -> None:
    """Four instances become thirteen: more than three times as many, and more than ten."""
    organization, plan = fleet.organization("100.00"), fleet.plan("7.30")
    for _ in range(4):
        fleet.instance(organization, plan)
    fleet.hours(1)
    fleet.bill()
    for _ in range(9):
        fleet.instance(organization, plan)
    fleet.hours(1)

    assert "13 instances are billable, 4 were at the last run" == fleet.bill().error_message


def test_a_change_of_what_is_billable_is_held_when_it_multiplies_the_fleet(fleet: Fleet) -> None:
    """A setting is typed wrong as easily as a price, so the sentence names it and a release lets it through."""
    organization, plan = fleet.organization("100.00"), fleet.plan("7.30")
    for number in range(16):
        fleet.instance(organization, plan, status="stopped" if number else "running")
    fleet.hours(1)
    fleet.bill()
    fleet.terms = type(fleet.terms)(billable_statuses=("*",))
    fleet.hours(1)

    assert (
        "16 instances are billable, 1 was at the last run (BILLABLE_STATUSES was running and is *)"
        == fleet.bill().error_message
    )


def test_a_database_clock_that_jumps_ahead_charges_nothing(fleet: Fleet) -> None:
    """Two days that did not pass are not charged; when the clock is right again, a release lets the run go on."""
    organization, plan = fleet.organization("10.00"), fleet.plan("7.30")
    fleet.instance(organization, plan)
    fleet.hours(1)
    fleet.bill()
    right = fleet.hours(1)
    fleet.hours(48)
    held = fleet.bill(host_clock=right)
    fleet.at(right)
    release(fleet)
    billed = fleet.bill()

    assert (Outcome.HELD, Outcome.COMPLETED) == (held.outcome, billed.outcome)
    assert "moved by 2 d 1 h and this host's by 1 h 0 min" in str(held.error_message)
    assert [("01 00:00", "01 02:00", "0.02", "billed")] == _joined(fleet)


def _joined(fleet: Fleet) -> list[tuple[str, str, str, str]]:
    charges = fleet.charges()
    amount = sum((Decimal(charge[2]) for charge in charges), Decimal(0))
    return [(charges[0][0], charges[-1][1], str(amount), charges[0][3])]


def test_a_database_clock_that_goes_back_charges_nothing_and_sets_nothing_aside(fleet: Fleet) -> None:
    """The watermarks lie ahead of such a clock because they are right."""
    organization, plan = fleet.organization("10.00"), fleet.plan("7.30")
    fleet.instance(organization, plan)
    right = fleet.hours(5)
    fleet.bill()
    fleet.hours(-4)
    back = fleet.bill(host_clock=right + timedelta(hours=1))
    fleet.at(right + timedelta(hours=1))
    forward = fleet.bill()

    assert (Outcome.COMPLETED, 0, 0) == (back.outcome, back.instances_billed, back.quarantined_instances)
    assert (Outcome.COMPLETED, 1) == (forward.outcome, forward.instances_billed)
    assert [("01 00:00", "01 06:00", "0.06", "billed")] == _joined(fleet)


def test_a_repair_with_a_wrong_price_is_held(fleet: Fleet) -> None:
    """A plan without a usable price is compared with the last one that it had."""
    fleet.instance(fleet.organization("10.00"), plan := fleet.plan("7.30"))
    fleet.hours(1)
    fleet.bill()
    outcomes = []
    for price in ("NaN", "73.00"):
        fleet.reprice(plan, price)
        fleet.hours(1)
        outcomes.append(fleet.bill().outcome)

    assert [Outcome.COMPLETED, Outcome.HELD] == outcomes


def test_known_growth_is_no_reason(fleet: Fleet) -> None:
    """An outage of three days, a debt of weeks, a plan that was unusable, and a run half a minute after another."""
    plan = fleet.plan("7.30")
    rich, poor = fleet.organization("100.00"), fleet.organization("0.00")
    for organization in (rich, poor):
        for _ in range(10):
            fleet.instance(organization, plan)
    fleet.hours(1)
    fleet.conn.execute("alter table vps_plans alter column base_price drop not null")
    outcomes = [fleet.bill().outcome]
    fleet.hours(70)
    outcomes.append(fleet.bill().outcome)
    fleet.top_up(poor, "100.00")
    fleet.at(timedelta(seconds=30))
    outcomes.append(fleet.bill().outcome)
    fleet.conn.execute("update vps_plans set base_price = 'NaN'")
    fleet.hours(1)
    outcomes.append(fleet.bill().outcome)
    fleet.conn.execute("update vps_plans set base_price = 7.30")
    fleet.hours(1)
    outcomes.append(fleet.bill().outcome)

    assert [Outcome.COMPLETED] * 5 == outcomes


@pytest.mark.parametrize("price", ["NaN", "-5", "null"])
def test_no_price_at_all_is_no_reason(fleet: Fleet, price: str) -> None:
    """A fleet without one usable price is quarantined, and the brake has nothing to divide by."""
    organization, plan = fleet.organization("10.00"), fleet.plan("7.30")
    fleet.instance(organization, plan)
    fleet.conn.execute("alter table vps_plans alter column base_price drop not null")
    fleet.conn.execute(f"update vps_plans set base_price = {price if price == 'null' else repr(price)}")
    outcomes = [fleet.bill().outcome]
    fleet.hours(2)
    outcomes.append(fleet.bill().outcome)

    assert [Outcome.COMPLETED] * 2 == outcomes
    assert {"unusable price"} == set(fleet.quarantine().values())


@pytest.mark.parametrize("shrink_brake", [False, True])
def test_a_fleet_that_vanished_is_said_and_held_where_that_is_set(
    conn: psycopg.Connection[Any], shrink_brake: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    """Twelve instances an hour ago and one now: a warning, and a hold that one release lets pass."""
    fleet = Fleet(conn, shrink_brake=shrink_brake)
    owner, plan = fleet.organization("10.00"), fleet.plan("7.30")
    instances = [fleet.instance(owner, plan) for _ in range(12)]
    fleet.hours(1)
    fleet.bill()
    for instance in instances[1:]:
        fleet.delete(instance)
    fleet.hours(1)
    run = fleet.bill()

    said = "1 instance is billable, 12 were at the last run"
    assert said in capfd.readouterr().out
    assert (
        (Outcome.HELD, said) == (run.outcome, run.error_message)
        if shrink_brake
        else Outcome.COMPLETED is run.outcome
    )
    if shrink_brake:
        assert said == release(fleet)
        assert Outcome.COMPLETED is fleet.bill().outcome
