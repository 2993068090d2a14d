"""Reversals: what is given back, once, after corrections and only what was ours; their undo; and what verify makes of it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest
from tests.daemons import held_lease
from tests.fleet import Fleet, instant

from containerstacks_billing.adjustments.model import Mode, Order, OrderKind, Outcome, Scope
from containerstacks_billing.adjustments.orders import post_order, preview
from containerstacks_billing.errors import LeaseNotObtained, WorkFailed
from containerstacks_billing.pricing import corrections
from containerstacks_billing.pricing import versions as prices
from containerstacks_billing.pricing.model import Price
from containerstacks_billing.verification.verify import verify


@pytest.fixture
def fleet(conn: psycopg.Connection[Any]) -> Fleet:
    return Fleet(conn)


def reversal(mode: Mode = Mode.WAIVE, **scope: Any) -> Order:
    for name in ("begin", "end"):
        if name in scope:
            scope[name] = instant(scope[name])
    return Order(OrderKind.REVERSAL, mode, Scope(**scope), "tester", "test")


def undo(number: int, kind: OrderKind = OrderKind.REVERSAL) -> Order:
    return Order(kind, Mode.UNDO, Scope(), "tester", "test", undoes=number)


def post(fleet: Fleet, order: Order) -> Outcome:
    """Preview, post, and prove the books; what was shown is what moved."""
    shown, before = preview(fleet.conn, order).effects.answers, moved(fleet)
    outcome = post_order(fleet.conninfo, order, holder="test", wait_seconds=0)
    prove(fleet)
    assert shown.now == moved(fleet) - before
    return outcome


def moved(fleet: Fleet) -> Decimal:
    """All that adjustments moved so far."""
    total: Decimal = fleet.rows("select coalesce(sum(amount), 0) as amount from billing_adjustments")[
        0
    ].amount
    return total


def prove(fleet: Fleet) -> None:
    found = verify(fleet.conninfo)
    assert [] == [str(one) for one in found.discrepancies]


def state(fleet: Fleet) -> list[tuple[str, ...]]:
    """All that a reversal and its undo must leave as it was: balances, carries, marks, and what each hour is charged."""
    wallets = fleet.rows("select balance, billing_carry, past_due_since from wallets order by id")
    charges = fleet.rows(
        "select vps_instance_id, billing_period_start, billing_period_end, hourly_rate, total_amount, status,"
        " past_due_since from vps_billing_cycles order by 1, 2"
    )
    return [tuple(str(value) for value in row) for row in (*wallets, *charges)]


def entries(fleet: Fleet, organization: UUID) -> list[tuple[str, str, str, str]]:
    rows = fleet.rows(
        "select * from payment_transactions where organization_id = %s"
        " and provider_transaction_id not like 'billing-run-%%' order by created_at, amount",
        organization,
    )
    return [(str(r.amount), r.payment_method, r.provider_transaction_id, r.description) for r in rows]


def billed_fleet(fleet: Fleet, *hours: int, balance: str = "10.00", base: str = "73.00") -> tuple[UUID, UUID]:
    """Bill one instance at ten cents an hour, with a run after each number of hours."""
    organization, plan = fleet.organization(balance), fleet.plan(base)
    fleet.instance(organization, plan)
    for number in hours:
        fleet.hours(number)
        fleet.bill()
    return organization, plan


def test_a_waived_run_gives_back_what_it_took_and_the_next_run_finds_nothing_due(fleet: Fleet) -> None:
    """The second of three runs, of two hours: twenty cents come back, once, and the hours stay charged."""
    organization, _ = billed_fleet(fleet, 1, 2, 1)
    order = reversal(run=2)
    outcome = post(fleet, order)
    post(fleet, order)
    again = fleet.bill()

    assert (1, 0) == (outcome.adjustments, outcome.repriced)
    assert [("01 01:00", "01 03:00", "0.1", "0", "-0.2")] == fleet.adjustments()
    assert [
        ("0.20", "manual_adjustment", "billing-reversal-1", "VPS Billing Reversal - 1 instance (2h)")
    ] == entries(fleet, organization)
    assert (Decimal("9.80"), Decimal(0)) == fleet.balance(organization)
    assert 0 == again.instances_billed


def test_hours_of_a_span_are_those_that_begin_in_it_also_in_the_middle_of_a_catch_up(fleet: Fleet) -> None:
    """A catch-up of six hours: the two that begin from half past one until half past three are waived."""
    organization, _ = billed_fleet(fleet, 6)
    post(fleet, reversal(begin="2026-03-01 01:30", end="2026-03-01 03:30"))

    assert [("01 02:00", "01 04:00", "0.1", "0", "-0.2")] == fleet.adjustments()
    assert (Decimal("9.60"), Decimal(0)) == fleet.balance(organization)


def test_hours_that_were_reversed_before_are_left_out(fleet: Fleet) -> None:
    """Two spans overlap by two hours: each hour comes back once, and the second answer counts the others."""
    organization, _ = billed_fleet(fleet, 6)
    post(fleet, reversal(begin="2026-03-01 00:00", end="2026-03-01 04:00"))
    outcome = preview(fleet.conn, reversal(begin="2026-03-01 02:00", end="2026-03-01 06:00"))
    post(fleet, reversal(begin="2026-03-01 02:00", end="2026-03-01 06:00"))

    answers = outcome.effects.answers
    assert (Decimal("-0.2"), Decimal(2)) == (answers.now, answers.already_hours)
    assert [
        ("01 00:00", "01 04:00", "0.1", "0", "-0.4"),
        ("01 04:00", "01 06:00", "0.1", "0", "-0.2"),
    ] == fleet.adjustments()
    assert (Decimal("10.00"), Decimal(0)) == fleet.balance(organization)


def test_what_stands_after_a_correction_is_given_back_and_not_what_was_charged(fleet: Fleet) -> None:
    """Four hours at ten cents were corrected to one cent: four cents come back, not forty."""
    organization, plan = billed_fleet(fleet, 4)
    (found,) = prices.find_plans(fleet.conn, str(plan))
    draft = corrections.draft(
        fleet.conn, found, Price(Decimal("7.30"), Decimal(0)), instant("2026-03-01 00:00")
    )
    assert draft is not None
    corrections.correct(fleet.conninfo, draft, "USD", holder="test", by="tester", reason="test")
    post(fleet, reversal(run=1))

    assert [
        ("01 00:00", "01 04:00", "0.1", "0.01", "-0.36"),
        ("01 00:00", "01 04:00", "0.01", "0", "-0.04"),
    ] == fleet.adjustments()
    assert (Decimal("10.00"), Decimal(0)) == fleet.balance(organization)


def test_a_correction_after_a_reversal_leaves_the_waived_hours_alone(fleet: Fleet) -> None:
    """Of six hours two are waived; the price of all of them is corrected: four are adjusted."""
    organization, plan = billed_fleet(fleet, 6)
    post(fleet, reversal(begin="2026-03-01 02:00", end="2026-03-01 04:00"))
    (found,) = prices.find_plans(fleet.conn, str(plan))
    draft = corrections.draft(
        fleet.conn, found, Price(Decimal("7.30"), Decimal(0)), instant("2026-03-01 00:00")
    )
    assert draft is not None
    corrections.correct(fleet.conninfo, draft, "USD", holder="test", by="tester", reason="test")
    prove(fleet)

    assert [
        ("01 00:00", "01 02:00", "0.1", "0.01", "-0.18"),
        ("01 02:00", "01 04:00", "0.1", "0", "-0.2"),
        ("01 04:00", "01 06:00", "0.1", "0.01", "-0.18"),
    ] == fleet.adjustments()
    assert (Decimal("9.96"), Decimal(0)) == fleet.balance(organization)


def test_hours_are_rated_again_at_the_prices_that_are_recorded_now(fleet: Fleet) -> None:
    """A run billed with a wrong divisor of hours per month: rated again, each hour costs what it should have."""
    organization, plan = fleet.organization("10.00"), fleet.plan("73.00")
    fleet.instance(organization, plan)
    fleet.terms = type(fleet.terms)(hours_per_month=365)
    fleet.hours(3)
    fleet.bill()
    fleet.terms = type(fleet.terms)(hours_per_month=730)
    order = reversal(Mode.RERATE, run=1)
    post(fleet, order)
    post(fleet, order)

    assert [("01 00:00", "01 03:00", "0.2", "0.1", "-0.3")] == fleet.adjustments()
    assert (Decimal("9.70"), Decimal(0)) == fleet.balance(organization)


def test_past_due_hours_are_cancelled_and_the_mark_goes_with_them(fleet: Fleet) -> None:
    """Four hours fell due and the wallet paid none of them: waived, nothing is owed and no money moves."""
    organization, _ = billed_fleet(fleet, 4, balance="0.00")
    outcome = post(fleet, reversal(run=1))
    fleet.top_up(organization, "1.00")
    fleet.hours(1)
    fleet.bill()

    assert (0, 1) == (outcome.adjustments, outcome.repriced)
    assert [
        ("01 00:00", "01 04:00", "0", "refunded"),
        ("01 04:00", "01 05:00", "0.1", "billed"),
    ] == fleet.charges()
    assert [None] == [row.past_due_since for row in fleet.rows("select past_due_since from wallets")]
    assert (Decimal("0.90"), Decimal(0)) == fleet.balance(organization)
    prove(fleet)


def test_a_charge_that_was_paid_later_belongs_to_the_run_that_wrote_it(fleet: Fleet) -> None:
    """The first run made four hours past due, the second collected two of them: the first is reversed whole."""
    organization, _ = billed_fleet(fleet, 4, balance="0.00")
    fleet.top_up(organization, "0.25")
    fleet.hours(0.5)
    fleet.bill()
    assert [
        ("01 00:00", "01 02:00", "0.2", "billed"),
        ("01 02:00", "01 04:00", "0.2", "failed"),
    ] == fleet.charges()
    second = preview(fleet.conn, reversal(run=2)).effects.answers
    post(fleet, reversal(run=1))

    assert (Decimal(0), Decimal(0)) == (second.now, second.past_due)
    assert [("01 00:00", "01 02:00", "0.1", "0", "-0.2")] == fleet.adjustments()
    assert [
        ("01 00:00", "01 02:00", "0.2", "billed"),
        ("01 02:00", "01 04:00", "0", "refunded"),
    ] == fleet.charges()
    assert (Decimal("0.25"), Decimal(0)) == fleet.balance(organization)


def test_an_undo_restores_every_balance_carry_and_mark_to_the_last_digit(fleet: Fleet) -> None:
    """A rich wallet with a carry and a poor one that owes: reversed and undone, all is as it was, and twice changes nothing."""
    plan = fleet.plan("5.00", "0.55")
    for balance in ("10.00", "0.02", "0.00"):
        fleet.instance(fleet.organization(balance), plan)
    for hours in (1, 5, 2):
        fleet.hours(hours)
        fleet.bill()
    before = state(fleet)
    number = post(fleet, reversal(begin="2026-03-01 00:00", end="2026-03-01 08:00")).order.order_id
    assert number is not None
    reversed_state = state(fleet)
    post(fleet, undo(number))
    post(fleet, undo(number))

    assert before != reversed_state
    assert before == state(fleet)


def test_an_undone_reversal_can_be_given_again(fleet: Fleet) -> None:
    """It is a new one, and gives back the same."""
    organization, _ = billed_fleet(fleet, 3)
    first = post(fleet, reversal(run=1)).order.order_id
    assert first is not None
    post(fleet, undo(first))
    second = post(fleet, reversal(run=1)).order.order_id

    assert (1, 3) == (first, second)
    assert (Decimal("10.00"), Decimal(0)) == fleet.balance(organization)


def test_an_undo_that_a_wallet_cannot_bear_is_finished_after_its_top_up(fleet: Fleet) -> None:
    """What was given back is spent: nothing is taken below zero, the rest is posted later, once."""
    organization, _ = billed_fleet(fleet, 4)
    number = post(fleet, reversal(run=1)).order.order_id
    assert number is not None
    fleet.top_up(organization, "-9.90")
    short = post(fleet, undo(number))
    fleet.top_up(organization, "1.00")
    done = post(fleet, undo(number))

    assert [Decimal("0.4")] == [one.unposted_amount for one in short.effects.left]
    assert ([], 1) == (done.effects.left, done.adjustments)
    assert (Decimal("0.70"), Decimal(0)) == fleet.balance(organization)


def test_an_undo_leaves_hours_that_were_adjusted_again_since(fleet: Fleet) -> None:
    """A credit of half came after a rating; undoing the first would charge what the second gave."""
    billed_fleet(fleet, 2)
    half = Order(
        OrderKind.CREDIT,
        Mode.CREDIT,
        Scope(begin=instant("2026-03-01 00:00"), end=instant("2026-03-01 02:00")),
        "tester",
        "test",
        factor=Decimal("0.5"),
    )
    number = post(fleet, half).order.order_id
    post(fleet, reversal(run=1))
    assert number is not None
    outcome = preview(fleet.conn, undo(number, OrderKind.CREDIT))

    answers = outcome.effects.answers
    assert (1, Decimal(0)) == (answers.changed_charges, answers.now)


def test_without_a_wallet_nothing_is_posted_and_it_is_said(fleet: Fleet) -> None:
    """The wallet was removed after the run: its sum stands in the answer, and the other customer gets his."""
    gone, plan = fleet.organization("10.00"), fleet.plan("73.00")
    other = fleet.organization("10.00")
    for organization in (gone, other):
        fleet.instance(organization, plan)
    fleet.hours(1)
    fleet.bill()
    fleet.conn.execute("delete from wallets where organization_id = %s", (gone,))
    outcome = post_order(fleet.conninfo, reversal(run=1), holder="test", wait_seconds=0)

    answers = outcome.effects.answers
    assert (1, Decimal("-0.1")) == (answers.no_wallet_organizations, answers.no_wallet)
    assert (Decimal("10.00"), Decimal(0)) == fleet.balance(other)


def test_rows_of_the_host_are_never_reversed(fleet: Fleet) -> None:
    """The host billed an hour in the span by itself: it is not ours to give back."""
    organization, plan = fleet.organization("10.00"), fleet.plan("73.00")
    instance = fleet.instance(organization, plan)
    fleet.conn.execute(
        "insert into vps_billing_cycles (vps_instance_id, organization_id, billing_period_start, billing_period_end,"
        " hourly_rate, total_amount, status) values (%s, %s, '2026-02-28 10:00+00', '2026-02-28 11:00+00', 0.1, 0.1, 'billed')",
        (instance, organization),
    )
    fleet.hours(1)
    fleet.bill()
    post(fleet, reversal(begin="2026-02-28 00:00", end="2026-03-02 00:00"))

    assert [("01 00:00", "01 01:00", "0.1", "0", "-0.1")] == fleet.adjustments()


def test_credits_by_hand_since_the_run_are_shown_and_not_subtracted(fleet: Fleet) -> None:
    """Support gave fifteen cents already; the preview says so."""
    organization, _ = billed_fleet(fleet, 2)
    fleet.conn.execute(
        "insert into payment_transactions (organization_id, amount, currency, payment_method, payment_provider, status,"
        " description, created_at) values (%s, 0.15, 'USD', 'manual_adjustment', 'internal', 'completed', 'sorry',"
        " '2026-03-01 02:30+00')",
        (organization,),
    )
    fleet.conn.execute("update wallets set balance = balance + 0.15")
    answers = preview(fleet.conn, reversal(run=1)).effects.answers

    assert (Decimal("-0.2"), Decimal("0.15")) == (answers.now, answers.by_hand)


def test_a_moved_or_deleted_instance_gives_back_to_the_organization_that_paid(fleet: Fleet) -> None:
    """It was charged to the first, moved to the second and deleted there."""
    first, second, plan = fleet.organization("10.00"), fleet.organization("10.00"), fleet.plan("73.00")
    instance = fleet.instance(first, plan)
    fleet.hours(2)
    fleet.bill()
    fleet.set(instance, organization_id=second)
    fleet.hours(1)
    fleet.delete(instance)
    fleet.bill()
    post(fleet, reversal(run=1))

    assert (Decimal("10.00"), Decimal(0)) == fleet.balance(first)
    assert (Decimal("9.90"), Decimal(0)) == fleet.balance(second)


def test_the_host_hears_of_it_and_decisions_name_the_author(fleet: Fleet) -> None:
    """One event per customer whose money moved, in the transaction that moved it."""
    organization, _ = billed_fleet(fleet, 2)
    post(fleet, reversal(run=1))
    [event] = fleet.rows("select * from billing_events where kind = 'reversed'")

    assert organization == event.organization_id
    assert {
        "orderId": 1,
        "undoes": None,
        "amount": "0.20",
        "exactAmount": "0.20",
        "instances": 1,
        "hours": "2",
        "reason": "test",
        "balance": "10.00",
    } == event.payload


@pytest.mark.parametrize(
    ("order", "sentence"),
    [
        (reversal(run=99), "there is no run 99"),
        (undo(99), "there is no reversal 99"),
        (undo(1, OrderKind.CREDIT), "there is no credit 1"),
    ],
)
def test_what_is_not_there_cannot_be_reversed(fleet: Fleet, order: Order, sentence: str) -> None:
    """A number of something else is no number of a reversal."""
    billed_fleet(fleet, 1)
    post(fleet, reversal(run=1))
    with pytest.raises(WorkFailed, match=sentence):
        preview(fleet.conn, order)


def test_a_reversal_waits_for_whoever_bills(fleet: Fleet) -> None:
    """While another process holds the lease nothing is written."""
    billed_fleet(fleet, 1)
    with held_lease(fleet.conninfo, "other"), pytest.raises(LeaseNotObtained, match="other is billing"):
        post_order(fleet.conninfo, reversal(run=1), holder="test", wait_seconds=0)
    assert [] == fleet.rows("select from billing_adjustment_orders")


_KILLED = """
import os, signal, sys
from containerstacks_billing.adjustments.model import Mode, Order, OrderKind, Scope
from containerstacks_billing.adjustments.orders import post_order

