"""Roles of least privilege: the GRANT statements that the command prints are enough, and not one more."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from tests.daemons import Start
from tests.fleet import Fleet
from tests.web.client import bearer, client_of, make_token

from containerstacks_billing.charging.model import Outcome
from containerstacks_billing.charging.run import run_billing
from containerstacks_billing.daemon.preflight import preflight
from containerstacks_billing.database.grants import BILLING_RIGHTS
from containerstacks_billing.errors import RightsMissing

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def fleet(conn: psycopg.Connection[Any]) -> Fleet:
    fleet = Fleet(conn)
    fleet.conn.execute("grant select on test_clock to public")
    return fleet


def granted(command: Command, fleet: Fleet, database: str, role: str, *options: str) -> str:
    """Give a role what the command says that it needs; return how it connects."""
    printed = command("grants", "--role", role, *options, environment={"DATABASE_URL": database})
    assert printed.returncode == 0, printed.stderr
    fleet.conn.execute(printed.stdout)
    return make_conninfo(database, user=role, password=role)


def test_the_rights_of_a_daemon_are_enough_for_all_it_does(
    command: Command, fleet: Fleet, database: str, role: str, start: Start
) -> None:
    """A whole fleet: charges, debts that grow and are paid, segments, a change of policy, quarantine, old rows removed."""
    url = granted(command, fleet, database, role)
    plan = fleet.plan("7.30")
    rich, poor = fleet.organization("10.00"), fleet.organization("0.01")
    web, _ = fleet.instance(rich, plan), fleet.instance(poor, plan)
    fleet.instance(rich, "no-such-plan")
    fleet.hours(2)
    order = replace(fleet.order(), conninfo=url)
    first = run_billing(order)
    fleet.hours(1.5)
    fleet.set(web, status="stopped")
    fleet.top_up(poor, "5.00")
    fleet.hours(1)
    second = run_billing(
        replace(fleet.order(), conninfo=url, terms=replace(fleet.terms, billable_statuses=("*",)))
    )

    assert [(Outcome.COMPLETED, 1), (Outcome.COMPLETED, 0)] == [
        (first.outcome, first.past_due_instances),
        (second.outcome, second.past_due_instances),
    ]
    fleet.conn.execute(
        "insert into billing_daemon_status (daemon_instance_id, status, heartbeat_at) values ('old-1', 'stopped', '2020-01-01')"
    )
    daemon = start(url, HEARTBEAT_SECONDS="1", BILLABLE_STATUSES="*")
    daemon.conninfo = database
    daemon.when(lambda row: row.status == "running" and row.last_run_success)
    daemon.says("Old rows removed", "billing_daemon_status=1")
    assert 0 == daemon.stop()
    assert not daemon.lines("level=error")
    assert not daemon.lines("level=warning")


@pytest.mark.parametrize("name", ["public", "none", " ", "pg_monitor"])
def test_no_statement_is_written_for_everybody(command: Command, name: str) -> None:
    """PostgreSQL reads "public" as PUBLIC, even in quotes: the ledger would be open to every role of the server."""
    refused = command("grants", "--role", name)
    assert (78, "") == (refused.returncode, refused.stdout)
    assert "no name of a role" in refused.stderr


def test_the_rights_of_a_daemon_allow_no_more(
    command: Command, fleet: Fleet, database: str, role: str
) -> None:
    """It can neither delete a charge or a ledger entry, nor change one, nor touch the schema or the host's users."""
    url = granted(command, fleet, database, role)
    with psycopg.connect(url, autocommit=True) as conn:
        for forbidden in (
            "delete from vps_billing_cycles",
            "delete from payment_transactions",
            "update payment_transactions set amount = 0",
            "delete from vps_instances",
            "select password_hash from users",
            "select email from users",
            "update users set role = 'admin'",
            "truncate billing_runs",
            "drop table billing_runs",
            "create table mine (id integer)",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(forbidden)


def test_a_daemon_is_ready_without_a_right_only_when_it_bills_without_it(
    command: Command, fleet: Fleet, database: str, role: str
) -> None:
    """Every right is missed alone; then all that it claims to do without at once, amid debts, recovery and quarantine."""
    url = granted(command, fleet, database, role)
    dispensable: list[tuple[str, str]] = []
    for table, right in ((table, right) for table, rights in BILLING_RIGHTS.items() for right in rights):
        fleet.conn.execute(f"revoke {right} on {table} from {role}".encode())
        try:
            preflight(url)
            dispensable.append((table, right))
        except RightsMissing:
            pass
        fleet.conn.execute(f"grant {right} on {table} to {role}".encode())
    for table, right in dispensable:
        fleet.conn.execute(f"revoke {right} on {table} from {role}".encode())
    plan = fleet.plan("7.30")
    poor, rich = fleet.organization("0.01"), fleet.organization("10.00")
    fleet.instance(poor, plan)
    unknown = fleet.instance(rich, "no-such-plan")
    fleet.hours(2)
    first = run_billing(replace(fleet.order(), conninfo=url))
    fleet.top_up(poor, "5.00")
    fleet.set(unknown, plan_id=str(plan))
    fleet.hours(1)
    second = run_billing(replace(fleet.order(), conninfo=url))

    assert {"billing_runs", "billing_events", "billing_tokens"} <= {table for table, _ in dispensable}
    assert [(Outcome.COMPLETED, None)] * 2 == [(run.outcome, run.error_message) for run in (first, second)]
    assert [1, 0] == [run.past_due_instances for run in (first, second)]


def test_a_reader_sees_everything_and_changes_nothing(
    command: Command, fleet: Fleet, database: str, role: str
) -> None:
    """The verbs `status`, `runs`, `verify` and `doctor` work for a role that may only read."""
    fleet.instance(fleet.organization("10.00"), fleet.plan("7.30"))
    fleet.hours(2)
    fleet.bill()
    url = granted(command, fleet, database, role, "--read-only")
    environment = {"DATABASE_URL": url}

    for verb in ("status", "runs", "verify", "doctor"):
        done = command(verb, environment=environment)
        assert done.returncode == 0, f"{verb}: {done.stdout}{done.stderr}"
    refused = command("run", environment=environment)
    assert refused.returncode in {75, 78}
    with psycopg.connect(url, autocommit=True) as conn:
        for forbidden in ("update wallets set balance = 0", "select token_hash from billing_tokens"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(forbidden)


def test_billing_uses_tokens_and_makes_none(command: Command, fleet: Fleet, database: str, role: str) -> None:
    """A process that was taken over cannot let itself in: it notes the use of a token, and neither makes, widens nor revokes one."""
    url = granted(command, fleet, database, role)
    text = make_token(fleet.conn)
    with client_of(url) as client:
        assert 200 == client.get("/api/v1/runs", headers=bearer(text)).status_code
    assert [(True,)] == fleet.conn.execute("select last_used_at is not null from billing_tokens").fetchall()
    refused = command("token", "create", "mine", environment={"DATABASE_URL": url})
    assert (78, "") == (refused.returncode, refused.stdout)
    assert ("as the owner of the tables" in refused.stderr, "GRANT" in refused.stderr) == (True, False)
    with psycopg.connect(url, autocommit=True) as conn:
        for forbidden in ("update billing_tokens set scopes = '{decide}'", "delete from billing_tokens"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(forbidden)
