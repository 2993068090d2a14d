"""May this customer start that? One answer for SQL, HTTP and the command line."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from click.testing import CliRunner
from tests.fleet import Fleet
from tests.web.client import ADMIN_TOKEN, bearer, client_of

from containerstacks_billing.cli import app


@pytest.fixture
def fleet(conn: psycopg.Connection[Any]) -> Fleet:
    return Fleet(conn)


def may_create(fleet: Fleet, organization: UUID, plan: object, hours: float = 24) -> dict[str, Any]:
    [row] = fleet.rows("select billing_may_create(%s, %s, %s) as answer", organization, str(plan), hours)
    answer: dict[str, Any] = row.answer
    return answer


def answer(allowed: bool, reason: str, hours: float | None, needed: str, short: str) -> dict[str, Any]:
    return {
        "allowed": allowed,
        "reason": reason,
        "hours": hours,
        "minimumBalance": needed,
        "shortBy": short,
        "currency": "USD",
    }


@pytest.mark.parametrize(
    ("balance", "expected"),
    [
        ("0.24", answer(True, "The balance lasts 24 hours with this server.", 24, "0.24", "0.00")),
        ("0.23", answer(False, "0.24 USD is needed and 0.23 is available: please add at least 0.01.", 23, "0.24", "0.01")),
        ("10.00", answer(True, "The balance lasts 1000 hours with this server.", 1000, "0.24", "0.00")),
    ],
)  # fmt: skip
def test_the_balance_has_to_last(fleet: Fleet, balance: str, expected: dict[str, Any]) -> None:
    """A server at 0.01 an hour, for a day."""
    assert expected == may_create(fleet, fleet.organization(balance), fleet.plan("7.30"))


def test_what_runs_counts_and_what_it_used_since_it_was_charged(fleet: Fleet) -> None:
    """Two at 0.01 an hour, one of which has run for half an hour: 1.00 - 0.005 lasts 49.75 hours."""
    plan, organization = fleet.plan("7.30"), fleet.organization("1.00")
    fleet.instance(organization, plan)
    stopped = fleet.instance(organization, plan)
    fleet.set(stopped, status="stopped")
    fleet.hours(0.5)
    assert answer(True, "The balance lasts 49 hours with this server.", 49.75, "0.48", "0.00") == may_create(
        fleet, organization, plan
    )


def test_it_is_the_rate_of_the_run(fleet: Fleet) -> None:
    """The rate of the answer is what a run charges an instance of that plan per hour, by whichever name it knows it."""
    organization = fleet.organization("100.00")
    plan = fleet.plan("11.00", "0.99", provider_plan_id="g6-nanode-1")
    fleet.instance(organization, plan)
    fleet.hours(1)
    fleet.bill()
    [charge] = fleet.rows("select hourly_rate from vps_billing_cycles")
    for name in (str(plan), "g6-nanode-1"):
        [row] = fleet.rows("select billing_rate_of(%s, false, 730, billing_clock()) as rate", name)
        assert charge.hourly_rate == row.rate


def test_past_due_comes_first(fleet: Fleet) -> None:
    """And the amount to pay in covers both."""
    plan, organization = fleet.plan("7.30"), fleet.organization("0.00")
    fleet.instance(organization, plan)
    fleet.hours(3)
    fleet.bill()
    found = may_create(fleet, organization, plan)
    assert (False, "0.03 USD is past due and has to be paid first.", "0.51") == (
        found["allowed"], found["reason"], found["shortBy"]
    )  # fmt: skip


def test_nothing_to_order_or_to_pay_from(fleet: Fleet) -> None:
    """Each answer names what is missing; a price that cannot be charged cannot be ordered."""
    plan, organization = fleet.plan("7.30"), fleet.organization("1.00")
    [broken] = fleet.rows(
        "insert into vps_plans (name, provider_plan_id, base_price) values ('b', 'b', -1) returning id"
    )
    assert "There is no wallet in USD to pay from." == may_create(fleet, uuid4(), plan)["reason"]
    for missing in ("nothing", uuid4(), broken.id):
        assert (
            "This plan cannot be ordered: there is no price in force for it."
            == may_create(fleet, organization, missing)["reason"]
        )


def test_minimums_by_command(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """The minimum of a plan goes before the common one; removed, the common one holds again; exit 1 says no."""
    monkeypatch.setenv("DATABASE_URL", fleet.conninfo)

    def command(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, list(arguments))
        return result.exit_code, " ".join(result.stdout.split())

    small, large = fleet.plan("7.30"), fleet.plan("73.00")
    organization = str(fleet.organization("6.00"))
    assert 0 == command("admission", "minimum", "5", "--reason", "a start")[0]
    assert 0 == command("admission", "minimum", "20.00", "--plan", str(large), "--reason", "abuse")[0]
    allowed = command("admission", "check", organization, str(small))
    assert (0, "Yes. The balance lasts 600 hours with this server.") == allowed
    refused = command("admission", "check", organization, str(large))
    assert (1, "No. 20.00 USD is needed and 6.00 is available: please add at least 14.00.") == refused
    assert 0 == command("admission", "minimum", "--remove", "--plan", str(large))[0]
    assert 0 == command("admission", "check", organization, str(large))[0]
    assert 1 == command("admission", "minimum", "--remove", "--plan", str(large))[0]
    assert 2 == command("admission", "minimum", "5.001", "--reason", "x")[0]
    assert 2 == command("admission", "minimum", "5")[0]


def test_over_http_it_is_the_same(fleet: Fleet) -> None:
    """For admins; a plan without a name is refused."""
    plan, organization = fleet.plan("7.30"), fleet.organization("1.00")
    with client_of(fleet.conninfo) as client:
        path = f"/api/billing/organizations/{organization}/admission"
        got = client.get(path, params={"plan": str(plan), "hours": "48"}, headers=bearer(ADMIN_TOKEN))
        assert may_create(fleet, organization, plan, 48) == got.json()
        assert 401 == client.get(path, params={"plan": str(plan)}).status_code
        assert 422 == client.get(path, headers=bearer(ADMIN_TOKEN)).status_code
