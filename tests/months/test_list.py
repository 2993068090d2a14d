"""The list of months: an hour belongs to the month in which it starts, and a month is closable when nothing of it waits."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from tests.command import Command
from tests.fleet import Fleet

from containerstacks_billing.explain.snapshot import snapshot
from containerstacks_billing.months.model import MonthStatus
from containerstacks_billing.months.read import list_months
from containerstacks_billing.verification.results import record
from containerstacks_billing.verification.schemas import VerificationDocument
from containerstacks_billing.verification.verify import verify


@pytest.fixture
def fleet(conn: psycopg.Connection[Any]) -> Fleet:
    """The last evening of March."""
    return Fleet(conn, at="2026-03-31 20:15")


def months(fleet: Fleet) -> dict[str, MonthStatus]:
    with snapshot(fleet.conninfo) as connection:
        return {one.sums.name: one for one in list_months(connection)[1]}


def verified(fleet: Fleet) -> None:
    assert record(fleet.conninfo, VerificationDocument.of(verify(fleet.conninfo)), "test")


def figures(one: MonthStatus) -> tuple[str, int, str, str]:
    sums = one.sums
    return str(one.state), sums.rows, f"{sums.hours.normalize():f}", f"{sums.amount.normalize():f}"


def test_a_charge_across_the_bound_is_divided_by_its_hours(fleet: Fleet) -> None:
    """Seven hours of 0.01 in one row, and a segment of 4.5 hours: an hour that starts in March is March's, all of it."""
    organization, plan = fleet.organization("10.00"), fleet.plan("7.30")
    fleet.instance(organization, plan)
    stopped = fleet.instance(organization, plan)
    fleet.at("2026-04-01 00:45")
    fleet.set(stopped, status="stopped")
    fleet.at("2026-04-01 03:15")
    fleet.bill()
    verified(fleet)

    assert {
        "2026-03": ("closable", 2, "8", "0.08"),
        "2026-04": ("open", 0, "3.5", "0.035"),
    } == {name: figures(one) for name, one in months(fleet).items()}
    march, april = (months(fleet)[name].sums for name in ("2026-03", "2026-04"))
    assert (Decimal("0.11"), Decimal(0)) == (march.debits + april.debits, march.debits)
    assert march.bytes > 0


def test_a_month_without_charges_between_two_stands_in_the_list(fleet: Fleet) -> None:
    """Stopped before March ended, started again in June: April and May are months with nothing in them."""
    instance = fleet.instance(fleet.organization("10.00"), fleet.plan("7.30"))
    fleet.hours(2)
    fleet.set(instance, status="stopped")
    fleet.bill()
    fleet.at("2026-06-03 00:00")
    fleet.set(instance, status="running")
    fleet.hours(1)
    fleet.bill()
    verified(fleet)
    assert [
        ("2026-03", "closable", 1),
        ("2026-04", "closable", 0),
        ("2026-05", "closable", 0),
        ("2026-06", "open", 1),
    ] == [(name, str(one.state), one.sums.rows) for name, one in months(fleet).items()]


def hold_hours(fleet: Fleet, _instance: Any) -> None:
    """An outage longer than may be caught up."""
    fleet.terms = replace(fleet.terms, max_catch_up_hours=2)
    fleet.at("2026-04-01 08:15")
    fleet.bill()


def leave_a_segment(fleet: Fleet, instance: Any) -> None:
    fleet.hours(0.5)
    fleet.set(instance, status="stopped")


def lose_the_watermark(fleet: Fleet, instance: Any) -> None:
    fleet.set(instance, last_billed_at="infinity")
    fleet.at("2026-04-01 08:15")


def leave_an_hour(fleet: Fleet, _instance: Any) -> None:
    """Charged until 23:15: the hour that starts then is March's, and not over."""
    fleet.at("2026-04-01 00:01")


