"""`why`: each amount down to its hours, or the reason why there is none."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest
from tests.fleet import Fleet, instant

from containerstacks_billing.explain import why
from containerstacks_billing.explain.snapshot import snapshot


@pytest.fixture
def fleet(conn: psycopg.Connection[Any]) -> Fleet:
    return Fleet(conn)


def entries(fleet: Fleet) -> list[UUID]:
    """The ledger entries of billing, oldest first."""
    rows = fleet.rows(
        "select id from payment_transactions where provider_transaction_id like 'billing-%%' order by created_at, id"
    )
    return [row.id for row in rows]


def entry(fleet: Fleet, identifier: UUID) -> why.EntryExplanation:
    with snapshot(fleet.conninfo) as connection:
        explanation = why.explain_entry(connection, identifier)
    assert explanation is not None
    return explanation


def here(fleet: Fleet, instance: UUID, at: str | None = None) -> tuple[str, str]:
    """What became of an instant of an instance, and why."""
    with snapshot(fleet.conninfo) as connection:
        explanation = why.explain_instance(
            connection, instance, instant(at) if at else None, timedelta(hours=24)
        )
    assert explanation is not None
    return explanation.here.state.value, explanation.here.detail


def test_an_entry_is_its_charges_and_what_was_carried(fleet: Fleet) -> None:
    """An $11 plan costs 0.01506849 an hour: the debit is whole cents, and the rest is carried into the next one."""
    acme, plan = fleet.organization("10.00"), fleet.plan("6.00", "5.00")
    fleet.instance(acme, plan, label="web")
    fleet.hours(1)
    fleet.bill()
    fleet.hours(1)
    fleet.bill()

    first, second = (entry(fleet, one) for one in entries(fleet))
    assert [
        (Decimal("-0.01"), Decimal("0.00"), Decimal("0.01506849"), Decimal("0.00506849")),
        (Decimal("-0.02"), Decimal("0.00506849"), Decimal("0.01506849"), Decimal("0.00013698")),
    ] == [(one.entry.amount, one.entry.carry_before, one.exact, one.carry_after) for one in (first, second)]
    assert [[], []] == [first.findings(), second.findings()]
    charge = second.charges[0]
    assert ("web", Decimal("0.01506849"), Decimal(1)) == (charge.label, charge.hourly_rate, charge.hours)
    [derived] = charge.derivations
    assert (Decimal(6), Decimal(5), 730, False, None) == (
        derived.price.base, derived.price.markup, derived.hours_per_month, derived.backups, derived.before
    )  # fmt: skip


def test_a_wrong_amount_is_said_to_the_last_digit(fleet: Fleet) -> None:
    """An entry that was changed by hand is explained with the difference."""
    acme = fleet.organization("10.00")
    fleet.instance(acme, fleet.plan("730.00"))
    fleet.hours(2)
    fleet.bill()
    [identifier] = entries(fleet)
    fleet.conn.execute("update payment_transactions set amount = -2.30 where id = %s", (identifier,))
    explanation = entry(fleet, identifier)

    assert Decimal("0.30") == explanation.difference
    assert [
        "The entry debits 2.30, but 0.00 carried and 2.00 charged make 2.00: 0.30 too much.",
        "The balance went from 10.00 to 8.00, which is not -2.30 away: 0.30 differ.",
    ] == explanation.findings()


def test_a_charge_that_costs_something_else_is_found(fleet: Fleet) -> None:
    """Amount, rate and price are three statements about one hour; each is compared with the others."""
    acme = fleet.organization("10.00")
    fleet.instance(acme, fleet.plan("730.00"))
    fleet.hours(1)
    fleet.bill()
    [identifier] = entries(fleet)
    [charge] = entry(fleet, identifier).charges
    fleet.conn.execute("update vps_billing_cycles set hourly_rate = 1.5")

    assert [
        f"The charge {charge.charge_id} says 1.00, but its hours at its rate come to 1.50: 0.50 differ.",
        f"No recorded price of its plan leads to the hourly rate 1.50 of the charge {charge.charge_id}.",
    ] == entry(fleet, identifier).findings()


def test_a_past_due_charge_names_the_run_that_paid_it(fleet: Fleet) -> None:
    """It is older than the batch that paid it, so it is found by the run, and still the entry adds up."""
    acme = fleet.organization("1.00")
    fleet.instance(acme, fleet.plan("730.00"))
    fleet.hours(3)
    fleet.bill()
    fleet.top_up(acme, "10.00")
    fleet.hours(1)
    paid = fleet.bill()

    explanation = [entry(fleet, one) for one in entries(fleet)]
    assert [[], []] == [one.findings() for one in explanation]
    assert [(Decimal("-1.00"), Decimal(1)), (Decimal("-3.00"), Decimal(3))] == [
        (one.entry.amount, sum(charge.hours for charge in one.charges)) for one in explanation
    ]
    assert {fleet.now} == {one.paid_late_at for one in explanation[1].charges}
    assert {paid.run_id} == {one.run_id for one in explanation[1].charges}


def test_an_entry_of_the_host_names_no_charges(fleet: Fleet) -> None:
    """A top-up is not ours to explain, and nothing about it is wrong."""
    acme = fleet.organization("1.00")
    fleet.top_up(acme, "5.00")
    [row] = fleet.rows("select id from payment_transactions")
    explanation = entry(fleet, row.id)

    assert (False, (), []) == (explanation.entry.is_own, explanation.charges, explanation.findings())


def test_why_an_hour_is_not_billed(fleet: Fleet) -> None:
    """One reason for each instant of a life: not there, charged, stopped, running again, not over, deleted."""
    acme, plan = fleet.organization("100.00"), fleet.plan("730.00")
    web = fleet.instance(acme, plan, label="web")
    fleet.at("2026-03-01 02:30")
    fleet.set(web, status="stopped")
    fleet.at("2026-03-01 05:00")
    fleet.bill()

    assert ("not there yet", "Its metering begins at 2026-03-01 00:00, when it was created.") == here(
        fleet, web, "2026-02-28 23:59"
    )
    assert ("billed", "Charged.") == here(fleet, web, "2026-03-01 02:29")
    idle = ("not billable", "Its status is stopped since 2026-03-01 02:30.")
    assert [idle, idle, idle] == [
        here(fleet, web, "2026-03-01 02:30"), here(fleet, web, "2026-03-01 04:00"), here(fleet, web)
    ]  # fmt: skip

    fleet.set(web, status="running")
    fleet.at("2026-03-01 06:20")
    assert ("due", "Over and not charged yet; the next run charges it.") == here(
        fleet, web, "2026-03-01 05:10"
    )
    assert (
        "not due yet", "An hour is charged when it is over; the present one ends at 2026-03-01 07:00."
    ) == here(fleet, web)  # fmt: skip
    fleet.delete(web)
    assert ("due", "Closed at 2026-03-01 06:20 by a change; the next run charges it.") == here(
        fleet, web, "2026-03-01 05:10"
    )
    fleet.bill()
    assert ("billed", "Charged.") == here(fleet, web, "2026-03-01 06:10")
    assert ("deleted", "It was deleted at 2026-03-01 06:20.") == here(fleet, web)
    assert idle == here(fleet, web, "2026-03-01 04:59")


def test_hours_that_wait_say_what_they_wait_for(fleet: Fleet) -> None:
    """Held for a decision, waived by one, or set apart for a plan that is not there: reason and cure."""
    acme, plan = fleet.organization("100.00"), fleet.plan("7.30")
    web, lost = fleet.instance(acme, plan), fleet.instance(acme, "no-such-plan")
    fleet.hours(80)
    fleet.bill()

    assert (
        "held",
        "Held since 2026-03-04 08:00: 80 hours are due, more than MAX_CATCH_UP_HOURS (72): decide with"
        " containerstacks-billing release.",
    ) == here(fleet, web)
    assert (
        "quarantined",
        "No plan since 2026-03-04 08:00: there is no plan 'no-such-plan': correct its plan_id or create the plan.",
    ) == here(fleet, lost, "2026-03-02 00:00")

    from containerstacks_billing.holds.model import Decision, ReleaseDecision
    from containerstacks_billing.holds.release import release

    order = ReleaseDecision(Decision.WAIVE, "ann", "our outage", 0, instance=web)
    release(fleet.conninfo, fleet.terms, order, "test-holder")
    assert ("waived", "Waived by ann at 2026-03-04 08:00: our outage") == here(fleet, web, "2026-03-02 00:00")


def test_the_rest_of_a_free_hour_is_said_to_be_free(conn: psycopg.Connection[Any]) -> None:
    """PARTIAL_HOUR=free charges whole hours, and the explanation says so for the rest."""
    fleet = Fleet(conn, partial_hour="free")
    fleet.bill()
    web = fleet.instance(fleet.organization("100.00"), fleet.plan("7.30"))
    fleet.hours(1.5)
    fleet.set(web, status="stopped")
    fleet.hours(1)
    fleet.bill()

    assert [
        ("billed", "Charged."),
        ("free", "The rest of an hour that was not completed is free (PARTIAL_HOUR=free)."),
    ] == [here(fleet, web, "2026-03-01 00:59"), here(fleet, web, "2026-03-01 01:29")]


def test_what_the_host_billed_before_is_the_hosts(fleet: Fleet) -> None:
    """Its rows explain an hour that we never charged, and are marked as its own."""
    web = fleet.instance(fleet.organization("100.00"), fleet.plan("7.30"))
    fleet.conn.execute(
        "insert into vps_billing_cycles (vps_instance_id, organization_id, billing_period_start, billing_period_end,"
        " hourly_rate, total_amount, status) select id, organization_id, created_at - interval '2 hours',"
        " created_at - interval '1 hour', 0.01, 0.01, 'billed' from vps_instances"
    )

    assert ("by the host", "The host application billed it by itself.") == here(
        fleet, web, "2026-02-28 22:30"
    )


def test_hours_that_nothing_explains_are_a_discrepancy(fleet: Fleet) -> None:
    """A charge that was deleted leaves a gap, and the gap has bounds."""
    web = fleet.instance(fleet.organization("100.00"), fleet.plan("7.30"))
    fleet.hours(1)
    fleet.bill()
    fleet.conn.execute("delete from vps_billing_cycles")

    with snapshot(fleet.conninfo) as connection:
        explanation = why.explain_instance(connection, web, instant("2026-03-01 00:30"), timedelta(hours=24))
    assert explanation is not None
    assert (
        "From 2026-03-01 00:00:00 to 2026-03-01 00:30:00: No charge, segment or decision says what became of it;"
        " `verify` lists it under gaps."
    ) == explanation.findings()[0]


def test_an_organization_adds_up(fleet: Fleet) -> None:
    """Opening and entries make the balance; a balance that was changed by hand does not pass."""
    acme = fleet.organization("10.00")
    web = fleet.instance(acme, fleet.plan("730.00"))
    fleet.hours(2)
    fleet.bill()
    fleet.top_up(acme, "5.00")
    with snapshot(fleet.conninfo) as connection:
        explanation = why.explain_organization(connection, acme, None)
    assert [("billing", 1, Decimal("-2.00")), ("top-up", 1, Decimal("5.00"))] == [
        (one.kind, one.entries, one.amount) for one in explanation.entries
    ]
    assert ([], [web]) == (explanation.findings(), [one.instance_id for one in explanation.instances])

    fleet.conn.execute("update wallets set balance = balance + 1")
    with snapshot(fleet.conninfo) as connection:
        explanation = why.explain_organization(connection, acme, None)
    assert [
        "The balance is 14.00 USD, but opening and ledger entries make 13.00: 1.00 differ."
    ] == explanation.findings()


def test_hours_that_the_host_charged_beside_us_were_not_waived(fleet: Fleet) -> None:
    """It moves the watermark on with its own row; where it moved it without one, that is what is said."""
    acme, plan = fleet.organization("100.00"), fleet.plan("7.30")
    web = fleet.instance(acme, plan, label="web")
    fleet.hours(2)
    fleet.bill()
    fleet.hours(2)
    fleet.conn.execute(
        "insert into vps_billing_cycles (vps_instance_id, organization_id, billing_period_start, billing_period_end,"
        " hourly_rate, total_amount, status, created_at)"
        " values (%s, %s, '2026-03-01 02:00', '2026-03-01 03:00', 0.0100, 0.01, 'billed', '2026-03-01 03:00')",
        [web, acme],
    )
    fleet.conn.execute("update vps_instances set last_billed_at = '2026-03-01 04:00' where id = %s", [web])
    assert ("by the host", "The host application billed it by itself.") == here(
        fleet, web, "2026-03-01 02:30"
    )
    assert ("waived", "The host application moved the watermark over it.") == here(
        fleet, web, "2026-03-01 03:30"
    )


def test_an_instance_that_came_back_was_not_there_in_between(fleet: Fleet) -> None:
    """Deleted and put back by the host: the time between is no gap, whether or not the span reaches its end."""
    acme, plan = fleet.organization("100.00"), fleet.plan("7.30")
    web = fleet.instance(acme, plan, label="web")
    fleet.hours(2)
    row = fleet.rows("select to_jsonb(i) as content from vps_instances i where id = %s", web)[0].content
    fleet.delete(web)
    fleet.bill()
    fleet.hours(3)
    fleet.conn.execute(
        "insert into vps_instances (id, organization_id, plan_id, provider_instance_id, label, status, created_at,"
        " last_billed_at) values (%s, %s, %s, 'p', 'web', 'running', %s, billing_clock())",
        (web, acme, str(plan), row["created_at"]),
    )
    fleet.hours(2)
    fleet.bill()

    gone = (
        "deleted",
        "It was deleted at 2026-03-01 02:00, and its metering began again at 2026-03-01 05:00.",
    )
    assert [("billed", "Charged."), gone, ("billed", "Charged.")] == [
        here(fleet, web, f"2026-03-01 {hour}:30") for hour in ("01", "03", "05")
    ]


def test_an_instance_that_moved_in_the_instant_of_its_watermark_is_explained(fleet: Fleet) -> None:
    """Its former organization has a charge and no segment; the first hour was charged there all the same."""
    plan, first, second = fleet.plan("7.30"), fleet.organization("10.00"), fleet.organization("10.00")
    web = fleet.instance(first, plan)
    start = fleet.now
    fleet.hours(1)
    fleet.bill()
    fleet.set(web, organization_id=second)
    fleet.hours(1)
    fleet.bill()
    with snapshot(fleet.conninfo) as connection:
        hours = why.instance_hours(connection, web, start, fleet.now)
    assert hours is not None
    assert [("billed", first), ("billed", second)] == [
        (one.state.value, one.organization_id) for one in hours
    ]


@pytest.mark.parametrize("known", [True, False])
def test_an_instance_of_which_only_charges_are_left(fleet: Fleet, known: bool) -> None:
    """Its row and segments were removed past the triggers: its charges are explained, and the rest is said to be gone."""
    web = fleet.instance(fleet.organization("10.00"), fleet.plan("7.30"))
    fleet.hours(2)
    fleet.bill()
    fleet.delete(web)
    fleet.bill()
    fleet.conn.execute("delete from billing_usage_segments")
    if not known:
        fleet.conn.execute("delete from billing_charged_until")
    fleet.hours(1)

    with snapshot(fleet.conninfo) as connection:
        assert why.find(connection, web).kind == "instance"
    gone = "Its row and its usage segments are gone; only its charges say when it was there."
    assert [("deleted", gone), ("billed", "Charged."), ("deleted", gone)] == [
        here(fleet, web, at) for at in ("2026-02-28 23:30", "2026-03-01 01:30", "2026-03-01 02:30")
    ]
