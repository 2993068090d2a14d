"""Leaks: each reason on rows that have it and nothing else, with its money a month."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from tests.command import Command
from tests.fleet import Fleet

from containerstacks_billing.errors import ConfigurationError
from containerstacks_billing.explain.inventory import read_inventory
from containerstacks_billing.explain.leaks import Leaks, find_leaks
from containerstacks_billing.explain.snapshot import snapshot


@pytest.fixture
def fleet(conn: psycopg.Connection[Any]) -> Fleet:
    return Fleet(conn)


def found(fleet: Fleet, inventory: Path | None = None) -> Leaks:
    with snapshot(fleet.conninfo) as connection:
        return find_leaks(connection, fleet.terms, read_inventory(inventory) if inventory else None)


def lines(leaks: Leaks) -> list[tuple[str, str | None, str | None]]:
    return [
        (str(one.reason), one.label, str(one.monthly) if one.monthly is not None else None)
        for one in leaks.leaks
    ]


def billed(fleet: Fleet, hours: int) -> None:
    for _ in range(hours):
        fleet.hours(1)
        fleet.bill()


def never_billed(fleet: Fleet) -> None:
    """A restore that set the watermark to the present again and again; no charge was ever made."""
    fleet.conn.execute("delete from vps_billing_cycles")


# How a sound instance comes to be a leak for the reason, and how many hours it is left so.
DAMAGES: dict[str, tuple[Callable[[Fleet, Any, Any], object], int]] = {
    "not billable": (lambda fleet, web, _plan: fleet.set(web, status="stopped"), 2),
    "no price": (lambda fleet, _web, plan: fleet.reprice(plan, "0.00"), 2),
    "no wallet": (lambda fleet, _web, _plan: fleet.conn.execute("delete from wallets"), 2),
    "quarantined": (lambda fleet, web, _plan: fleet.set(web, plan_id="no-such-plan"), 30),
    "past due": (lambda fleet, _web, _plan: fleet.conn.execute("update wallets set balance = 0"), 30),
}


@pytest.mark.parametrize("reason", DAMAGES)
def test_each_reason(fleet: Fleet, reason: str) -> None:
    """One instance of 7.30 a month that comes to be a leak, beside one that is sound."""
    damage, hours = DAMAGES[reason]
    plan, other = fleet.plan("7.30"), fleet.plan("73.00")
    web = fleet.instance(fleet.organization("10.00"), plan, label="web")
    billed(fleet, 2)
    assert [] == lines(found(fleet))

    damage(fleet, web, plan)
    fleet.instance(fleet.organization("100.00"), other, label="sound")
    billed(fleet, 1)
    fleet.hours(hours - 1)
    fleet.bill()

    unknown = reason in {"no price", "quarantined"}
    expected = "no price" if reason == "quarantined" else reason
    assert [(expected, "web", None if unknown else "7.30")] == lines(found(fleet))


@pytest.mark.parametrize("reason", ["held", "quarantined"])
def test_what_waits_for_a_person_for_a_day(fleet: Fleet, reason: str) -> None:
    """An outage longer than may be caught up, a watermark in the future: no leak at first, and one a day later."""
    fleet.terms = replace(fleet.terms, max_catch_up_hours=5)
    web = fleet.instance(fleet.organization("10.00"), fleet.plan("7.30"), label="web")
    billed(fleet, 1)
    if reason == "quarantined":
        fleet.set(web, last_billed_at=fleet.now + timedelta(days=300))
    fleet.hours(9)
    fleet.bill()
    assert [] == lines(found(fleet))
    fleet.hours(25)
    fleet.bill()
    assert [(reason, "web", "7.30")] == lines(found(fleet))


def test_an_instance_that_no_run_ever_charged(fleet: Fleet) -> None:
    """Billable, with a price and a wallet, two hours old, and without a single charge."""
    web = fleet.instance(fleet.organization("10.00"), fleet.plan("7.30"), label="web")
    fleet.hours(1.5)
    assert [] == lines(found(fleet))
    fleet.hours(1)
    assert [("never billed", "web", "7.30")] == lines(found(fleet))
    fleet.bill()
    fleet.hours(30)
    assert [] == lines(found(fleet)), web


def test_the_largest_comes_first_and_sums_leave_out_what_has_no_price(fleet: Fleet) -> None:
    """Two stopped instances and one whose plan has no price: counted, and in no sum."""
    organization = fleet.organization("100.00")
    small, large, free = fleet.plan("7.30"), fleet.plan("73.00"), fleet.plan("0.00")
    for label, plan in (("small", small), ("large", large), ("free", free)):
        fleet.instance(organization, plan, label=label, status="running" if label == "free" else "stopped")
    fleet.hours(3)
    leaks = found(fleet)

    assert [
        ("not billable", "large", "73.00"),
        ("not billable", "small", "7.30"),
        ("no price", "free", None),
    ] == lines(leaks)
    assert (Decimal("80.30"), 1, 3) == (leaks.unbilled.monthly, leaks.unbilled.unknown, leaks.unbilled.leaks)
    assert [True, True, False] == [leaks.exceeds(one) for one in (None, Decimal("80.29"), Decimal("80.30"))]


def test_the_list_of_the_provider(fleet: Fleet, tmp_path: Path) -> None:
    """A server without a row, a row without a server, two rows for one server; one bad line costs that line alone."""
    organization, plan = fleet.organization("100.00"), fleet.plan("7.30", provider_plan_id="g6-nano")
    for label, server in (("kept", "1"), ("gone", "2"), ("twin", "1")):
        instance = fleet.instance(organization, plan, label=label)
        fleet.set(instance, provider_instance_id=server)
        fleet.hours(0.25)
    billed(fleet, 3)
    file = tmp_path / "nodes.csv"
    file.write_text(
        "id,label,type\n1,kept,g6-nano\n,nameless,g6-nano\n3,stray,g6-nano\n1,again,g6-nano\n4,odd,other\n"
    )
    at = fleet.now.timestamp()
    os.utime(file, (at, at))
    leaks = found(fleet, file)

    assert [
        ("at the provider, not here", "stray", "7.30"),
        ("here, not at the provider", "gone", "7.30"),
        ("one server, two rows", "twin", "7.30"),
        ("at the provider, not here", "odd", None),
    ] == lines(leaks)
    assert [
        f"{file}: line 3: it has no id",
        f"{file}: line 5: the id '1' stands in an earlier line too",
    ] == leaks.remarks
    assert (Decimal("7.30"), Decimal("14.60")) == (leaks.unbilled.monthly, leaks.billed_for_nothing.monthly)


def test_an_old_list_is_said_to_be_old(fleet: Fleet, tmp_path: Path) -> None:
    """What was made or removed since looks like a leak; what is younger than the list is not compared."""
    fleet.instance(fleet.organization("100.00"), fleet.plan("7.30"), label="young")
    billed(fleet, 2)
    file = tmp_path / "nodes.csv"
    file.write_text("id\n9\n")
    before = datetime(2026, 2, 28, 20, tzinfo=UTC).timestamp()
    os.utime(file, (before, before))
    leaks = found(fleet, file)

    assert [("at the provider, not here", None, None)] == lines(leaks)
    assert leaks.remarks[0].startswith(f"{file} is 6 h old")


def test_one_bad_row_blanks_one_line(fleet: Fleet, tmp_path: Path) -> None:
    """Endless dates, no label, markup: each such row is a line of its own, and every other leak is there."""
    organization, plan = fleet.organization("100.00"), fleet.plan("7.30")
    labels = ("endless", "twin", "formula", "sound")
    instances = {label: fleet.instance(organization, plan, label=label) for label in labels}
    billed(fleet, 3)
    fleet.set(instances["endless"], status="stopped", created_at="infinity", last_billed_at="-infinity")
    fleet.set(instances["twin"], created_at="-infinity", provider_instance_id="same")
    fleet.set(instances["formula"], label="=cmd|'<script>'!A0", provider_instance_id="same")
    fleet.set(instances["sound"], status="stopped")
    fleet.hours(2)
    file = tmp_path / "nodes.csv"
    file.write_text("id\nnone\n")

    assert {
        ("not billable", "endless"),
        ("not billable", "sound"),
        ("one server, two rows", "=cmd|'<script>'!A0"),
        ("at the provider, not here", None),
    } <= {line[:2] for line in lines(found(fleet, file))}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("label,plan\na,b\n", "needs one column `id`"),
        ("id,label\n", "has no line with an id"),
        (None, "cannot be read"),
    ],
)
def test_a_list_that_cannot_be_used(tmp_path: Path, content: str | None, words: str) -> None:
    """The sentence names the file and what it needs."""
    file = tmp_path / "nodes.csv"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigurationError, match=words):
        read_inventory(file)


def test_the_command_says_what_leaks_and_keeps_the_sums(fleet: Fleet, command: Command, role: str) -> None:
    """Exit 1 above the tolerance and 0 below; the report is kept for page and metrics; an organization alone is not."""
    organization = fleet.organization("100.00")
    fleet.instance(organization, fleet.plan("7.30"), label="<b>web</b>", status="stopped")
    fleet.hours(3)
    environment = {"DATABASE_URL": fleet.conninfo}
    told = command("leaks", environment=environment)
    tolerated = command("leaks", "--tolerance", "7.30", "--json", environment=environment)
    alone = command("leaks", "--organization", str(organization), environment=environment)
    fleet.conn.execute("select billing_admit(%s, reading => true)", (role,))
    reader = {"DATABASE_URL": make_conninfo(fleet.conninfo, user=role, password=role)}
    assert told.stdout == command("leaks", environment=reader).stdout

    assert (1, 0, 1) == (told.returncode, tolerated.returncode, alone.returncode), told.stderr
    assert "Not billed: 7.30 USD a month" in told.stdout
    document = json.loads(tolerated.stdout)
    assert ("7.30", False, 1) == (
        document["unbilledMonthly"],
        document["exceedsTolerance"],
        len(document["leaks"]),
    )
    kept = fleet.rows("select has_inventory, reasons from billing_leak_reports order by id")
    assert [(False, "not billable", "7.30")] * 2 == [
        (row.has_inventory, row.reasons[0]["reason"], row.reasons[0]["monthly"]) for row in kept
    ]
