"""`decisions`: what people decided about money, of every kind, newest first, with who and why."""

from __future__ import annotations

import json
from typing import Any

import psycopg
from tests.command import Command
from tests.fleet import Fleet


def test_every_kind_of_decision_is_listed_with_who_and_why(
    conn: psycopg.Connection[Any], command: Command
) -> None:
    """Held hours, a corrected price, a released run, a minimum and an accepted discrepancy; of one customer what is about it."""
    fleet = Fleet(conn, max_catch_up_hours=10)
    acme, other = fleet.organization("100.00", name="Acme"), fleet.organization("100.00", name="Other")
    plan = fleet.plan("7.30", provider_plan_id="small")
    fleet.instance(acme, plan)
    fleet.hours(2)
    fleet.bill()
    environment = {"DATABASE_URL": fleet.conninfo, "MAX_CATCH_UP_HOURS": "10"}

    def decide(*words: str) -> None:
        fleet.hours(0.1)
        done = command(*words, environment=environment)
        assert done.returncode == 0, done.stderr

    assert "Nothing was decided yet." in command("decisions", environment=environment).stdout
    decide("prices", "set", "small", "--base", "6.57", "--markup", "0", "--from", "2026-03-01T00:00Z", "--correct", "--yes",
           "--reason", "typed wrong")  # fmt: skip
    fleet.reprice(plan, "73.00")
    fleet.hours(1)
    fleet.bill()
    decide("release", "--yes", "--reason", "meant so", "--by", "anna")
    fleet.instance(other, plan)
    fleet.hours(20)
    fleet.bill()
    decide("release", "--all", "--waive", "--yes", "--reason", "an outage", "--by", "ben")
    decide("admission", "minimum", "5.00", "--reason", "a day at least")
    fleet.conn.execute("update wallets set balance = balance + 1 where organization_id = %s", (other,))
    decide("reconcile", str(other), "--accept", "--yes", "--reason", "a gift", "--check", "balances")

    found = json.loads(command("decisions", "--json", environment=environment).stdout)["decisions"]
    of_other = json.loads(
        command("decisions", "--organization", str(other), "--json", environment=environment).stdout
    )["decisions"]
    told = command("decisions", environment=environment).stdout
    assert [
        ("accept", "Other", "a gift"),
        ("minimum", None, "a day at least"),
        ("waive", "Acme", "an outage"),
        ("waive", "Other", "an outage"),
        ("release", None, "meant so"),
        ("correct", None, "typed wrong"),
    ] == sorted_within((one["decision"], one["organization"], one["reason"]) for one in found)
    assert [("accept", "a gift"), ("waive", "an outage")] == [
        (one["decision"], one["reason"]) for one in of_other
    ]
    assert "anna" == next(one["decidedBy"] for one in found if one["decision"] == "release")
    assert "because: typed wrong" in told


def sorted_within(rows: Any) -> list[tuple[Any, ...]]:
    """Sort the two decisions of one instant by the name of the customer, and leave the others where they are."""
    listed = list(rows)
    at = [number for number, row in enumerate(listed) if row[0] == "waive"]
    listed[at[0] : at[-1] + 1] = sorted(listed[at[0] : at[-1] + 1])
    return listed
