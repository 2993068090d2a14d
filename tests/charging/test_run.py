"""A run, told as ledgers: what is given, what was charged, what is left on the wallet."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from tests.daemons import wait_for_lock
from tests.fleet import Fleet

from containerstacks_billing.charging.dry_run import dry_run
from containerstacks_billing.charging.forecast import Limits
from containerstacks_billing.charging.model import Outcome


@pytest.fixture
def fleet(conn: psycopg.Connection[Any]) -> Fleet:
    return Fleet(conn)


def test_a_run_charges_whole_hours_and_a_second_run_charges_nothing(fleet: Fleet) -> None:
    """Five and a half hours of a $7.30 plan are five charges' worth, once."""
    organization = fleet.organization("10.00")
    fleet.instance(organization, fleet.plan("7.30"))
    fleet.hours(5.5)

    first = fleet.bill()
    second = fleet.bill()

    assert (Outcome.COMPLETED, 1, Decimal("0.05")) == (first.outcome, first.instances_billed, first.amount)
    assert (Outcome.COMPLETED, 0, Decimal(0)) == (second.outcome, second.instances_billed, second.amount)
    assert [("01 00:00", "01 05:00", "0.05", "billed")] == fleet.charges()
    assert (Decimal("9.95"), Decimal(0)) == fleet.balance(organization)


@pytest.mark.parametrize(
    ("monthly", "debited", "carried"),
    [("6.00", "6.00", "0.0000014"), ("3.00", "3.00", "0.0000007"), ("11.00", "10.99", "0.00999770")],
)
def test_a_month_of_hourly_runs_debits_the_monthly_price(
    fleet: Fleet, monthly: str, debited: str, carried: str
) -> None:
    """730 hourly runs of a $6 plan debit $6.00; what eight digits leave over is carried, never rounded up."""
    organization = fleet.organization("100.00")
    fleet.instance(organization, fleet.plan(monthly))
    for _ in range(10):
        fleet.hours(1)
        fleet.bill()
    for _ in range(12):
        fleet.hours(60)
        fleet.bill()

    balance, carry = fleet.balance(organization)
    assert Decimal("100.00") - Decimal(debited) == balance
    assert Decimal(carried).normalize() == carry


def test_a_debit_names_its_instance_or_counts_them_and_says_the_hours(fleet: Fleet) -> None:
    """As the customer reads it: one by its label, also when it is gone by then; several by their number."""
    organization, plan = fleet.organization("10.00"), fleet.plan("73.00")
    web = fleet.instance(organization, plan, label="web-01")
    fleet.hours(1)
    fleet.bill()
    shop = fleet.instance(organization, plan, label="shop")
    fleet.hours(1)
    fleet.bill()
    fleet.delete(shop)
    fleet.hours(0.5)
    fleet.delete(web)
    fleet.bill()

    entries = fleet.rows("select description from payment_transactions where amount < 0 order by created_at")
    assert [
        "VPS Hourly Billing - web-01 (1h)",
        "VPS Hourly Billing - 2 instances (2h)",
        "VPS Hourly Billing - web-01 (0.5h)",
    ] == [entry.description for entry in entries]


def test_an_hour_is_rated_at_the_price_in_force_at_its_start(fleet: Fleet) -> None:
    """A price that rises at half past takes effect with the next hour."""
    organization = fleet.organization("10.00")
    plan = fleet.plan("7.30")
    fleet.instance(organization, plan)
    fleet.hours(1.5)
    fleet.reprice(plan, "73.00")
    fleet.hours(2.5)
    fleet.bill()

    assert [
        ("01 00:00", "01 02:00", "0.02", "billed"),
        ("01 02:00", "01 04:00", "0.2", "billed"),
    ] == fleet.charges()


def test_a_stop_is_billed_to_the_second_and_the_gap_is_not(fleet: Fleet) -> None:
    """Stopped at 01:30, started at 05:00, deleted at 06:15."""
    organization = fleet.organization("10.00")
    web = fleet.instance(organization, fleet.plan("7.30"))
    fleet.hours(1.5)
    fleet.set(web, status="stopped")
    fleet.at("2026-03-01 05:00")
    fleet.set(web, status="running")
    fleet.at("2026-03-01 06:15")
    fleet.delete(web)
    fleet.hours(1)
    fleet.bill()

    assert [
        ("01 00:00", "01 01:30", "0.015", "billed"),
        ("01 05:00", "01 06:15", "0.0125", "billed"),
    ] == fleet.charges()


