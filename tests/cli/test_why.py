"""`why` on the command line: what support reads, what a customer is sent, what programs read, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from click.testing import CliRunner, Result
from psycopg.conninfo import make_conninfo
from tests.fleet import Fleet

from containerstacks_billing.cli import app

Command = Callable[..., Result]


@pytest.fixture
def command(database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Command:
    """Run the command on the test's database, away from any .env."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", database)
    return lambda *arguments: CliRunner().invoke(app, ["why", *map(str, arguments)])


@pytest.fixture
def fleet(conn: psycopg.Connection[Any]) -> Fleet:
    """An organization with one instance at 11.00 a month, billed for two hours."""
    fleet = Fleet(conn)
    fleet.acme = fleet.organization("10.00", name="Acme")
    fleet.web = fleet.instance(fleet.acme, fleet.plan("6.00", "5.00"), label="web")
    fleet.hours(2)
    fleet.bill()
    return fleet


def entry_of(fleet: Fleet) -> UUID:
    return fleet.rows("select id from payment_transactions where provider_transaction_id like 'billing-%%'")[
        0
    ].id


def test_an_entry_for_support(command: Command, fleet: Fleet) -> None:
    """From the cents to the hours, the price and the run; and nothing is wrong."""
    shown = command(entry_of(fleet))

    assert 0 == shown.exit_code
    for said in (
        "amount      0.03 USD taken; the balance went from 10.00 to 9.97",
        "carried in  0.00, billed before and not debited yet",
        "exactly     0.03013698 charged",
        "carried out 0.00013698",
        "run         1 as of 2026-03-01 02:00, test by test-holder, lease 1",
        "0.01506849  11.00 (6.00 + 5.00) a month of 730 hours; in force since ever",
    ):
        assert said in shown.stdout
    row = "web 2026-03-01 00:00 2026-03-01 02:00 2 0.01506849 0.03013698"
    assert row in [" ".join(line.split()) for line in shown.stdout.splitlines()]


def test_an_entry_for_a_customer(command: Command, fleet: Fleet) -> None:
    """Three sentences in their words: no id, no carry, no run."""
    shown = command(entry_of(fleet), "--customer")

    assert [
        "On 1 March 2026, 02:00 UTC 0.03 USD were taken from your balance, which went from 10.00 USD to 9.97 USD.",
        "It pays for 2 hours of web between 1 March 2026, 00:00 UTC and 1 March 2026, 02:00 UTC, each hour at the price"
        " that held when it began.",
        "Fractions of a cent are kept and counted together with the next hours, so a line may differ from hours times"
        " price by less than a cent.",
    ] == shown.stdout.splitlines()


def test_what_does_not_add_up_ends_with_1_and_is_not_sent_to_customers(
    command: Command, fleet: Fleet
) -> None:
    """Support sees by how much; a customer must not be given a wrong number."""
    entry = entry_of(fleet)
    fleet.conn.execute("update payment_transactions set amount = -0.05 where id = %s", (entry,))
    shown, sent, read = command(entry), command(entry, "--customer"), command(entry, "--json")

    assert [1, 1, 1] == [one.exit_code for one in (shown, sent, read)]
    assert "It does not add up:" in shown.stdout
    assert "0.02 too much." in shown.stdout
    assert "" == sent.stdout
    assert (False, "0.02") == (json.loads(read.stdout)["addsUp"], json.loads(read.stdout)["difference"])


def test_every_kind_of_id_is_found_by_itself(command: Command, fleet: Fleet) -> None:
    """Support pastes an id and need not know what it is; a deleted instance is found by what it left."""
    charge = fleet.rows("select id from vps_billing_cycles")[0].id
    found = [
        json.loads(command(one, "--json").stdout) for one in (entry_of(fleet), charge, fleet.web, fleet.acme)
    ]
    assert ["entry", "charge", "instance", "organization"] == [one["kind"] for one in found]

    fleet.delete(fleet.web)
    gone = json.loads(command(fleet.web, "--at", "2026-03-01T01:00Z", "--json").stdout)
    assert ("billed", "web", None) == (gone["state"], gone["label"], gone["status"])
    nowhere = command(uuid4())
    assert 2 == nowhere.exit_code
    assert "the books know no entry, charge, instance or organization" in nowhere.stderr
    assert [2, 2, 2] == [
        command(*given).exit_code
        for given in (("x",), (fleet.web, "--at", "yesterday"), (charge, "--at", "2026-03-01T01:00Z"))
    ]


def test_why_an_hour_was_not_billed(command: Command, fleet: Fleet) -> None:
    """The requested instant, and the segments before it with their reasons."""
    fleet.set(fleet.web, status="stopped")
    fleet.hours(5)
    shown = command(fleet.web, "--at", "2026-03-01T04:00Z")

    assert 0 == shown.exit_code
    assert "not billable: Its status is stopped since 2026-03-01 02:00." in shown.stdout
    assert [
        "You asked about your server web at 1 March 2026, 04:00 UTC.",
        "A server is billed while it runs, and this one did not.",
        "Nothing was taken from your balance for this time.",
    ] == command(fleet.web, "--at", "2026-03-01T04:00Z", "--customer").stdout.splitlines()


def test_a_hostile_label_stays_text(command: Command, fleet: Fleet) -> None:
    """Control characters would move the reader's cursor; they are shown escaped."""
    fleet.set(fleet.web, label="web\x1b[2J\n[red]")

    assert "\x1b" not in command(entry_of(fleet)).stdout
    assert "\x1b" not in command(entry_of(fleet), "--customer").stdout


def test_a_role_that_may_only_read_is_enough(command: Command, fleet: Fleet, role: str, database: str,
    monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """The role of `grants --reading`, which monitoring and support have."""
    fleet.conn.execute("select billing_admit(%s, reading => true)", (role,))
    monkeypatch.setenv("DATABASE_URL", make_conninfo(database, user=role, password=role))

    assert [0, 0, 0] == [command(one).exit_code for one in (entry_of(fleet), fleet.web, fleet.acme)]
