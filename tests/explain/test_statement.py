"""`statement`: a cash account and a usage account that close, and what connects them, to the last digit."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest
from tests.fleet import Fleet

from containerstacks_billing.explain.month import month_named
from containerstacks_billing.explain.snapshot import snapshot
from containerstacks_billing.explain.statement import Reading, read_statement, read_statements
from containerstacks_billing.explain.statement_checks import changes, findings
from containerstacks_billing.explain.statement_schema import Statement, fingerprint
from containerstacks_billing.explain.why import explain_organization


@pytest.fixture
def fleet(conn: psycopg.Connection[Any]) -> Fleet:
    return Fleet(conn, at="2026-10-31 20:00")


def statement(fleet: Fleet, organization: UUID, month: str, timezone: str = "UTC") -> Statement:
    with snapshot(fleet.conninfo) as connection:
        found = read_statement(connection, Reading(month_named(month, timezone), "USD"), organization)
    assert found is not None
    assert [] == found.findings
    return found


def cash(one: Statement) -> tuple[str, list[tuple[str, str]], str]:
    return str(one.opening), [(entry.kind, str(entry.amount)) for entry in one.entries], str(one.closing)


def block(one: Statement) -> dict[str, str]:
    """The reconciling block without what is nothing."""
    assert one.reconciling is not None
    amounts = {name: Decimal(amount) for name, amount in one.reconciling.model_dump(by_alias=True).items()}
    return {name: f"{amount.normalize():f}" for name, amount in amounts.items() if amount}


def test_a_wallet_in_lower_case_has_its_opening_and_its_top_ups(fleet: Fleet) -> None:
    """Hosts write the currency as they like; the wallet that runs charge is the one whose account is stated."""
    acme = fleet.organization("100.00", currency="usd")
    fleet.instance(acme, fleet.plan("730.00"))
    fleet.at("2026-10-31 22:30")
    fleet.bill()
    fleet.top_up(acme, "5.00")
    fleet.conn.execute(
        "update payment_transactions set currency = 'usd', created_at = '2026-11-03' where amount = 5"
    )
    assert ("0", [("opening", "100.00"), ("billing", "-2.00")], "98.00") == cash(
        statement(fleet, acme, "2026-10")
    )
    assert ("98.00", [("top-up", "5.00")], "103.00") == cash(statement(fleet, acme, "2026-11"))
    with snapshot(fleet.conninfo) as connection:
        assert [] == explain_organization(connection, acme, None).findings()


def test_two_months_of_one_instance(fleet: Fleet) -> None:
    """Hours belong to the month in which they start, debits to the one in which they are posted."""
    acme = fleet.organization("100.00")
    fleet.instance(acme, fleet.plan("730.00"), label="web")
    fleet.at("2026-10-31 22:30")
    fleet.bill()  # 20:00 to 22:00
    fleet.at("2026-11-01 01:00")
    fleet.bill()  # 22:00 to 01:00, the last hour is November's
    fleet.top_up(acme, "5.00")
    fleet.conn.execute("update payment_transactions set created_at = '2026-11-03' where amount = 5")
    fleet.at("2026-12-01 03:00")
    october, november = statement(fleet, acme, "2026-10"), statement(fleet, acme, "2026-11")

    assert ("0", [("opening", "100.00"), ("billing", "-2.00")], "98.00") == cash(october)
    assert ("98.00", [("billing", "-3.00"), ("top-up", "5.00")], "100.00") == cash(november)
    assert {"usage": "4", "debitedLater": "2", "debits": "2"} == block(october)
    assert {"usage": "1", "forEarlierMonths": "2", "debits": "3"} == block(november)
    assert [("web", 4, "4.00000000")] == [
        (line.label, line.whole_hours, str(line.amount)) for line in october.usage.lines
    ]


def test_a_month_begins_where_the_time_zone_says(fleet: Fleet) -> None:
    """Berlin's November begins at 23:00 UTC, so one hour more is November's."""
    acme = fleet.organization("100.00")
    fleet.instance(acme, fleet.plan("730.00"))
    fleet.at("2026-11-01 01:00")
    fleet.bill()

    assert (Decimal(1), Decimal(2)) == tuple(
        statement(fleet, acme, "2026-11", zone).usage.amount for zone in ("UTC", "Europe/Berlin")
    )


def test_past_due_hours_belong_to_their_month_and_are_marked(fleet: Fleet) -> None:
    """They are used in October, marked as past due there, and paid in November without being November's."""
    acme = fleet.organization("1.00")
    fleet.instance(acme, fleet.plan("730.00"))
    fleet.at("2026-10-31 23:00")
    fleet.bill()
    before = fingerprint(statement(fleet, acme, "2026-10"))
    fleet.at("2026-11-02 00:00")
    fleet.top_up(acme, "50.00")
    fleet.conn.execute("update payment_transactions set created_at = '2026-11-02' where amount = 50")
    fleet.bill()
    october, november = statement(fleet, acme, "2026-10"), statement(fleet, acme, "2026-11")

    assert {"usage": "4", "debitedLater": "1", "pastDue": "2", "debits": "1"} == block(october)
    assert [(Decimal(2), Decimal(1))] == [(one.past_due, one.debited_later) for one in october.usage.lines]
    assert {"usage": "24", "forEarlierMonths": "1", "pastDueCollected": "2", "debits": "27"} == block(
        november
    )
    assert before != fingerprint(october)  # its last hour was charged since
    fleet.hours(5)
    fleet.bill()
    assert fingerprint(october) == fingerprint(statement(fleet, acme, "2026-10"))


