"""Who decided what about whose money: one list of all decisions, on the command line and over HTTP."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import psycopg
import pytest
from click.testing import CliRunner, Result
from tests.fleet import Fleet
from tests.web.client import ADMIN_TOKEN, bearer, client_of

from containerstacks_billing.cli import app
from containerstacks_billing.identity import operator_name


def command(fleet: Fleet, *arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, env={"DATABASE_URL": fleet.conninfo})


def listed(fleet: Fleet, *options: str) -> dict[str, Any]:
    """The document of the list."""
    done = command(fleet, "decisions", *options, "--json")
    assert 0 == done.exit_code, done.output
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.fixture
def decided(conn: psycopg.Connection[Any]) -> tuple[Fleet, UUID, UUID]:
    """Four decisions, an hour apart: hours waived, a price corrected, a discrepancy accepted, a held run released."""
    fleet = Fleet(conn)
    acme, other, plan = (
        fleet.organization("100.00", name="Acme"),
        fleet.organization("100.00"),
        fleet.plan("7.30"),
    )
    fleet.instance(acme, plan, label="web")
    fleet.hours(100)
    fleet.bill()
    steps = (
        ("release", "--organization", str(acme), "--waive", "--reason", "an outage", "--by", "ada", "--yes"),
        (
            "prices", "set", str(plan), "--base", "14.60", "--markup", "0", "--from", "2026-03-05T04:00Z",
            "--correct", "--reason", "a typo", "--yes",
        ),
        ("reconcile", str(other), "--accept", "--reason", "a gift", "--by", "cem", "--yes"),
    )  # fmt: skip
    for number, step in enumerate(steps):
        fleet.hours(1)
        fleet.bill()
        if number == 2:
            fleet.conn.execute(
                "update wallets set balance = balance + 5 where organization_id = %s", (other,)
            )
        done = command(fleet, *step)
        assert 0 == done.exit_code, done.output
    fleet.hours(1)
    fleet.conn.execute(
        "update billing_runs set outcome = 'held', released_at = billing_clock(), released_by = 'dia',"
        " release_reason = 'as announced' where id = 4"
    )
    return fleet, acme, plan


def test_all_kinds_of_decisions_stand_in_one_list_newest_first(decided: tuple[Fleet, UUID, UUID]) -> None:
    """With the author, the reason and, where money moved, the amount; two of four by --limit."""
    fleet, _, _ = decided
    document = listed(fleet)
    shown = command(fleet, "decisions", "--limit", "2").stdout

    assert [
        ("run", "release", None, None, None, 4, "dia", "as announced"),
        ("discrepancy", "accept", "Organization 2", None, "5.00", None, "cem", "a gift"),
        ("price", "correct", None, None, "0.01", None, operator_name(), "a typo"),
        ("hours", "waive", "Acme", "web", None, None, "ada", "an outage"),
    ] == [
        tuple(
            one[name]
            for name in (
                "kind", "decision", "organization", "label", "amount", "runId", "decidedBy", "reason",
            )
        )
        for one in document["data"]
    ]  # fmt: skip
    assert (False, None) == (document["hasMore"], document["nextCursor"])
    assert all(text in shown for text in ("run 4", "balances, Organization 2", "dia", "cem", "older ones"))
    assert "an outage" not in shown


def test_decisions_of_an_organization_are_those_about_its_money(decided: tuple[Fleet, UUID, UUID]) -> None:
    """A correction counts where it adjusted a charge; the release of a run is about no organization."""
    fleet, acme, _ = decided
    document = listed(fleet, "--organization", str(acme))
    unknown = command(fleet, "decisions", "--organization", str(UUID(int=7)))

    assert [("correct", "0.01"), ("waive", None)] == [
        (one["decision"], one["amount"]) for one in document["data"]
    ]
    assert (2, True) == (unknown.exit_code, "there is no organization" in unknown.stderr)


def test_the_api_lists_the_same_decisions_page_by_page(decided: tuple[Fleet, UUID, UUID]) -> None:
    """One at a time, each once, also those of one instant; both pages of the console show them."""
    fleet, acme, _ = decided
    for table, column in (
        ("billing_decisions", "decided_at"),
        ("billing_price_corrections", "decided_at"),
        ("billing_runs", "released_at"),
    ):
        fleet.conn.execute(f"update {table} set {column} = '2026-03-06' where {column} is not null")
    expected = listed(fleet)["data"]
    found: list[object] = []
    cursor = ""
    with client_of(fleet.conninfo) as client:
        for _ in range(4):
            page = client.get(f"/api/v1/decisions?limit=1{cursor}", headers=bearer(ADMIN_TOKEN)).json()
            found += page["data"]
            cursor = f"&cursor={page['nextCursor']}"
        client.post("/status/sign-in", data={"token": ADMIN_TOKEN})
        pages = {path: client.get(f"/status/{path}").text for path in ("decisions", f"organizations/{acme}")}

    assert ["release", "correct", "accept", "waive"] == [one["decision"] for one in expected]
    assert (expected, None) == (found, page["nextCursor"])
    assert all(str(one["reason"]) in pages["decisions"] for one in expected)
    assert [True, True, False] == [
        text in pages[f"organizations/{acme}"] for text in ("an outage", "a typo", "a gift")
    ]