WAITING: dict[str, tuple[Callable[[Fleet, Any], None], list[str]]] = {
    "held": (hold_hours, ["1 instance not charged to the end of the month"]),
    "a segment": (leave_a_segment, ["1 usage segment not charged yet"]),
    "a watermark that is no date": (lose_the_watermark, ["1 instance not charged to the end of the month"]),
    "the last hour": (leave_an_hour, ["1 instance not charged to the end of the month"]),
}


@pytest.mark.parametrize("reason", WAITING)
def test_what_keeps_a_month_open(fleet: Fleet, reason: str) -> None:
    """One instance, charged until 23:15 of the last day; each reason is named, and the month stays open."""
    delay, sentences = WAITING[reason]
    instance = fleet.instance(fleet.organization("10.00"), fleet.plan("7.30"))
    fleet.at("2026-03-31 23:15")
    fleet.bill()
    delay(fleet, instance)
    fleet.at("2026-04-01 09:00")
    verified(fleet)

    march = months(fleet)["2026-03"]
    assert ("open", sentences) == (str(march.state), list(march.waiting))


def test_a_month_is_closable_only_when_verify_found_nothing_since_it_ended(fleet: Fleet) -> None:
    """Never verified, verified before its end, verified with a discrepancy, and at last verified."""
    instance = fleet.instance(fleet.organization("10.00"), fleet.plan("7.30"))
    fleet.hours(2)
    fleet.bill()
    never = "not verified since it ended: containerstacks-billing verify"
    assert ("it ends at 2026-04-01 00:00 UTC",) == months(fleet)["2026-03"].waiting
    verified(fleet)
    fleet.at("2026-04-01 02:15")
    fleet.bill()
    assert never == months(fleet)["2026-03"].unverified

    fleet.conn.execute("update wallets set balance = balance + 1")
    verified(fleet)
    assert "verify found 1 discrepancy at 2026-04-01 02:15 UTC" == months(fleet)["2026-03"].unverified
    fleet.conn.execute("update wallets set balance = balance - 1")
    verified(fleet)
    assert (("closable", ()), 6) == (
        (str(months(fleet)["2026-03"].state), months(fleet)["2026-03"].waiting),
        sum(one.sums.hours for one in months(fleet).values()),
    ), instance


def test_what_is_past_due_counts_by_itself(fleet: Fleet) -> None:
    """A wallet of two hours: two are billed, the others past due, and neither keeps the month open."""
    fleet.instance(fleet.organization("0.02"), fleet.plan("7.30"))
    fleet.at("2026-04-01 01:15")
    fleet.bill()
    verified(fleet)
    march, april = (months(fleet)[name] for name in ("2026-03", "2026-04"))
    assert ("closable", 2, "2", "0.02") == figures(march)
    assert (Decimal("0.02"), Decimal("0.01")) == (march.sums.past_due_amount, april.sums.past_due_amount)


def test_the_command_lists_months(fleet: Fleet, command: Command) -> None:
    """As a table for people, and as one document with money in strings; without a charge there is no month."""
    environment = {"DATABASE_URL": fleet.conninfo}
    assert command("months", "list", environment=environment).stdout == (
        "Nothing was charged yet; there are no months.\n"
    )
    fleet.instance(fleet.organization("10.00"), fleet.plan("7.30"))
    fleet.hours(2)
    fleet.bill()
    listed = command("months", "list", environment=environment)
    assert (0, "2026-03  open") == (listed.returncode, listed.stdout.splitlines()[2].strip()[:13])
    [march] = json.loads(command("months", "list", "--json", environment=environment).stdout)["months"]
    assert march.pop("bytes") > 0
    assert march == {
        "month": "2026-03",
        "state": "open",
        "rows": 1,
        "organizations": 1,
        "hours": "2",
        "amount": "0.02",
        "pastDueRows": 0,
        "pastDueAmount": "0.00",
        "adjustments": "0.00",
        "debits": "0.02",
        "credits": "0.00",
        "waiting": ["it ends at 2026-04-01 00:00 UTC"],
        "sha256": None,
    }
