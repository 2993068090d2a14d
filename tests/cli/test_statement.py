"""`statement` on the command line: for accountants, for print, issued once and provable ever after."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from click.testing import CliRunner, Result
from psycopg.conninfo import make_conninfo
from tests.fleet import Fleet

from containerstacks_billing.cli import app

Command = Callable[..., Result]
NOVEMBER = ("--month", "2026-11")


@pytest.fixture
def command(database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """Run the command on the test's database, away from any .env."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", database)
    return lambda *arguments: CliRunner().invoke(app, ["statement", *map(str, arguments)])


@pytest.fixture
def fleet(conn: psycopg.Connection[Any]) -> Fleet:
    return Fleet(conn, at="2026-11-30 18:00", max_catch_up_hours=10_000)


def customer(fleet: Fleet, name: str = "Acme") -> UUID:
    """A customer who used the last six hours of November, billed on the first of December."""
    acme = fleet.organization("20.00", name=name)
    fleet.instance(acme, fleet.plan("11.00"), label="web")
    return acme


def billed(fleet: Fleet) -> None:
    fleet.at("2026-12-01 01:30")
    fleet.bill()


def document(shown: Result) -> dict[str, Any]:
    assert "" == shown.stderr
    read: dict[str, Any] = json.loads(shown.stdout)
    return read


def test_the_document_has_both_accounts_and_what_connects_them(command: Command, fleet: Fleet) -> None:
    """The keys that scripts rely on, camelCase, money as decimal strings."""
    acme = customer(fleet)
    billed(fleet)
    shown = document(command(acme, *NOVEMBER, "--json"))

    assert ("0.00", "20.00") == (shown["opening"], shown["closing"])
    assert [{"kind": "opening", "entries": 1, "amount": "20.00"}] == shown["entries"]
    [line] = shown["usage"]["lines"]
    assert ("web", 6, "0.01506849", "0.09041094", "0.09041094") == (
        line["label"], line["wholeHours"], line["hourlyRate"], line["amount"], shown["usage"]["amount"]
    )  # fmt: skip
    assert ("0.09041094", "0.09041094", "0.00", "0.00") == tuple(
        shown["reconciling"][key] for key in ("usage", "debitedLater", "debits", "difference")
    )
    assert (True, None, []) == (shown["complete"], shown["number"], shown["findings"])


def test_the_table_for_people(command: Command, fleet: Fleet) -> None:
    """Both accounts and the block between them, in 80 columns."""
    acme = customer(fleet)
    billed(fleet)
    shown = command(acme, *NOVEMBER)

    assert 0 == shown.exit_code
    lines = [" ".join(line.split()) for line in shown.stdout.splitlines()]
    for said in (
        "opening balance - 0.00",
        "closing balance - 20.00",
        "debited later -0.09041094",
        "debits 0.00",
    ):
        assert said in lines
    assert "none: a preview" in shown.stdout


def test_files_for_the_accountant(command: Command, fleet: Fleet, tmp_path: Path) -> None:
    """CSV, HTML and PDF, each written as a whole."""
    acme = customer(fleet)
    billed(fleet)
    shown = command(acme, *NOVEMBER, "--csv", "a.csv", "--html", "a.html", "--pdf", "a.pdf")

    assert (0, "", "") == (shown.exit_code, shown.stdout, shown.stderr)
    rows = list(csv.DictReader((tmp_path / "a.csv").read_text("utf-8-sig").splitlines()))
    assert ("closing balance", "20.00") == next(
        (row["kind"], row["amount"]) for row in rows if row["kind"] == "closing balance"
    )
    assert "<h1>Statement of account</h1>" in (tmp_path / "a.html").read_text()
    assert b"%PDF-" == (tmp_path / "a.pdf").read_bytes()[:5]
    assert ["a.csv", "a.html", "a.pdf"] == sorted(path.name for path in tmp_path.iterdir())
    nowhere = command(acme, *NOVEMBER, "--csv", "missing/a.csv")
    assert (1, True) == (nowhere.exit_code, "missing/a.csv cannot be written" in nowhere.stderr)


def test_a_statement_is_issued_once_and_is_the_same_ever_after(command: Command, fleet: Fleet) -> None:
    """A customer is renamed, an hour of the month is charged at last: the document stays, and says what changed."""
    acme = customer(fleet)
    early = command(acme, *NOVEMBER, "--issue", "--yes")
    assert (1, True) == (early.exit_code, "the month is not over" in early.stderr)
    billed(fleet)
    seen = command(acme, *NOVEMBER, "--issue", "--dry-run")
    assert (0, "It would be issued under the next number.\n") == (seen.exit_code, seen.stderr)
    asked = command(acme, *NOVEMBER, "--issue")
    assert (2, True) == (asked.exit_code, "needs --yes" in asked.stderr)

    issued = document(command(acme, *NOVEMBER, "--issue", "--yes", "--json"))
    again = document(command(acme, *NOVEMBER, "--json"))
    assert (1, issued) == (issued["number"], again)
    assert "before" in command(acme, *NOVEMBER, "--issue", "--yes").stderr

    fleet.conn.execute("update organizations set name = 'Acme renamed'")
    later = command(acme, *NOVEMBER, "--json")
    assert 0 == later.exit_code
    assert (issued["sha256"], ["organization: it was Acme, and is Acme renamed."]) == (
        json.loads(later.stdout)["sha256"], json.loads(later.stdout)["changes"]
    )  # fmt: skip
    assert "the books say otherwise since" in later.stderr
    moved = command(acme, *NOVEMBER, "--timezone", "Europe/Berlin")
    assert (1, True) == (moved.exit_code, "Give --timezone UTC" in moved.stderr)