def test_what_is_below_a_cent_is_carried_over_the_end_of_the_month(fleet: Fleet) -> None:
    """An $11 plan: 0.01506849 an hour, and the carry of both sides stands in the block."""
    acme = fleet.organization("100.00")
    fleet.instance(acme, fleet.plan("6.00", "5.00"))
    fleet.at("2026-10-31 23:00")
    fleet.bill()
    fleet.at("2026-11-01 03:00")
    fleet.bill()

    assert {
        "usage": "0.06027396",
        "debitedLater": "0.01506849",
        "carryOut": "0.00520547",
        "debits": "0.04",
    } == block(statement(fleet, acme, "2026-10"))
    assert {
        "usage": "0.04520547", "forEarlierMonths": "0.01506849", "carryIn": "0.00520547", "carryOut": "0.00547943",
        "debits": "0.06",
    } == block(statement(fleet, acme, "2026-11"))  # fmt: skip


def test_begun_hours_are_added_up_beside_the_whole_ones(fleet: Fleet) -> None:
    """Each was rounded by itself, so a line closes exactly: whole hours times rate, and the parts."""
    acme = fleet.organization("100.00")
    web = fleet.instance(acme, fleet.plan("1.00"), label="web")
    fleet.at("2026-10-31 21:20")
    fleet.set(web, status="stopped")
    fleet.at("2026-10-31 22:00")
    fleet.bill()
    [line] = statement(fleet, acme, "2026-10").usage.lines

    assert (1, Decimal(1200), Decimal("0.00045662"), Decimal("0.00182648"), Decimal("1.333333")) == (
        line.whole_hours, line.part_seconds, line.part_amount, line.amount, line.hours
    )  # fmt: skip


def test_a_deleted_instance_keeps_its_name_and_a_deleted_organization_its_charges(fleet: Fleet) -> None:
    """The label comes from the segments; of an organization without a ledger the usage is left."""
    acme = fleet.organization("100.00")
    web = fleet.instance(acme, fleet.plan("730.00"), label="web")
    fleet.hours(1)
    fleet.delete(web)
    fleet.bill()
    [line] = statement(fleet, acme, "2026-10").usage.lines
    assert ("web", True) == (line.label, line.deleted)

    fleet.conn.execute("delete from organizations where id = %s", (acme,))
    gone = statement(fleet, acme, "2026-10")
    assert (True, None, None, None, Decimal(1)) == (
        gone.deleted, gone.opening, gone.closing, gone.reconciling, gone.usage.amount
    )  # fmt: skip


def test_what_the_host_billed_is_marked_as_its_own(fleet: Fleet) -> None:
    """Its rows are no hours of ours, and its debits have a line of their own in the cash account."""
    acme = fleet.organization("10.00")
    fleet.instance(acme, fleet.plan("730.00"))
    fleet.conn.execute(
        "insert into vps_billing_cycles (vps_instance_id, organization_id, billing_period_start, billing_period_end,"
        " hourly_rate, total_amount, status) select id, organization_id, '2026-10-05', '2026-10-05 01:00', 0.03, 0.03,"
        " 'billed' from vps_instances"
    )
    fleet.conn.execute(
        "insert into payment_transactions (organization_id, amount, currency, payment_method, payment_provider, status,"
        " created_at) values (%s, -0.03, 'USD', 'wallet_debit', 'internal', 'completed', '2026-10-05')", (acme,)
    )  # fmt: skip
    fleet.conn.execute("update wallets set balance = balance - 0.03")
    one = statement(fleet, acme, "2026-10")

    assert ("0", [("opening", "10.00"), ("host billing", "-0.03")], "9.97") == cash(one)
    assert (Decimal(0), Decimal("0.03")) == (one.usage.amount, one.usage.by_the_host_amount)


def test_a_statement_that_was_touched_does_not_close(fleet: Fleet) -> None:
    """Each number is bound to the others; one that is changed is named with the difference."""
    acme = fleet.organization("100.00")
    fleet.instance(acme, fleet.plan("730.00"), label="web")
    fleet.hours(2)
    fleet.bill()
    one = statement(fleet, acme, "2026-10")
    line = one.usage.lines[0].model_copy(update={"amount": Decimal(3)})
    touched = one.model_copy(update={"usage": one.usage.model_copy(update={"lines": [line]})})

    assert [
        "2 hours of web at 1.00 and 0.00 for begun ones make 2.00, but the line says 3.00.",
        "The usage account says 2.00 for its charges, but they come to 3.00.",
    ] == findings(touched)
    assert [
        f"usage.lines.web {line.instance_id} 1.00 {line.plan_id}.amount: it was 2.00, and is 3.00."
    ] == changes(one, touched)


def test_all_months_of_all_organizations_are_the_ledger(fleet: Fleet) -> None:
    """Every organization is there, read a few at a time, and the sums are those of the tables."""
    plan = fleet.plan("11.00")
    for number in range(7):
        fleet.instance(fleet.organization(f"{number}.00"), plan)
    fleet.at("2026-11-02 00:00")
    fleet.bill()
    with snapshot(fleet.conninfo) as connection:
        read = [
            list(read_statements(connection, Reading(month_named(month), "USD", at_once=2)))
            for month in ("2026-10", "2026-11")
        ]
    assert [7, 7] == [len(month) for month in read]
    every = [one for month in read for one in month]
    assert [] == [finding for one in every for finding in one.findings]
    [ledger] = fleet.rows("select sum(amount) as total from payment_transactions")
    [charged] = fleet.rows("select sum(total_amount) as total from vps_billing_cycles")
    billing = sum(entry.amount for one in every for entry in one.entries if entry.kind == "billing")
    assert (ledger.total, charged.total) == (billing, sum(one.usage.charges for one in every))
