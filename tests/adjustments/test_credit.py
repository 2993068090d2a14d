"""Credits for outages: what each hour stands at, once, by a share, within a cap, with debts first."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from tests.adjustments.test_reverse import billed_fleet, entries, post, prove, state, undo
from tests.fleet import Fleet, instant

from containerstacks_billing.adjustments.model import Cap, Mode, Order, OrderKind, Scope
from containerstacks_billing.adjustments.orders import instances_in, preview


@pytest.fixture
def fleet(conn: psycopg.Connection[Any]) -> Fleet:
    return Fleet(conn)


def credit(
    begin: str, end: str, factor: str = "1", cap: tuple[str, int] | None = None, **scope: Any
) -> Order:
    return Order(
        OrderKind.CREDIT,
        Mode.CREDIT,
        Scope(begin=instant(f"2026-03-01 {begin}"), end=instant(f"2026-03-01 {end}"), **scope),
        "tester",
        "outage",
        factor=Decimal(factor),
        cap=cap and Cap(Decimal(cap[0]), timedelta(hours=cap[1])),
    )


def test_an_outage_is_credited_once_and_the_entry_explains_itself(fleet: Fleet) -> None:
    """Three of six hours: thirty cents; given again nothing; a span over it credits the other three."""
    organization, _ = billed_fleet(fleet, 1, 5)
    order = credit("00:00", "03:00")
    post(fleet, order)
    post(fleet, order)
    wider = preview(fleet.conn, credit("00:00", "06:00")).effects.answers

    assert [
        ("0.30", "manual_adjustment", "billing-credit-1",
         "VPS Service Credit - 1 instance (3h from 2026-03-01 00:00 UTC)")
    ] == entries(fleet, organization)  # fmt: skip
    assert (Decimal("9.70"), Decimal(0)) == fleet.balance(organization)
    assert (Decimal("-0.3"), Decimal(3)) == (wider.now, wider.already_hours)
    assert [("credited", "0.30")] == [
        (row.kind, row.payload["amount"])
        for row in fleet.rows("select * from billing_events where kind = 'credited'")
    ]


def test_hours_covered_in_part_count_with_that_part(fleet: Fleet) -> None:
    """From a quarter past one until half past three: three quarters, a whole, and a half of an hour."""
    organization, _ = billed_fleet(fleet, 6)
    post(fleet, credit("01:15", "03:30"))

    assert [
        ("01 01:00", "01 02:00", "0.1", "0.025", "-0.075"),
        ("01 02:00", "01 03:00", "0.1", "0", "-0.1"),
        ("01 03:00", "01 04:00", "0.1", "0.05", "-0.05"),
    ] == fleet.adjustments()
    # 60 cents were charged and 22.5 come back: the whole cents move, half a cent is carried.
    assert (Decimal("9.63"), Decimal("0.005")) == fleet.balance(organization)


def test_a_span_inside_one_hour_counts_with_its_part(fleet: Fleet) -> None:
    """Ten minutes are a sixth of the hour, rounded to eight digits in favour of the charge."""
    billed_fleet(fleet, 2)
    post(fleet, credit("01:20", "01:30"))

    assert [("01 01:00", "01 02:00", "0.1", "0.08333334", "-0.01666666")] == fleet.adjustments()


def test_half_is_credited_and_a_reversal_gives_back_the_other_half(fleet: Fleet) -> None:
    """Nothing is given back twice: what stands after the credit is what is left to reverse."""
    organization, _ = billed_fleet(fleet, 2)
    post(fleet, credit("00:00", "02:00", "0.5"))
    post(
        fleet,
        Order(OrderKind.REVERSAL, Mode.WAIVE, Scope(run=1), "tester", "test"),
    )

    assert [
        ("01 00:00", "01 02:00", "0.1", "0.05", "-0.1"),
        ("01 00:00", "01 02:00", "0.05", "0", "-0.1"),
    ] == fleet.adjustments()
    assert (Decimal("10.00"), Decimal(0)) == fleet.balance(organization)


def test_past_due_hours_become_cheaper_and_no_money_moves(fleet: Fleet) -> None:
    """Four hours are owed; half of two of them is credited: three hours' worth is left to pay, and an undo restores it."""
    organization, _ = billed_fleet(fleet, 4, balance="0.00")
    before = state(fleet)
    order = credit("01:00", "03:00", "0.5")
    outcome = post(fleet, order)
    post(fleet, order)
    owed = fleet.charges()
    post(fleet, undo(1, OrderKind.CREDIT))

    assert (0, 1) == (outcome.adjustments, outcome.repriced)
    assert [
        ("01 00:00", "01 01:00", "0.1", "failed"),
        ("01 01:00", "01 03:00", "0.1", "failed"),
        ("01 03:00", "01 04:00", "0.1", "failed"),
    ] == owed
    assert (Decimal("0.00"), Decimal(0)) == fleet.balance(organization)
    assert before[:1] == state(fleet)[:1]
    assert Decimal("0.4") == sum(Decimal(amount) for _, _, amount, _ in fleet.charges())