def test_a_file_is_proved_against_itself_what_was_issued_and_the_books(
    command: Command, fleet: Fleet, tmp_path: Path
) -> None:
    """A forged amount, a forged number and changed books are three different answers."""
    acme = customer(fleet)
    billed(fleet)
    text = command(acme, *NOVEMBER, "--issue", "--yes", "--json").stdout
    file = tmp_path / "november.json"
    file.write_text(text)
    right = command("verify", file)
    assert (0, 3) == (right.exit_code, right.stdout.count("OK   "))

    file.write_text(text.replace('"0.09041094"', '"0.08041094"'))
    forged = command("verify", file)
    assert 1 == forged.exit_code
    assert "FAIL It does not add up:" in forged.stdout
    assert "FAIL It is not what was issued:" in forged.stdout
    file.write_text(text.replace('"number": 1', '"number": 2'))
    assert ["It says number 2, but was issued as 1."] == json.loads(command("verify", file, "--json").stdout)[
        "forged"
    ]
    file.write_text(text)
    fleet.conn.execute("update organizations set name = 'Acme renamed'")
    assert "FAIL The books say otherwise since:" in command("verify", file).stdout
    file.write_text("{}")
    assert (1, True) == (
        command("verify", file).exit_code,
        "is no statement" in command("verify", file).stderr,
    )
    assert 1 == command("verify", tmp_path / "none.json").exit_code


def test_all_statements_at_once(command: Command, fleet: Fleet, tmp_path: Path) -> None:
    """One file for each customer with something to say, numbers without a gap, and the sums of the ledger."""
    own = [customer(fleet, name) for name in ("Acme", "Bravo")]
    fleet.organization(None)
    billed(fleet)
    made = document(command("--all", *NOVEMBER, "--out", "november", "--format", "json", "--format", "csv",
                            "--issue", "--yes", "--json"))  # fmt: skip

    assert (2, 1, 2, "0.18082188", "40.00") == tuple(
        made[key] for key in ("statements", "empty", "issued", "usage", "closing")
    )
    assert sorted(f"{one}.{form}" for one in own for form in ("json", "csv")) == sorted(
        path.name for path in (tmp_path / "november").iterdir()
    )
    assert [0, 0] == [command("verify", f"november/{one}.json").exit_code for one in own]
    assert [1, 2] == [
        row.number for row in fleet.rows("select number from billing_statements order by number")
    ]
    again = command("--all", *NOVEMBER, "--issue", "--yes")
    assert (0, True) == (again.exit_code, "Not issued, 2: it was issued as number" not in again.stdout)
    assert [1, 2] == [
        row.number for row in fleet.rows("select number from billing_statements order by number")
    ]


def test_a_role_that_may_only_read_sees_statements_and_issues_none(
    command: Command, fleet: Fleet, role: str, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Accountants need no right to write."""
    acme = customer(fleet)
    billed(fleet)
    fleet.conn.execute("select billing_admit(%s, reading => true)", (role,))
    monkeypatch.setenv("DATABASE_URL", make_conninfo(database, user=role, password=role))

    assert 0 == command(acme, *NOVEMBER).exit_code
    refused = command(acme, *NOVEMBER, "--issue", "--yes")
    assert (78, True) == (refused.exit_code, "billing_statements" in refused.stderr)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((str(uuid4()), "--month", "2026-11"), "know no organization"),
        ((str(uuid4()),), "--month 2026-11"),
        (("Acme", "--month", "2026-11"), "is no id of an organization"),
        ((str(uuid4()), "--month", "2026-00"), "is no month"),
        ((str(uuid4()), "--month", "2026-11", "--timezone", "Mars/City"), "no time zone"),
        (("--all", "--month", "2026-11"), "needs --out"),
        (("--all", "--month", "2026-11", "--out", "x", "--pdf", "y.pdf"), "for one organization"),
        ((str(uuid4()), "--month", "2026-11", "--yes"), "belong to --issue"),
        ((str(uuid4()), "--month", "2026-11", "--out", "x"), "belong to --all"),
    ],
)
def test_what_makes_no_sense_is_refused(
    command: Command, fleet: Fleet, given: tuple[str, ...], said: str
) -> None:
    """With a sentence that says what to write."""
    shown = command(*given)
    assert (2, True) == (shown.exit_code, said in shown.stderr), shown.output


def test_damaged_books_end_with_1(command: Command, fleet: Fleet) -> None:
    """A statement that does not close is shown with the difference, and is not issued."""
    acme = customer(fleet)
    billed(fleet)
    fleet.conn.execute("update wallets set balance = balance + 1")
    shown = command(acme, *NOVEMBER)

    assert 1 == shown.exit_code
    assert "At present the balance is 20.90, but openings and ledger entries make 19.90" in shown.stderr
    refused = command(acme, *NOVEMBER, "--issue", "--yes")
    assert (1, True) == (refused.exit_code, "does not add up" in refused.stderr)
