"""`migrate` on the command line: what people read, what programs read, and how it ends."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result

from containerstacks_billing.cli import app
from containerstacks_billing.schema.files import delivered_schema
from containerstacks_billing.schema.model import PlannedMigration


@pytest.fixture
def command(empty_database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Any:
    """Run the command on an empty database, away from any .env."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", empty_database)
    return lambda *arguments: CliRunner().invoke(app, ["migrate", *arguments])


def test_the_plan_then_the_work_then_nothing_to_do(command: Any) -> None:
    """A dry run shows what a run then does, and a second run has nothing left."""
    planned: Result = command("--dry-run")
    assert "Creates users, organizations, wallets" in planned.stdout
    assert "Nothing was changed." in planned.stdout
    done: Result = command()
    assert (done.exit_code, done.stdout.startswith("Applied ")) == (0, True)
    assert "001_baseline.sql, step 1 of" in done.stderr
    again = command().stdout
    assert again.startswith("Nothing to do: every migration has been applied.\n")
    assert "When the daemon is silent: Nothing takes over: no application side has looked" in " ".join(
        again.split()
    )
    assert command("--dry-run").stdout == "Nothing to do: every migration has been applied.\n"


def test_every_form_has_its_json(command: Any) -> None:
    """One document each, in camel case, alone on standard output."""
    pending = json.loads(command("--dry-run", "--json").stdout)["pending"]
    assert set(pending[0]) == {"version", "name", "steps", "effects", "besideDaemon"}
    report = json.loads(command("--json").stdout)
    assert [one["version"] for one in report["applied"]] == [one["version"] for one in pending]
    assert (report["findings"], report["takeover"]["by"]) == ([], "nobody")
    known = json.loads(command("--status", "--json").stdout)["migrations"]
    assert {one["state"] for one in known} == {"applied"}
    assert set(known[0]) == {"version", "name", "state", "appliedAt", "durationMs"}


def test_a_migration_that_changed_is_shown_and_ends_78(command: Any, empty_database: str) -> None:
    """--status shows which one; migrate refuses with what to do."""
    command()
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute("update schema_migrations set checksum = 'other' where version = 12")
    shown: Result = command("--status")
    assert shown.exit_code == 78
    assert "changed" in shown.stdout
    refused: Result = command()
    assert refused.exit_code == 78
    assert "was changed after it was applied" in refused.stderr
    assert "hint: Restore the file" in refused.stderr


def test_it_says_what_takes_over_from_the_daemon(command: Any, empty_database: str) -> None:
    """A host that debits by itself has its own scheduler; an application side that bills beside it makes two."""
    command()
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute(
            """
            with owner as (insert into users (email, password_hash, name) values ('a@b.example', 'x', 'A') returning id),
            org as (insert into organizations (name, slug, owner_id) select 'A', 'a', id from owner returning id)
            insert into payment_transactions (organization_id, amount, payment_method, payment_provider, status, description)
            select id, -1, 'wallet_debit', 'internal', 'completed', 'VPS Hourly Billing - web (1h)' from org
            """
        )
    said = " ".join(command().stdout.split())
    assert "When the daemon is silent: The host’s own scheduler takes over" in said
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute(
            "insert into billing_application_sides (holder, setting, failover_after, looked_at)"
            " values ('built-in host-1-7', 'on', '90 minutes', now())"
        )
    assert json.loads(command("--json").stdout)["takeover"]["by"] == "both"


def test_plan_and_status_exclude_each_other(command: Any) -> None:
    """Two questions at once are a usage error."""
    assert command("--dry-run", "--status").exit_code == 2


def test_a_dry_run_says_what_a_daemon_notices_that_bills_meanwhile(command: Any) -> None:
    """Of each migration, and what is to be done at once afterwards; a table that is only created holds no batch up."""
    done: Result = command("--dry-run")
    assert done.stdout.count("Beside a running daemon: safe; ") == len(delivered_schema().files)
    assert "restart it with this version at once" in " ".join(done.stdout.split())
    planned = json.loads(command("--dry-run", "--json").stdout)
    by_name = {one["name"]: one["besideDaemon"] for one in planned["pending"]}
    assert "safe; no batch waits" == by_name["billing_daemon_status"]


@pytest.mark.parametrize(
    ("effects", "noticed"),
    [
        (("Creates billing_x: nothing is locked.",), "safe; no batch waits"),
        (
            ("wallets (about 3 rows, 8 kB) is locked for milliseconds.",),
            "safe; batches wait for milliseconds",
        ),
        (
            ("wallets is locked against readers and writers for about 12 s.",),
            "safe; batches wait as long as is said above",
        ),
        (("An index is built concurrently in about 40 s.",), "safe; no batch waits"),
    ],
)
def test_what_a_daemon_notices_follows_from_what_is_locked(effects: tuple[str, ...], noticed: str) -> None:
    """Seconds are said, milliseconds too, and an index that is built beside everything holds nothing up."""
    assert noticed == PlannedMigration(50, "x", (), effects).beside_daemon
