"""What-if: a month and a runway of every customer under another price, and a dry run compared with a run."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest
from tests.clock import host_clock_follows
from tests.command import Command
from tests.fleet import Fleet, instant

from containerstacks_billing.charging.dry_run import Supposition, dry_run
from containerstacks_billing.charging.dry_run_diff import ChargedInstances, charged_by_run, difference
from containerstacks_billing.charging.forecast import Limits
from containerstacks_billing.pricing.model import Plan, Price
from containerstacks_billing.pricing.versions import find_plans, set_price
from containerstacks_billing.pricing.what_if import (
    Supposed,
    WhatIf,
    runway_hours,
    suppose,
    what_if_priced,
    what_if_run,
)

Rows = dict[str | None, tuple[str, str, str | None, str | None, bool]]


@pytest.fixture
def fleet(conn: psycopg.Connection[Any]) -> Fleet:
    return Fleet(conn)


def plan_of(fleet: Fleet, plan: UUID) -> Plan:
    return find_plans(fleet.conn, str(plan))[0]


def priced(fleet: Fleet, plan: UUID, base: str) -> Supposed:
    return Supposed(plan_of(fleet, plan), Price(Decimal(base), Decimal(0)))


def rows(found: WhatIf) -> Rows:
    return {
        one.organization: (
            str(one.monthly_now),
            str(one.monthly_then),
            _text(one.runway_now),
            _text(one.runway_then),
            one.short_then,
        )
        for one in found.organizations
    }


def _text(hours: Decimal | None) -> str | None:
    return None if hours is None else f"{hours.normalize():f}"


def contents(fleet: Fleet) -> list[Any]:
    tables = (
        "vps_plans",
        "plan_price_versions",
        "vps_instances",
        "vps_billing_cycles",
        "wallets",
        "billing_policies",
    )
    return [
        fleet.rows(f"select count(*) as rows, sum(hashtext(t::text)) as content from {table} t")
        for table in tables
    ]


# What can be paid, burns per hour that begin after so many hours, and after how many hours nothing is left.
RUNWAYS: list[tuple[str, list[tuple[str, str]], str | None]] = [
    ("10", [("0", "1")], "10"),
    ("10", [("0", "1"), ("4", "2")], "7"),
    ("4", [("0", "1"), ("4", "2")], "4"),
    ("3", [("0", "1"), ("4", "2")], "3"),
    ("10", [("0", "0"), ("4", "2")], "9"),
    ("10", [("0", "1"), ("4", "2"), ("5", "4")], "6"),
    ("10", [("0", "0")], None),
    ("10", [("0", "0.00001")], None),
    ("0", [("0", "0"), ("4", "1")], "0"),
    ("-1", [("0", "0")], None),
]


@pytest.mark.parametrize(("available", "burns", "hours"), RUNWAYS)
def test_a_runway_over_several_prices(
    available: str, burns: list[tuple[str, str]], hours: str | None
) -> None:
    """Each burn uses up its span, the last goes on."""
    found = runway_hours(Decimal(available), [(Decimal(start), Decimal(burn)) for start, burn in burns])
    assert hours == _text(found)


def test_an_announced_price(fleet: Fleet) -> None:
    """A month and a runway of each customer, with another price announced in between; nothing is changed."""
    small, other, unused = fleet.plan("7.30"), fleet.plan("73.00"), fleet.plan("1.00")
    for name, balance, plans in (
        ("Thin", "1.00", [small]),
        ("Rich", "500.00", [small, other]),
        ("Elsewhere", "10.00", [other]),
        ("Penniless", "0.00", [small]),
    ):
        organization = fleet.organization(balance, name=name)
        for plan in plans:
            fleet.instance(organization, plan)
    set_price(
        fleet.conn,
        plan_of(fleet, other),
        Price(Decimal("146.00"), Decimal(0)),
        instant("2026-03-01 10:00"),
        by="test",
        reason=None,
    )
    before = contents(fleet)
    begins = instant("2026-03-02 00:00")
    found = what_if_priced(fleet.conn, fleet.terms, priced(fleet, small, "36.50"), begins)
    nothing = what_if_priced(fleet.conn, fleet.terms, priced(fleet, unused, "36.50"), begins)

    assert {
        #           now       then      runway    runway then
        # Thin: 24 h at 0.01, and 0.76 at 0.05
        "Thin": ("7.30", "36.50", "100", "39.2", True),
        # Rich: 10 h at 0.11, 14 h at 0.21, and 495.96 at 0.21 or at 0.25
        "Rich": ("153.30", "182.50", "2385.71", "2007.84", False),
        # Elsewhere: 10 h at 0.10, then 0.20
        "Elsewhere": ("146.00", "146.00", "55", "55", True),
        "Penniless": ("7.30", "36.50", "0", "0", True),
    } == rows(found)
    assert ["Thin"] == [one.organization for one in found.newly_short if one.organization]
    assert {"Thin", "Rich", "Penniless"} == {one.organization for one in found.changed}
    assert [] == nothing.changed
    assert before == contents(fleet)


def test_a_price_foretold_is_the_price_that_comes(fleet: Fleet) -> None:
    """What a price from tomorrow would cost a month is what a month costs once it is announced and in force."""
    plan = fleet.plan("7.30")
    for name in ("A", "B"):
        fleet.instance(fleet.organization("50.00", name=name), plan)
    change, begins = priced(fleet, plan, "11.00"), fleet.now + timedelta(hours=5)
    foretold = what_if_priced(fleet.conn, fleet.terms, change, begins)
    set_price(fleet.conn, change.plan, change.price, begins, by="test", reason=None)
    for _ in range(6):
        fleet.hours(1)
        fleet.bill()
    after = what_if_run(fleet.conn, fleet.terms, [])

    assert {one.organization: one.monthly_then for one in foretold.organizations} == {
        one.organization: one.monthly_now for one in after.organizations
    }


@pytest.mark.parametrize("batch_size", [1, 2500])
def test_a_dry_run_under_a_supposed_price(fleet: Fleet, batch_size: int) -> None:
    """All hours that are due are charged at it, by the statements of a run; wallets fall short; nothing is changed."""
    plan = fleet.plan("7.30")
    for name, balance in (("Poor", "0.10"), ("Rich", "10.00")):
        fleet.instance(fleet.organization(balance, name=name), plan)
    fleet.hours(2)
    before = contents(fleet)
    found = dry_run(
        fleet.order(batch_size=batch_size),
        Limits(),
        Supposition(lambda conn: suppose(conn, [priced(fleet, plan, "73.00")], fleet.terms, fleet.now)),
    )
    plainly = dry_run(fleet.order(batch_size=batch_size), Limits())

    assert (Decimal("0.04"), []) == (plainly.amount, list(plainly.short))
    assert (Decimal("0.30"), [("Poor", Decimal("0.10"))]) == (
        found.amount,
        [(one.name, one.owed) for one in found.short],
    )
    assert before == contents(fleet)


def test_instances_that_one_of_both_charges(fleet: Fleet) -> None:
    """Stopped, deleted, without a plan: charged by the run and not now; new and back again: the other way round."""
    plan = fleet.plan("7.30")
    acme = fleet.organization("50.00", name="Acme")
    kept, stopped, deleted, planless, back = (
        fleet.instance(acme, plan, label=label, status="stopped" if label == "back" else "running")
        for label in ("kept", "stopped", "deleted", "planless", "back")
    )
    fleet.hours(1)
    run = fleet.bill()
    fleet.set(stopped, status="stopped")
    fleet.set(back, status="running")
    fleet.set(planless, plan_id="no-such-plan")
    fleet.delete(deleted)
    fleet.instance(acme, plan, label="new")
    fleet.hours(1)
    charged = ChargedInstances()
    dry_run(fleet.order(), Limits(), Supposition(charged=charged))
    before = charged_by_run(fleet.conn, run.run_id or 0)
    found = difference(fleet.conn, (run.run_id or 0, run.as_of), before, charged.ids, fleet.terms)

    assert {
        "stopped": "its status is stopped, which is not billed",
        "deleted": "deleted",
        "planless": "its plan is unknown",
    } == {one.label: one.reason for one in found.no_longer}
    assert {"new": "it is new", "back": f"run {run.run_id} found nothing due of it"} == {
        one.label: one.reason for one in found.newly
    }
    assert (4, 3, 3, 2, 0) == (
        found.charged_by_run,
        found.charged_now,
        found.not_charged_now,
        found.newly_charged,
        found.not_due_yet,
    )
    assert kept in before & charged.ids


def test_a_change_of_policy(fleet: Fleet) -> None:
    """With other BILLABLE_STATUSES a month is what they make of it, beside what is in force."""
    plan = fleet.plan("7.30")
    acme = fleet.organization("50.00", name="Acme")
    fleet.instance(acme, plan)
    fleet.instance(acme, plan, status="stopped")
    fleet.hours(1)
    fleet.bill()
    found = what_if_run(fleet.conn, replace(fleet.terms, billable_statuses=("*",)), [])

    assert {"Acme": ("7.30", "14.60")} == {key: row[:2] for key, row in rows(found).items()}


def test_the_commands(fleet: Fleet, command: Command) -> None:
    """`prices set --dry-run` and `run --dry-run --diff --price`, for people and as one document; no row is changed."""
    plan = fleet.plan("7.30")
    fleet.instance(fleet.organization("5.00", name="Acme"), plan, label="web")
    fleet.conn.execute("update vps_plans set name = 'Small = VPS'")
    fleet.hours(1)
    fleet.bill()
    fleet.hours(1)
    host_clock_follows(fleet)
    before = contents(fleet)
    environment = {"DATABASE_URL": fleet.conninfo}
    set_order = ("prices", "set", "Small = VPS", "--base", "73.00", "--markup", "0", "--dry-run")
    run_order = ("run", "--dry-run", "--diff", "--price", "Small = VPS=13.60+1.00")
    announced = command(*set_order, "--from", "2026-03-04T00:00Z", "--json", environment=environment)
    at_once = command(*set_order, environment=environment)
    compared = command(*run_order, "--json", environment=environment)
    told = command(*run_order, environment=environment)

    assert [0] * 4 == [one.returncode for one in (announced, at_once, compared, told)], told.stderr
    assert ("7.30", "73.00", "65.70", 1) == tuple(
        json.loads(announced.stdout)[key]
        for key in ("monthlyNow", "monthlyThen", "difference", "organizationsChanged")
    )
    assert "A month: 7.30 USD now, 73.00 USD then (+65.70)" in at_once.stdout
    document = json.loads(compared.stdout)
    assert ("0.02", "14.60", 1, 1, []) == (
        document["amount"],
        document["whatIf"]["monthlyThen"],
        document["diff"]["runId"],
        document["diff"]["chargedNow"],
        document["diff"]["noLonger"],
    )
    assert "Run 1 charged 1 instance, this would charge 1 instance" in told.stdout
    assert before == contents(fleet)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--diff"], "go with --dry-run"),
        (["--dry-run", "--price", "small"], "is no price"),
        (["--dry-run", "--price", "small=5+x"], "is no price"),
        (["--dry-run", "--price", "none=5"], "no plan has the id"),
        (["--dry-run", "--diff", "77"], "there is no run 77"),
        (["--dry-run", "--diff", "x"], "no number of a run"),
    ],
)
def test_refused(fleet: Fleet, command: Command, options: list[str], words: str) -> None:
    """A sentence and exit code 2."""
    refused = command("run", *options, environment={"DATABASE_URL": fleet.conninfo})
    assert (2, True) == (refused.returncode, words in " ".join(refused.stderr.split())), refused.stderr
