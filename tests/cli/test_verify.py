"""`verify` on the command line: what people read, what programs read, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result
from tests.fleet import Fleet

from containerstacks_billing.cli import app

Command = Callable[..., Result]


@pytest.fixture
def command(database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Command:
    """Run the command on the test's database, away from any .env."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", database)
    return lambda *arguments: CliRunner().invoke(app, ["verify", *arguments])


@pytest.fixture
def fleet(conn: psycopg.Connection[Any]) -> Fleet:
    """Two organizations, billed; one of them owes."""
    fleet = Fleet(conn)
    plan = fleet.plan("7.30")
    for balance in ("10.00", "0.02"):
        fleet.instance(fleet.organization(balance), plan)
    fleet.hours(5)
    fleet.bill()
    return fleet


def test_books_that_are_right_end_with_0(command: Command, fleet: Fleet) -> None:
    """A line per check, what is worth knowing, and the sentence that people came for, in 80 columns."""
    shown = command()
    lines = shown.stdout.splitlines()
    assert shown.exit_code == 0
    assert 16 == sum(line.startswith("OK ") for line in lines)
    assert "Past due: 1 instance, 0.03." in lines
    assert lines[-1] == "The books are right, as of 2026-03-01 05:00:00 UTC."
    assert [] == [line for line in lines if len(line) > 80]


def test_each_discrepancy_is_a_line_and_ends_with_1(command: Command, fleet: Fleet) -> None:
    """The line holds the identifiers in full, however long it gets: it is there to be searched for."""
    (wallet,) = fleet.rows(
        "update wallets set balance = balance + 1 where balance > 1 returning id, organization_id"
    )
    shown = command()
    assert shown.exit_code == 1
    (line,) = (line for line in shown.stdout.splitlines() if line.startswith("balances: "))
    assert str(wallet.id) in line
    assert str(wallet.organization_id) in line
    assert "FAIL balances" in shown.stdout
    assert "1 of 16 checks failed, 1 discrepancy" in shown.stdout


def test_every_discrepancy_is_in_the_document(command: Command, fleet: Fleet) -> None:
    """One document for programs: the checks, the discrepancies with their identifiers, the host's rows by themselves."""
    document = json.loads(command("--json").stdout)
    assert document["ok"] is True
    assert document["discrepancies"] == []
    assert set(document["checks"][0]) == {"name", "description", "ok", "examined", "discrepancies", "shown"}
    assert document["host"] == {
        "cycles": 0, "doubled": 0, "overlapped": 0, "chargedByBoth": 0, "hoursChargedByBoth": "0",
        "amountChargedByBoth": "0.00", "unkeyedDebits": 0,
    }  # fmt: skip
    assert document["setAside"]["pastDueAmount"] == "0.03"

    (charge,) = fleet.rows(
        "update vps_billing_cycles set total_amount = total_amount + 1 where status = 'failed'"
        " returning id, vps_instance_id, organization_id, run_id"
    )
    damaged = command("--json")
    document = json.loads(damaged.stdout)
    assert (damaged.exit_code, document["ok"]) == (1, False)
    (found,) = document["discrepancies"]
    assert found.pop("message").startswith("its amount is 1.03")
    assert found == {
        "check": "amounts",
        "organizationId": str(charge.organization_id),
        "instanceId": str(charge.vps_instance_id),
        "chargeId": str(charge.id),
        "runId": charge.run_id,
    }


def test_one_organization_is_asked_for_by_its_identifier(command: Command, fleet: Fleet) -> None:
    """Another one's damage does not end its verification with 1; an unknown one is refused; nonsense is a usage error."""
    fleet.conn.execute("update wallets set balance = balance + 1 where balance > 1")
    (well,) = fleet.rows("select organization_id as id from wallets where balance < 1")
    assert command("--organization", str(well.id)).exit_code == 0
    assert command().exit_code == 1
    assert command("--organization", "acme").exit_code == 2
    unknown = command("--organization", "00000000-0000-0000-0000-000000000001")
    assert unknown.exit_code == 2
    assert "know nothing of an organization" in unknown.stderr


def test_what_was_not_metered_comes_with_a_hint(command: Command, fleet: Fleet) -> None:
    """Hours that only the table of failures knows need a person; the message says where to look."""
    fleet.conn.execute("insert into billing_metering_failures (error, segment) values ('disk full', '[]')")
    shown = command()
    assert shown.exit_code == 1
    assert "disk full (failure 1)" in shown.stdout
    assert "hint: Look at billing_metering_failures" in shown.stdout


def test_a_database_that_was_not_migrated_is_refused(command: Command, conn: psycopg.Connection[Any]) -> None:
    """Books of another shape cannot be compared: exit 78 and what to do."""
    conn.execute("delete from schema_migrations where version = 12")
    refused = command()
    assert refused.exit_code == 78
    assert "Run `containerstacks-billing migrate`" in refused.stderr