def test_past_due_hours_that_were_credited_and_paid_in_part_can_be_undone(fleet: Fleet) -> None:
    """Half price, one hour of it paid: the undo charges that hour's other half and restores what is owed."""
    organization, _ = billed_fleet(fleet, 4, balance="0.00")
    post(fleet, credit("00:00", "04:00", "0.5"))
    fleet.top_up(organization, "0.05")
    fleet.hours(0.5)
    fleet.bill()
    assert [
        ("01 00:00", "01 01:00", "0.05", "billed"),
        ("01 01:00", "01 04:00", "0.15", "failed"),
    ] == fleet.charges()
    fleet.top_up(organization, "0.05")
    post(fleet, undo(1, OrderKind.CREDIT))

    assert [("01 00:00", "01 01:00", "0.05", "0.1", "0.05")] == fleet.adjustments()
    assert [
        ("01 00:00", "01 01:00", "0.05", "billed"),
        ("01 01:00", "01 04:00", "0.3", "failed"),
    ] == fleet.charges()
    assert (Decimal("0.00"), Decimal(0)) == fleet.balance(organization)


def test_more_than_the_charge_only_with_a_factor(fleet: Fleet) -> None:
    """Ten times two hours at ten cents: two dollars, and verify knows why."""
    organization, _ = billed_fleet(fleet, 4)
    post(fleet, credit("00:00", "02:00", "10"))

    assert [("01 00:00", "01 02:00", "0.1", "-0.9", "-2")] == fleet.adjustments()
    assert (Decimal("11.60"), Decimal(0)) == fleet.balance(organization)


def test_what_is_owed_is_free_at_most_whatever_the_factor(fleet: Fleet) -> None:
    """Ten times what was never paid is nothing to give back: the hours are free, and no money moves."""
    organization, _ = billed_fleet(fleet, 2, balance="0.00")
    post(fleet, credit("00:00", "02:00", "10"))

    assert [("01 00:00", "01 02:00", "0", "refunded")] == fleet.charges()
    assert (Decimal("0.00"), Decimal(0)) == fleet.balance(organization)


def test_a_cap_bounds_the_credit_of_each_instance_by_what_it_was_charged(fleet: Fleet) -> None:
    """Ten times two hours would be two dollars; half of what its last four hours cost is twenty cents; again is nothing."""
    organization, _ = billed_fleet(fleet, 4)
    order = credit("02:00", "04:00", "10", ("50", 4))
    post(fleet, order)
    post(fleet, order)

    assert [("01 02:00", "01 04:00", "0.1", "0", "-0.2")] == fleet.adjustments()
    assert (Decimal("9.80"), Decimal(0)) == fleet.balance(organization)


def test_hours_that_are_not_charged_yet_are_left_out_and_said(fleet: Fleet) -> None:
    """Two hours are charged, the outage lasted four: two are credited now, the others when it is given again."""
    organization, _ = billed_fleet(fleet, 2)
    fleet.hours(2)
    order = credit("00:00", "04:00")
    first = post(fleet, order)
    fleet.bill()
    second = post(fleet, order)

    assert (1, Decimal(2)) == (first.uncharged.instances, first.uncharged.hours)
    assert (0, Decimal(0)) == (second.uncharged.instances, second.uncharged.hours)
    assert [1] == [row.id for row in fleet.rows("select id from billing_adjustment_orders")]
    assert (Decimal("10.00"), Decimal(0)) == fleet.balance(organization)


def test_only_the_region_that_was_down(fleet: Fleet) -> None:
    """Two instances, one in fra: only it is credited."""
    organization, plan = fleet.organization("10.00"), fleet.plan("73.00")
    there, _ = fleet.instance(organization, plan), fleet.instance(organization, plan)
    fleet.conn.execute("alter table vps_instances add column if not exists configuration jsonb default '{}'")
    fleet.conn.execute(
        """update vps_instances set configuration = '{"region": "fra"}' where id = %s""", (there,)
    )
    fleet.hours(2)
    fleet.bill()
    instances = instances_in(fleet.conn, "fra")
    post(fleet, credit("00:00", "02:00", region="fra", instances=instances))

    assert (there,) == instances
    assert () == instances_in(fleet.conn, "ams")
    assert (Decimal("9.80"), Decimal(0)) == fleet.balance(organization)


def test_a_credit_is_undone_to_the_last_digit(fleet: Fleet) -> None:
    """A rate of eight digits, a third of the hours: balance and carry are as they were."""
    billed_fleet(fleet, 1, 6, base="7.77")
    before = state(fleet)
    post(fleet, credit("00:20", "05:10", "0.33"))
    changed = state(fleet)
    post(fleet, undo(1, OrderKind.CREDIT))
    prove(fleet)

    assert before != changed
    assert before == state(fleet)