done = []
def posted(one):
    done.append(one)
    if len(done) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
order = Order(OrderKind.REVERSAL, Mode.WAIVE, Scope(run=1), "killed", "killed")
post_order(sys.argv[1], order, holder="killed", at_once=1, posted=posted)
"""


def test_a_reversal_killed_between_organizations_is_finished_once(fleet: Fleet) -> None:
    """Killed after the first of three; a run bills in between; given again, it posts what is missing."""
    plan = fleet.plan("73.00")
    organizations = [fleet.organization("10.00") for _ in range(3)]
    for organization in organizations:
        fleet.instance(organization, plan)
    fleet.hours(2)
    fleet.bill()
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED, fleet.conninfo, "1"], capture_output=True, timeout=180, check=False
    )
    assert -signal.SIGKILL == killed.returncode, killed.stderr
    done = len(fleet.adjustments())
    fleet.conn.execute("update billing_leases set expires_at = '-infinity'")
    fleet.hours(1)
    fleet.bill()
    prove(fleet)
    outcome = post(fleet, reversal(run=1))

    assert (1, 2) == (done, outcome.adjustments)
    assert [1] == [row.id for row in fleet.rows("select id from billing_adjustment_orders")]
    assert {(Decimal("9.90"), Decimal(0))} == {fleet.balance(one) for one in organizations}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("update billing_adjustment_orders set mode = 'rerate', scope = '{}'; delete from billing_adjustment_orders", "its order 1 is not there"),
        ("update billing_adjustments set old_rate = 0.2, amount = -0.4", "it starts from 0.2.* an hour, but 0.1"),
        ("update billing_adjustments set new_rate = 0.05, amount = -0.1", "it waives hours and leaves them at 0.05"),
    ],
)  # fmt: skip
def test_verify_names_an_adjustment_that_no_order_makes(fleet: Fleet, damage: str, message: str) -> None:
    """Each damage of a posted adjustment is a discrepancy of the check `reversals`."""
    billed_fleet(fleet, 2)
    post(fleet, reversal(run=1))
    for statement in damage.split("; "):
        fleet.conn.execute(statement)  # type: ignore[arg-type]
    [found] = [one.message for one in verify(fleet.conninfo).discrepancies if one.check == "reversals"]

    assert re.search(message, found)