def test_a_short_wallet_pays_the_oldest_hours_and_owes_the_rest(fleet: Fleet) -> None:
    """Two cents pay two of five hours at one cent; the rest is past due, paid once after a top-up."""
    organization = fleet.organization("0.02")
    fleet.instance(organization, fleet.plan("7.30"))
    fleet.hours(5)
    short = fleet.bill()
    fleet.hours(1)
    fleet.bill()
    owing = fleet.charges()
    fleet.top_up(organization, "1.00")
    fleet.bill()

    assert (1, Decimal("0.02")) == (short.past_due_instances, short.amount)
    assert [
        ("01 00:00", "01 02:00", "0.02", "billed"),
        ("01 02:00", "01 05:00", "0.03", "failed"),
        ("01 05:00", "01 06:00", "0.01", "failed"),
    ] == owing
    assert [
        ("01 00:00", "01 02:00", "0.02", "billed"),
        ("01 02:00", "01 05:00", "0.03", "billed"),
        ("01 05:00", "01 06:00", "0.01", "billed"),
    ] == fleet.charges()
    assert (Decimal("0.96"), Decimal(0)) == fleet.balance(organization)


def test_poison_is_quarantined_and_the_rest_of_its_organization_is_billed(fleet: Fleet) -> None:
    """An instance whose plan does not exist waits; its neighbour is charged; repaired, it is charged too."""
    organization = fleet.organization("10.00")
    plan = fleet.plan("7.30")
    fleet.instance(organization, plan)
    lost = fleet.instance(organization, "no-such-plan")
    fleet.hours(2)
    result = fleet.bill()

    assert (Outcome.COMPLETED, 1, 1) == (
        result.outcome,
        result.instances_billed,
        result.quarantined_instances,
    )
    assert {lost: "no plan"} == fleet.quarantine()

    fleet.conn.execute("update vps_plans set provider_plan_id = 'no-such-plan' where id = %s", (plan,))
    assert 1 == fleet.bill().instances_billed
    assert {} == fleet.quarantine()


def test_a_watermark_that_was_moved_back_charges_nothing_twice(fleet: Fleet) -> None:
    """Half an hour back, or a whole row as it stood before: both go on where their charges end."""
    organization = fleet.organization("10.00")
    plan = fleet.plan("7.30")
    web, db, healthy = [fleet.instance(organization, plan) for _ in range(3)]
    fleet.hours(3)
    fleet.bill()
    fleet.set(web, last_billed_at=fleet.now - timedelta(minutes=30))
    fleet.set(db, last_billed_at=fleet.now - timedelta(hours=3), rated_until=fleet.now - timedelta(hours=3))
    fleet.hours(2)
    result = fleet.bill()

    expected = [("01 00:00", "01 03:00", "0.03", "billed"), ("01 03:00", "01 05:00", "0.02", "billed")]
    assert [expected] * 3 == [fleet.charges(one) for one in (web, db, healthy)]
    assert (Outcome.COMPLETED, 3, {}) == (result.outcome, result.instances_billed, fleet.quarantine())


def test_a_long_outage_is_held(fleet: Fleet) -> None:
    """72 hours are caught up, 73 wait for a decision."""
    organization = fleet.organization("10.00")
    plan = fleet.plan("7.30")
    older = fleet.instance(organization, plan)
    fleet.hours(1)
    fleet.instance(organization, plan)
    fleet.hours(72)
    result = fleet.bill()

    assert (1, 1) == (result.instances_billed, result.held_instances)
    assert {older: "held"} == fleet.quarantine()


