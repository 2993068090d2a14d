"""`reverse` and `credit` on the command line: preview, question, JSON, exit codes, and what makes no sense."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from tests.fleet import Fleet

from containerstacks_billing.cli import app

SPAN = ("--from", "2026-03-01T00:00Z", "--until", "2026-03-01T03:00Z")


@pytest.fixture
def fleet(conn: psycopg.Connection[Any]) -> Fleet:
    fleet = Fleet(conn)
    fleet.instance(fleet.organization("10.00", name="Acme"), fleet.plan("73.00"))
    fleet.hours(3)
    fleet.bill()
    return fleet


@pytest.fixture
def command(fleet: Fleet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Run a verb on the fleet's database, away from any .env."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", fleet.conninfo)
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


def test_a_preview_shows_each_customer_and_changes_nothing(fleet: Fleet, command: Any) -> None:
    """In 80 columns: hours, what was charged, what moves, the balance before and after."""
    shown = command("reverse", "--run", "1", "--waive", "--reason", "outage", "--dry-run")

    assert 0 == shown.exit_code, shown.output
    assert max(len(line) for line in shown.stdout.splitlines()) <= 80
    [row] = [line.split() for line in shown.stdout.splitlines() if line.startswith("Acme")]
    assert ["Acme", "3", "0.30", "0.30", "0.30", "9.70", "10.00"] == row[:7]
    assert "Nothing was changed." in shown.stdout
    assert [] == fleet.rows("select from billing_adjustment_orders")


def test_posting_says_what_moved_and_the_lists_know_it(fleet: Fleet, command: Any) -> None:
    """Posted once, listed with its id, undone, and named by `decisions`, `why` and `statement`."""
    posted = json.loads(
        command("reverse", "--run", "1", "--waive", "--reason", "x", "--yes", "--json").stdout
    )
    again = command("reverse", "--run", "1", "--waive", "--reason", "x", "--yes")
    listed = json.loads(command("reverse", "list", "--json").stdout)
    detail = json.loads(command("reverse", "show", "1", "--json").stdout)
    entry = fleet.rows("select id from payment_transactions where amount > 0")[0].id
    why = command("why", str(entry))
    statement = json.loads(
        command("statement", str(detail["moved"][0]["organizationId"]), "--month", "2026-03", "--json").stdout
    )
    undone = command("reverse", "undo", "1", "--reason", "mistake", "--yes")
    decisions = json.loads(command("decisions", "--json").stdout)

    assert (1, True, 1, "-0.30") == (
        posted["id"],
        posted["posted"],
        posted["adjustments"],
        posted["answers"]["now"],
    )
    assert (0, True) == (again.exit_code, "There is nothing to do." in again.stdout)
    assert [(1, "waive", "-0.30")] == [(one["id"], one["mode"], one["amount"]) for one in listed["orders"]]
    assert [("Acme", "-0.30", 1)] == [(one["name"], one["amount"], one["entries"]) for one in detail["moved"]]
    assert (0, True) == (why.exit_code, "reversal 1" in why.stdout), why.output
    assert [("reversal", "-0.30")] == [
        (one["kind"], one["amount"]) for one in statement["usage"]["adjustments"]
    ]
    assert 0 == undone.exit_code, undone.output
    assert [("undo", "0.30"), ("waive", "-0.30")] == [
        (one["decision"], one["amount"]) for one in decisions["data"]
    ]
    assert 0 == command("verify").exit_code
    assert Decimal("9.70") == fleet.rows("select balance from wallets")[0].balance


def test_a_file_names_the_instances_and_a_wrong_line_is_named(
    fleet: Fleet, command: Any, tmp_path: Path
) -> None:
    """By the column of the id, in any place; a line that is none is refused with its number."""
    instance = fleet.rows("select id from vps_instances")[0].id
    right, wrong = tmp_path / "right.csv", tmp_path / "wrong.csv"
    right.write_text(f"label,id\nweb,{instance}\n")
    wrong.write_text(f"label,id\nweb,{instance}\nmail,oops\n")
    credited = command(
        "credit", *SPAN, "--file", str(right), "--percent", "50", "--reason", "x", "--yes", "--json"
    )
    refused = command("credit", *SPAN, "--file", str(wrong), "--reason", "x", "--dry-run")

    assert "-0.15" == json.loads(credited.stdout)["answers"]["now"]
    assert (2, True) == (refused.exit_code, "'oops' in row 3" in refused.stderr)


def test_a_customer_without_a_wallet_ends_with_1(fleet: Fleet, command: Any) -> None:
    """Something is left: the sum is said and the exit code too."""
    fleet.conn.execute("delete from wallets")
    done = command("reverse", "--run", "1", "--waive", "--reason", "x", "--dry-run")

    assert "can go nowhere" in done.stdout
    assert 0 == done.exit_code


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["reverse", "--run", "1", "--reason", "x"], "--waive or --rerate"),
        (["reverse", "--run", "1", "--waive", "--rerate", "--reason", "x"], "--waive or --rerate"),
        (["reverse", "--waive", "--reason", "x"], "--run N, or --from and --until"),
        (["reverse", "--run", "1", *SPAN, "--waive", "--reason", "x"], "--run N, or --from and --until"),
        (["reverse", "--from", "2026-03-01", "--waive", "--reason", "x"], "both --from and --until"),
        (["reverse", "--run", "1", "--waive"], "needs --reason"),
        (["reverse", "--run", "1", "--waive", "--reason", "x" * 501], "at most 500 characters"),
        (["reverse", "--run", "1", "--waive", "--reason", "x"], "needs --yes here"),
        (["reverse", "--run", "1", "--waive", "list"], "behind its name"),
        (["reverse", "undo", "1"], "needs --reason"),
        (["credit", "--reason", "x"], "--from and --until"),
        (["credit", *SPAN, "--percent", "101", "--reason", "x"], "--factor credits more"),
        (["credit", *SPAN, "--percent", "50", "--factor", "2", "--reason", "x"], "exclude each other"),
        (["credit", *SPAN, "--cap-percent", "50", "--reason", "x"], "both --cap-percent and --of"),
        (["credit", *SPAN, "--cap-percent", "50", "--of", "soon", "--reason", "x"], "write it like 30d"),
        (["credit", *SPAN, "--plan", "nope", "--reason", "x"], "no plan has the id"),
        (["credit", *SPAN, "--region", "nope", "--reason", "x"], "no instance is in the region"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_a_usage_error(command: Any, arguments: list[str], sentence: str) -> None:
    """Refused before anything is written, with what is wrong."""
    done = command(*arguments)
    assert (2, True) == (done.exit_code, sentence in " ".join(done.stderr.split())), done.stderr


def test_a_number_of_nothing_fails_with_a_hint_that_leads_somewhere(command: Any) -> None:
    """The command that it names shows what there is."""
    done = command("reverse", "show", "7")
    assert (1, True) == (done.exit_code, "reversal 7" in done.stderr), done.stderr
    assert 0 == command("reverse", "list").exit_code
