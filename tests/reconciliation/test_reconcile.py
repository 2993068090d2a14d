"""Reconciliation: whatever `verify` reports has a way back to right books, with its author and reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest
from tests.books import Books, failed
from tests.command import Command
from tests.fleet import Fleet
from tests.verification.test_verify_damage import DAMAGES, Damage

from containerstacks_billing.explain.month import month_named
from containerstacks_billing.explain.snapshot import snapshot
from containerstacks_billing.explain.statement import Reading, read_statements
from containerstacks_billing.explain.statement_schema import Statement
from containerstacks_billing.reconciliation.model import Action, Answer
from containerstacks_billing.reconciliation.reconcile import Settlement, open_items, settle
from containerstacks_billing.verification.verify import verify


@pytest.fixture
def fleet(conn: psycopg.Connection[Any]) -> Fleet:
    return Fleet(conn)


def accepted(conninfo: str, **changes: Any) -> tuple[Answer, ...]:
    order = Settlement(Action.ACCEPT, "anna@desk", "known", **changes)
    return tuple(one.answer for one in settle(conninfo, order))


def restored(conninfo: str, **changes: Any) -> tuple[Answer, ...]:
    order = Settlement(Action.RESTORE, "anna@desk", "repaired", **changes)
    return tuple(one.answer for one in settle(conninfo, order))


def statements(fleet: Fleet) -> list[Statement]:
    """Return the statements of March, April and May."""
    found = []
    with snapshot(fleet.conninfo) as connection:
        for month in ("2026-03", "2026-04", "2026-05"):
            found += list(read_statements(connection, Reading(month_named(month), "USD")))
    return found


ACCEPTABLE = [damage for damage in DAMAGES if damage.done.__name__ != "_a_balance_is_no_number"]


@pytest.mark.parametrize("damage", ACCEPTABLE, ids=lambda damage: damage.done.__name__.strip("_"))
def test_every_discrepancy_can_be_accepted(books: Books, damage: Damage) -> None:
    """A check that is always red is no check: what a person accepted is green, counted and named; nothing else is."""
    damage.done(books)
    found = books.verify().found
    settle(books.fleet.conninfo, Settlement(Action.ACCEPT, "anna@desk", "known"))
    verification = books.verify()
    assert (set(), True) == (failed(verification), verification.ok), verification.discrepancies
    assert 0 < sum(one.decisions for one in verification.settled) <= found
    assert {"anna@desk"} == {one.decided_by for one in verification.settled}


def test_a_balance_that_is_no_number_stays_open(books: Books) -> None:
    """NaN less anything is no amount to decide about."""
    books.damage("update wallets set balance = 'NaN' where organization_id = %s", books.rich)
    assert (Answer.NO_NUMBER,) == accepted(books.fleet.conninfo)
    assert {"balances"} == failed(books.verify())


def test_an_accepted_discrepancy_returns_when_its_facts_change(books: Books) -> None:
    """What was accepted is that run 3 recorded a digit less, and not whatever it may record later."""
    books.damage("update billing_runs set amount = amount - 0.00000001 where id = 3")
    assert (Answer.DONE,) == accepted(books.fleet.conninfo)
    assert books.verify().ok
    books.damage("update billing_runs set amount = amount - 0.00000001 where id = 3")
    assert {"runs"} == failed(books.verify())


def overwritten(fleet: Fleet) -> tuple[UUID, UUID]:
    """The host reads a balance of 10.00, our run debits 0.07, and the host writes 15.00 for a top-up of 5.00."""
    plan, organization = fleet.plan("51.10"), fleet.organization("10.00")
    fleet.instance(organization, plan)
    fleet.hours(1)
    fleet.bill()
    wallet = fleet.rows("select id from wallets where organization_id = %s", organization)[0].id
    with fleet.conn.transaction():
        fleet.conn.execute("update wallets set balance = 15.00 where id = %s", [wallet])
        fleet.conn.execute(
            "insert into payment_transactions (organization_id, amount, currency, payment_method, payment_provider,"
            " status, description, metadata, created_at) values (%s, 5.00, 'USD', 'paypal', 'paypal', 'completed',"
            " 'top-up', '{\"balance_before\": 10.00, \"balance_after\": 15.00}', %s)",
            [organization, fleet.now + timedelta(milliseconds=400)],
        )
    return organization, wallet


def test_a_lost_debit_is_explained(fleet: Fleet) -> None:
    """Amount, instant and cause: an absolute balance of the host, written after our debit that it had not read."""
    organization, wallet = overwritten(fleet)
    (item,) = open_items(fleet.conninfo).items
    assert ("balances", Decimal("0.07")) == (item.check, item.amount)
    assert {"organization_id": str(organization), "wallet_id": str(wallet)} == dict(
        item.discrepancy.identifiers
    )
    assert item.origin is not None
    assert "the host wrote an absolute balance" in item.origin.cause
    assert "after our debit of 0.07" in item.origin.cause


def test_accepting_moves_the_opening_and_nothing_else(fleet: Fleet) -> None:
    """The customer keeps 0.07; later runs and top-ups keep the books green."""
    organization, _ = overwritten(fleet)
    assert (Answer.DONE,) == accepted(fleet.conninfo)
    wallet = fleet.rows("select balance, billing_opening from wallets")[0]
    assert (Decimal("15.00"), Decimal("10.07")) == (wallet.balance, wallet.billing_opening)
    fleet.top_up(organization, "1.00")
    fleet.hours(2)
    fleet.bill()
    verification = verify(fleet.conninfo)
    assert verification.ok, verification.discrepancies
    assert [("balances", "accept", 1, Decimal("0.07"))] == [
        (one.check, one.decision, one.decisions, one.amount) for one in verification.settled
    ]


def test_an_acceptance_stands_in_the_month_of_its_decision(fleet: Fleet) -> None:
    """Overwritten in March and accepted in May, it changes the cash of neither March nor April, and the books close."""
    fleet.at("2026-03-31 00:00")
    organization, _ = overwritten(fleet)
    fleet.at("2026-05-02 00:00")
    before = statements(fleet)
    accepted(fleet.conninfo)
    after = statements(fleet)
    cash = [[(one.opening, one.entries, one.closing) for one in months[:2]] for months in (before, after)]
    assert cash[0] == cash[1]
    assert {"accepted": Decimal("0.07")} == {one.kind: one.amount for one in after[2].entries}
    assert (before[1].closing, Decimal("15.00")) == (after[2].opening, after[2].closing)
    assert [[], [], []] == [one.findings for one in after]
    assert organization == after[0].organization_id


def test_restoring_moves_the_balance_back(fleet: Fleet) -> None:
    """The debit is taken once more, by the difference and not by an absolute value; given again, nothing is left to do."""
    overwritten(fleet)
    assert (Answer.DONE,) == restored(fleet.conninfo)
    assert [Decimal("14.93")] == [row.balance for row in fleet.rows("select balance from wallets")]
    assert () == restored(fleet.conninfo)
    assert verify(fleet.conninfo).ok


def test_restoring_never_takes_a_balance_below_zero(fleet: Fleet) -> None:
    """A wallet that has less than the difference keeps what it has, and the item stays open."""
    overwritten(fleet)
    fleet.conn.execute("update wallets set balance = 0.01, billing_opening = billing_opening - 15.06")
    assert (Answer.WALLET_SHORT,) == restored(fleet.conninfo)
    assert [Decimal("0.01")] == [row.balance for row in fleet.rows("select balance from wallets")]


def test_a_dry_run_changes_nothing(fleet: Fleet) -> None:
    """It says what it would do, by doing it and rolling it back."""
    overwritten(fleet)
    assert (Answer.DONE,) == accepted(fleet.conninfo, dry_run=True)
    assert [] == fleet.rows("select from billing_decisions")
    assert {"balances"} == failed(verify(fleet.conninfo))


def test_what_changed_since_it_was_shown_is_not_decided(fleet: Fleet) -> None:
    """A person agrees to 1.00; before the answer the host overwrites this balance again, and another one."""
    shown, other = fleet.organization("10.00"), fleet.organization("10.00")
    fleet.conn.execute("update wallets set balance = 11.00 where organization_id = %s", [shown])
    (item,) = open_items(fleet.conninfo).items
    only = frozenset({item.discrepancy.fingerprint})
    fleet.conn.execute("update wallets set balance = 900.00 where organization_id = %s", [other])
    assert (Answer.DONE,) == accepted(fleet.conninfo, only=only, dry_run=True)
    fleet.conn.execute("update wallets set balance = 12.00 where organization_id = %s", [shown])
    assert () == accepted(fleet.conninfo, only=only)
    assert [] == fleet.rows("select from billing_decisions")


def test_archived_ledger_entries_are_accepted_once(fleet: Fleet) -> None:
    """A host that archives its ledger makes balances, carries and entries red; after one decision all is green again."""
    plan, organization = fleet.plan("51.10"), fleet.organization("10.00")
    fleet.instance(organization, plan)
    for _ in range(3):
        fleet.hours(1)
        fleet.bill()
    fleet.conn.execute("update vps_billing_cycles set payment_transaction_id = payment_transaction_id")
    fleet.conn.execute("set session_replication_role = replica")
    fleet.conn.execute("delete from payment_transactions where amount < 0")
    fleet.conn.execute("set session_replication_role = origin")
    assert {"balances", "carries", "entries"} == failed(verify(fleet.conninfo))
    assert {Answer.DONE} == set(accepted(fleet.conninfo, organization=organization))
    fleet.hours(1)
    fleet.bill()
    assert verify(fleet.conninfo).ok


def test_a_wallet_made_anew_gets_its_carry_back(fleet: Fleet) -> None:
    """An $11 plan carries 0.0099977; the new wallet starts without it, and restoring returns it exactly."""
    plan, organization = fleet.plan("11.00"), fleet.organization("20.00")
    fleet.instance(organization, plan)
    fleet.hours(1)
    fleet.bill()
    carry = fleet.rows("select billing_carry from wallets")[0].billing_carry
    assert carry > 0
    fleet.conn.execute("update wallets set billing_carry = 0")
    assert {"carries"} == failed(verify(fleet.conninfo))
    assert (Answer.DONE,) == restored(fleet.conninfo)
    assert carry == fleet.rows("select billing_carry from wallets")[0].billing_carry
    assert verify(fleet.conninfo).ok


def lost_hours(fleet: Fleet) -> UUID:
    """Two hours are charged; then the watermark passes over three hours while triggers are off."""
    plan, organization = fleet.plan("7.30"), fleet.organization("10.00")
    instance = fleet.instance(organization, plan)
    fleet.hours(2)
    fleet.bill()
    with fleet.conn.transaction():
        fleet.conn.execute("set local session_replication_role = replica")
        fleet.conn.execute("update vps_instances set last_billed_at = last_billed_at + interval '3 hours'")
        fleet.conn.execute("update vps_instances set rated_until = last_billed_at")
    fleet.hours(3)
    return instance


def test_lost_hours_are_charged_by_the_next_run(fleet: Fleet) -> None:
    """Restoring makes a usage segment of exactly those hours; the run charges them once, at the price that was in force."""
    instance = lost_hours(fleet)
    assert {"gaps"} == failed(verify(fleet.conninfo))
    assert (Answer.DONE,) == restored(fleet.conninfo)
    fleet.bill()
    fleet.bill()
    verification = verify(fleet.conninfo)
    assert verification.ok, verification.discrepancies
    hours = fleet.rows(
        "select sum(extract(epoch from billing_period_end - billing_period_start)) / 3600 as hours"
        " from vps_billing_cycles where run_id is not null and vps_instance_id = %s",
        instance,
    )[0].hours
    assert Decimal(5) == round(hours, 6)


def test_lost_hours_can_be_given_away(fleet: Fleet) -> None:
    """Accepted, they stay uncharged for good and are counted as a decision."""
    lost_hours(fleet)
    assert (Answer.DONE,) == accepted(fleet.conninfo)
    fleet.hours(1)
    fleet.bill()
    verification = verify(fleet.conninfo)
    assert verification.ok, verification.discrepancies
    assert [("gaps", "accept", 1)] == [
        (one.check, one.decision, one.decisions) for one in verification.settled
    ]


def test_a_watermark_of_a_stopped_instance_is_put_back(fleet: Fleet) -> None:
    """Set back with triggers off; no run bills the instance, so none mends it. Running again, it is billed from then."""
    web = fleet.instance(fleet.organization("10.00"), fleet.plan("7.30"))
    fleet.hours(3)
    fleet.set(web, status="stopped")
    fleet.hours(1)
    fleet.bill()
    with fleet.conn.transaction():
        fleet.conn.execute("set local session_replication_role = replica")
        fleet.conn.execute(
            "update vps_instances set last_billed_at = last_billed_at - interval '2 hours', rated_until = null"
        )
    fleet.hours(1)
    fleet.bill()
    assert ["watermarks"] == [one.check for one in verify(fleet.conninfo).discrepancies]
    assert (Answer.DONE,) == restored(fleet.conninfo)
    assert () == restored(fleet.conninfo)
    assert verify(fleet.conninfo).discrepancies == ()
    fleet.set(web, status="running")
    fleet.hours(1)
    fleet.bill()
    assert ["0.03", "0.01"] == [amount for _, _, amount, _ in fleet.charges()]
    assert verify(fleet.conninfo).discrepancies == ()


def test_a_mark_that_a_copied_wallet_lost_is_set_again(fleet: Fleet) -> None:
    """Past due since the oldest hour that is owed, and cleared where nothing is owed."""
    plan, organization = fleet.plan("73.00"), fleet.organization("0.00")
    fleet.instance(organization, plan)
    fleet.hours(2)
    fleet.bill()
    since = fleet.rows("select past_due_since from wallets")[0].past_due_since
    fleet.conn.execute("update wallets set past_due_since = null")
    assert (Answer.DONE,) == restored(fleet.conninfo)
    assert since == fleet.rows("select past_due_since from wallets")[0].past_due_since
    assert verify(fleet.conninfo).ok


def test_a_mark_without_a_debt_is_cleared(fleet: Fleet) -> None:
    """A wallet that owes nothing and is marked would wait for payment of nothing; restoring takes the mark off."""
    organization = fleet.organization("10.00")
    fleet.conn.execute("update wallets set past_due_since = %s", [fleet.now])
    assert {"past-due"} == failed(verify(fleet.conninfo))
    assert (Answer.DONE,) == restored(fleet.conninfo)
    assert [(organization, None)] == [
        tuple(row) for row in fleet.rows("select organization_id, past_due_since from wallets")
    ]
    assert verify(fleet.conninfo).ok


def test_the_wallet_that_pays_is_marked(fleet: Fleet) -> None:
    """Beside an older wallet in another currency the mark goes to the one that runs charge, so a top-up pays the debt."""
    plan, organization = fleet.plan("73.00"), fleet.organization("50.00", currency="EUR")
    fleet.hours(1)
    paying = fleet.wallet(organization, "0.00", currency="usd")
    instance = fleet.instance(organization, plan)
    fleet.hours(1)
    fleet.bill()
    fleet.conn.execute("update wallets set past_due_since = null")
    assert (Answer.DONE,) == restored(fleet.conninfo)
    assert [paying] == [
        row.id for row in fleet.rows("select id from wallets where past_due_since is not null")
    ]
    fleet.conn.execute(
        "update wallets set balance = balance + 5, billing_opening = billing_opening + 5 where id = %s",
        [paying],
    )
    fleet.bill()
    assert ["billed"] == [status for *_, status in fleet.charges(instance)]
    assert verify(fleet.conninfo).ok


def test_a_missing_balance_stays_open(fleet: Fleet) -> None:
    """The column of the host may be null; there is no amount to decide about, and the other items are settled."""
    absent, wrong = fleet.organization("10.00"), fleet.organization("10.00")
    fleet.conn.execute("update wallets set balance = null where organization_id = %s", [absent])
    fleet.conn.execute("update wallets set balance = 11.00 where organization_id = %s", [wrong])
    assert [Answer.DONE, Answer.NO_NUMBER] == sorted(accepted(fleet.conninfo))
    assert {"balances"} == failed(verify(fleet.conninfo))


def test_what_cannot_be_restored_says_so(books: Books) -> None:
    """The record of a run is a fact of the past; it can be accepted alone."""
    books.damage("update billing_runs set amount = amount - 0.00000001 where id = 3")
    assert (Answer.NOT_RESTORABLE,) == restored(books.fleet.conninfo)
    assert {"runs"} == failed(books.verify())


Settled = Callable[..., dict[str, Any]]


def test_the_command_lists_settles_and_ends_green(fleet: Fleet, database: str, command: Command) -> None:
    """From the red line of verify to a green one, by nothing but what is printed."""
    organization, _ = overwritten(fleet)
    environment = {"DATABASE_URL": database}
    red = command("verify", environment=environment)
    assert (1, True) == (red.returncode, "reconcile --check balances" in red.stdout)

    listed = command("reconcile", "--check", "balances", "--json", environment=environment)
    (item,) = json.loads(listed.stdout)["items"]
    assert (1, "0.07", ["accept", "restore"]) == (listed.returncode, item["amount"], item["actions"])
    assert str(organization) == item["organizationId"]

    refused = command("reconcile", str(organization), "--accept", environment=environment)
    assert (2, True) == (refused.returncode, "--reason" in refused.stderr)
    unasked = command("reconcile", str(organization), "--accept", "--reason", "race", environment=environment)
    assert (2, True) == (unasked.returncode, "--yes" in unasked.stderr)

    done = command(
        "reconcile",
        str(organization),
        "--accept",
        "--reason",
        "race",
        "--by",
        "anna",
        "--yes",
        environment=environment,
    )
    assert (0, True) == (done.returncode, "accepted 0.07" in done.stdout), done.stderr
    green = command("verify", environment=environment)
    assert (0, True) == (green.returncode, "Settled by decision" in green.stdout)
    assert "anna" in green.stdout
    assert (0, "Nothing waits for a decision: the books are right.") == (
        (last := command("reconcile", environment=environment)).returncode,
        last.stdout.strip().splitlines()[-1],
    )