def test_a_large_organization_is_charged_in_slices(fleet: Fleet) -> None:
    """Ten instances in batches of three, when the wallet covers them; as a whole when it does not."""
    plan = fleet.plan("7.30")
    rich, poor = fleet.organization("10.00"), fleet.organization("0.05")
    for _ in range(10):
        fleet.instance(rich, plan)
        fleet.instance(poor, plan)
    fleet.hours(1)
    result = fleet.bill(batch_size=3)

    assert (5, 15) == (result.batches, result.instances_billed)
    assert (Decimal("9.90"), Decimal(0)) == fleet.balance(rich)
    assert (Decimal("0.00"), Decimal(0)) == fleet.balance(poor)


def test_a_wallet_that_was_empty_for_weeks_is_collected_at_once_and_once(fleet: Fleet) -> None:
    """Three weeks of debts are never held; after the top-up a run of this organization alone collects them, once."""
    poor, other, plan = fleet.organization("0.00"), fleet.organization("9.00"), fleet.plan("7.30")
    fleet.instance(poor, plan)
    fleet.instance(other, plan)
    for _ in range(7):
        fleet.hours(72)
        run = fleet.bill()
    assert (1, 0) == (run.past_due_instances, run.held_instances)
    fleet.hours(3)
    fleet.top_up(poor, "6.00")
    alone = fleet.bill(organization=poor)
    again = fleet.bill(organization=poor)
    everybody = fleet.bill()

    assert (Decimal("5.07"), 507, 0) == (alone.amount, alone.hours, alone.past_due_instances)
    assert (0, Decimal("0.03")) == (again.hours, everybody.amount)
    assert (Decimal("0.93"), Decimal(0)) == fleet.balance(poor)


def test_debts_pass_to_the_wallet_that_replaces_a_deleted_one(fleet: Fleet) -> None:
    """An organization owes two hours, its wallet is deleted and another made: the debts are paid from that, once."""
    organization = fleet.organization("0.00")
    web = fleet.instance(organization, fleet.plan("7.30"))
    fleet.hours(2)
    fleet.bill()
    fleet.delete(web)
    fleet.conn.execute("delete from wallets where organization_id = %s", (organization,))
    fleet.wallet(organization, "1.00")
    fleet.bill()
    fleet.bill()

    assert [("01 00:00", "01 02:00", "0.02", "billed")] == fleet.charges()
    assert (Decimal("0.98"), Decimal(0)) == fleet.balance(organization)


def test_a_dry_run_marks_no_damage(fleet: Fleet) -> None:
    """The unique key refuses a restored watermark in a rehearsal too; what the worker learns from it is not kept."""
    organization = fleet.organization("10.00")
    web = fleet.instance(organization, fleet.plan("7.30"))
    fleet.hours(3)
    fleet.bill()
    fleet.set(web, last_billed_at=fleet.now - timedelta(hours=3), rated_until=fleet.now - timedelta(hours=3))
    fleet.hours(2)
    before = fleet.rows("select last_billed_at, rated_until from vps_instances")
    found = dry_run(fleet.order(), Limits())

    assert before == fleet.rows("select last_billed_at, rated_until from vps_instances")
    assert Outcome.COMPLETED == found.outcome


@pytest.mark.parametrize(
    ("change", "in_this_run", "in_the_next"),
    [
        ("label = 'renamed'", [("01 00:00", "01 01:00", "0.01", "billed")], []),
        ("status = 'stopped'", [], [("01 00:00", "01 01:30", "0.015", "billed")]),
        ("plan_id = 'another'", [], [("01 00:00", "01 01:30", "0.015", "billed")]),
    ],
)
def test_an_hour_is_charged_to_the_row_as_it_is_when_the_run_gets_hold_of_it(
    fleet: Fleet, change: str, in_this_run: list[Any], in_the_next: list[Any]
) -> None:
    """The host has changed an instance and not committed when the run comes to it: the run waits, and looks again."""
    fleet.instance(fleet.organization("10.00"), fleet.plan("7.30"))
    fleet.hours(1.5)
    with psycopg.connect(fleet.conninfo, autocommit=True) as host, ThreadPoolExecutor(1) as pool:
        with host.transaction():
            host.execute(f"update vps_instances set {change}")
            run = pool.submit(fleet.bill)
            wait_for_lock(fleet.conn)
        run.result(180)
    charged = fleet.charges()
    fleet.bill()

    assert in_this_run == charged
    assert in_this_run + in_the_next == fleet.charges()
