"""`doctor`: each fault is provoked and named with its remedy."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.types.json import Jsonb
from tests.clock import application_side, heartbeat
from tests.fleet import Fleet

from containerstacks_billing.config.target import Target
from containerstacks_billing.database import inspect as examination
from containerstacks_billing.database.connection import connect
from containerstacks_billing.doctor.billing import billing
from containerstacks_billing.doctor.database import Subject
from containerstacks_billing.identity import process_facts
from containerstacks_billing.settings import Settings

Command = Callable[..., "subprocess.CompletedProcess[str]"]
SECRET = "canary-5d1c6a"


def examined(command: Command, conninfo: str, **environment: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """Run doctor on a database; return the exit code and the worst finding of each check."""
    outcome = command("doctor", "--json", environment={"DATABASE_URL": conninfo, **environment})
    assert SECRET not in outcome.stdout + outcome.stderr
    document = json.loads(outcome.stdout)
    findings: dict[str, dict[str, Any]] = {}
    for finding in document["findings"]:
        ranks = {"OK": 0, "WARN": 1, "FAIL": 2}
        known = findings.get(finding["check"])
        if known is None or ranks[finding["level"]] > ranks[known["level"]]:
            findings[finding["check"]] = finding
    assert document["ok"] is (outcome.returncode == 0)
    return outcome.returncode, findings


def levels(findings: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {check: finding["level"] for check, finding in findings.items()}


def test_a_whole_installation_is_found_whole(command: Command, database: str, tmp_path: Path) -> None:
    """Nothing fails before the first daemon starts; what is missing yet is a warning."""
    code, findings = examined(command, database)
    assert code == 0
    for of_the_machine in ("memory", "disk for logs"):
        findings.pop(of_the_machine, None)
    assert levels(findings) == {
        "interpreter": "OK",
        "unit": "OK",
        "configuration": "OK",
        ".env": "OK",
        "database": "OK",
        "server version": "OK",
        "recovery": "OK",
        "schema": "OK",
        "migrations": "OK",
        "rights": "OK",
        "row security": "OK",
        "clock": "OK",
        "pooler": "OK",
        "heartbeat": "WARN",
        "last run": "WARN",
        "built-in billing": "WARN",
        "other billers": "OK",
        "host rights": "OK",
        "instances": "WARN",
    }


def test_one_line_per_check_for_people(command: Command, database: str) -> None:
    """Level first, so that the eye finds the faults."""
    outcome = command("doctor", environment={"DATABASE_URL": database})
    assert outcome.returncode == 0
    assert "OK   server version: PostgreSQL" in outcome.stdout
    assert "WARN heartbeat: No daemon has reported yet" in outcome.stdout
    assert re.fullmatch(r"[12]\d checks: 0 failed, [345] to look at\.", outcome.stdout.splitlines()[-1])


def test_a_database_that_is_away(command: Command) -> None:
    """The seed's "Connection refused"."""
    code, findings = examined(command, f"postgresql://u:{SECRET}@127.0.0.1:1/d")
    assert (code, findings["database"]["level"]) == (1, "FAIL")
    assert "no PostgreSQL is listening" in findings["database"]["message"]


def test_a_wrong_password(command: Command, database: str, role: str) -> None:
    """The seed's "Authentication failed"."""
    code, findings = examined(command, make_conninfo(database, user=role, password=SECRET))
    assert (code, "refused the password" in findings["database"]["message"]) == (1, True)


def test_missing_tables_lead_to_migrate(command: Command, empty_database: str) -> None:
    """Once for the tables, and not once more for every check that reads them."""
    code, findings = examined(command, empty_database)
    assert code == 1
    assert "wallets" in findings["schema"]["message"]
    assert "containerstacks-billing migrate" in findings["schema"]["hint"]
    assert findings["migrations"]["level"] == "FAIL"
    assert "heartbeat" not in findings


def test_a_role_without_rights_is_named_and_told_once(command: Command, database: str, role: str) -> None:
    """No placeholder, no check for each table that may not be read, and the lesser right is named."""
    _, findings = examined(command, make_conninfo(database, user=role, password=role))
    hints = " ".join(str(finding["hint"]) for finding in findings.values())
    assert "<role>" not in hints
    assert f"containerstacks-billing grants --read-only --role {role}" in findings["rights"]["hint"]
    assert {"heartbeat", "last run", "other billers", "instances"}.isdisjoint(findings)


def test_nobody_bills_by_itself_on_the_embedded_database(database: str) -> None:
    """Neither systemd nor built-in billing is mentioned: `up` is what bills there."""
    with connect(database, purpose="reading") as connection:
        server = examination.server(connection, database)
        subject = Subject(Settings(), Target(database, embedded=True), connection, server)
        found = [*billing(subject)]
    said = " ".join(f"{one.message} {one.hint}" for one in found)
    assert "nothing bills by itself" in said
    assert "containerstacks-billing up" in said
    assert [] == re.findall("built-in billing bills|systemctl|takes over in", said)


def test_missing_rights_come_as_statements_that_mend_them(command: Command, database: str, role: str) -> None:
    """What doctor prints is run by the owner, and doctor is content."""
    conninfo = make_conninfo(database, user=role, password=role)
    code, findings = examined(command, conninfo)
    assert code == 1
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute(findings["rights"]["hint"])
    code, findings = examined(command, conninfo)
    assert (code, findings["rights"]["level"], findings["instances"]["level"]) == (0, "OK", "WARN")


def test_a_read_only_default_is_found(command: Command, database: str, server: str) -> None:
    """Billing would fail at its first write."""
    name = str(conninfo_to_dict(database)["dbname"])
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(
            sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(sql.Identifier(name))
        )
    code, findings = examined(command, database)
    assert (code, findings["recovery"]["level"]) == (1, "FAIL")
    with psycopg.connect(server, autocommit=True) as admin:
        for statement in findings["recovery"]["hint"].splitlines():
            admin.execute(statement)
    code, findings = examined(command, database)
    assert (code, findings["recovery"]["level"]) == (0, "OK")


def test_it_says_what_takes_over(command: Command, database: str, conn: psycopg.Connection[Any]) -> None:
    """Nothing, built-in billing, the host's own scheduler, or both; for each what to set instead."""
    fleet = Fleet(conn)

    def found() -> tuple[str, str, str]:
        finding = examined(command, database)[1]["built-in billing"]
        return finding["level"], finding["message"].split(":")[0], finding["hint"]

    assert (
        "WARN",
        "Nothing takes over",
        "Start an application side: containerstacks-billing serve",
    ) == found()
    application_side(fleet, "off")
    assert (
        "WARN",
        "Nothing takes over",
        "Set BUILT_IN_BILLING=auto for the application side.",
    ) == found()
    application_side(fleet)
    assert ("OK", "Built-in billing takes over") == found()[:2]
    fleet.conn.execute(
        "insert into payment_transactions (organization_id, amount, payment_method, payment_provider, status, description,"
        " created_at) values (%s, -1, 'wallet_debit', 'internal', 'completed', 'VPS Creation - web-1 (Initial Hour)', %s)",
        (fleet.organization(), fleet.now),
    )
    assert ("OK", "Built-in billing takes over") == found()[:2]
    fleet.conn.execute("update payment_transactions set description = 'VPS Hourly Billing - web-1 (1h)'")
    assert ("OK", "The host’s own scheduler takes over") == found()[:2]
    application_side(fleet, "on")
    assert ("WARN", "Built-in billing and the host’s own scheduler both take over") == found()[:2]


def test_daemons_are_counted_by_their_heartbeats(
    command: Command, database: str, conn: psycopg.Connection[Any]
) -> None:
    """None, one that is gone, one that has fallen silent, a living one, two living ones."""

    def report(instance: str, minutes_ago: int) -> None:
        conn.execute(
            """
            INSERT INTO billing_daemon_status (daemon_instance_id, status, heartbeat_at)
            VALUES (%s, 'running', billing_clock() - make_interval(mins => %s))
            """,
            [instance, minutes_ago],
        )

    report("old-1", 200)
    _, findings = examined(command, database)
    assert findings["heartbeat"]["level"] == "WARN"
    assert (
        "Last heartbeat 3 h 20 min ago by old-1; nothing takes over: no application side"
        in findings["heartbeat"]["message"]
    )
    report("dead-1", 80)
    _, findings = examined(command, database)
    assert findings["heartbeat"]["level"] == "WARN"
    assert findings["heartbeat"]["message"].startswith(
        "The daemon dead-1 has been silent for 1 h 20 min; nothing takes over: no application side"
    )
    assert "systemctl status" in findings["heartbeat"]["hint"]
    conn.execute("delete from billing_daemon_status where daemon_instance_id = 'dead-1'")
    report("host-2", 1)
    _, findings = examined(command, database)
    assert findings["heartbeat"]["message"].startswith("host-2, 6")
    report("host-3", 2)
    code, findings = examined(command, database)
    assert (code, findings["other daemons"]["level"]) == (0, "WARN")
    assert "host-3" in findings["other daemons"]["message"]


def test_a_daemon_that_is_gone_is_no_rival(
    command: Command, database: str, conn: psycopg.Connection[Any]
) -> None:
    """One that was replaced on its host, one whose process is gone here, one that is silent; a living one is."""
    fleet = Fleet(conn)
    here = process_facts()

    def report(name: str, seconds: int, started: int, **process: Any) -> None:
        fleet.conn.execute(
            "insert into billing_daemon_status (daemon_instance_id, status, heartbeat_at, started_at, metadata)"
            " values (%s, 'running', %s, %s, %s)",
            (
                name,
                fleet.now - timedelta(seconds=seconds),
                fleet.now - timedelta(seconds=started),
                Jsonb({"interval_minutes": 30, **process}),
            ),
        )

    def rivals() -> str | None:
        found = examined(command, database)[1].get("other daemons")
        return found and found["message"]

    report("replaced", 70, 5000, hostname="web-1")
    report("killed", 20, 5000, **{**here, "start_ticks": 1})
    report("before the restart", 30, 5000, **{**here, "boot_id": "another"})
    report("silent", 301, 5000, hostname="web-2")
    report("new", 5, 60, hostname="web-1", interval_minutes=60)
    code, findings = examined(command, database)
    assert (0, "OK", None, None) == (
        code,
        findings["heartbeat"]["level"],
        findings.get("other daemons"),
        findings.get("interval"),
    )
    report("living here", 10, 5000, **here)
    assert "Also alive: living here." == rivals()
    report("living elsewhere", 12, 5000, hostname="web-3")
    assert "Also alive: living here, living elsewhere." == rivals()


def test_a_daemon_that_was_killed_is_not_said_to_live(
    command: Command, database: str, conn: psycopg.Connection[Any]
) -> None:
    """Its heartbeat is fresh, and its process is gone."""
    fleet = Fleet(conn)
    heartbeat(fleet, timedelta(seconds=4))
    fleet.conn.execute(
        "update billing_daemon_status set metadata = %s", (Jsonb({**process_facts(), "start_ticks": 1}),)
    )
    found = examined(command, database)[1]["heartbeat"]
    assert "WARN" == found["level"]
    assert found["message"].startswith(
        "The process of the daemon host-1 is gone without having stopped; nothing takes"
    )
    assert "systemctl status" in found["hint"]


def test_a_run_ahead_of_the_clock_has_no_age_below_zero(
    command: Command, database: str, conn: psycopg.Connection[Any]
) -> None:
    """After the clock was set back by a day the last run lies ahead of it, and doctor says which clock it was."""
    fleet = Fleet(conn)
    fleet.bill(trigger="daemon")
    fleet.hours(-25)
    found = examined(command, database)[1]["last run"]
    assert ("WARN", "The last run was completed 1 d 1 h ahead of the database's clock.") == (
        found["level"],
        found["message"],
    )


@pytest.mark.parametrize(
    ("units", "remedy"),
    [
        ([], "containerstacks-billing service install; elsewhere run: containerstacks-billing daemon"),
        ([Path("unit")], "systemctl start containerstacks-billing.service"),
    ],
)
def test_the_way_to_start_it_exists_here(
    database: str, monkeypatch: pytest.MonkeyPatch, units: list[Path], remedy: str
) -> None:
    """No service is to be started where none is installed."""
    monkeypatch.setattr("containerstacks_billing.doctor.billing.unit_files", lambda _: units)
    with connect(database, purpose="reading") as connection:
        server = examination.server(connection, database)
        found = next(iter(billing(Subject(Settings(), Target(database, False), connection, server))))
    assert remedy in str(found.hint)


def test_it_promises_nobody_who_is_not_there(
    command: Command, database: str, conn: psycopg.Connection[Any]
) -> None:
    """Built-in billing bills where it was seen to; on the embedded database nobody does by himself."""
    fleet = Fleet(conn)

    def said(*, embedded: bool = False) -> tuple[str, str | None]:
        with connect(database, purpose="reading") as connection:
            target = Target(database, embedded=embedded)
            subject = Subject(Settings(), target, connection, examination.server(connection, database))
            found = next(iter(billing(subject)))
            return found.message, found.hint

    assert (
        "No daemon has reported yet; nothing bills by itself on the embedded database.",
        "Start it, and let it run: containerstacks-billing up",
    ) == said(embedded=True)
    assert "nothing takes over: no application side has looked within 5 minutes" in said()[0]
    application_side(fleet)
    assert "No daemon has reported yet; built-in billing takes over at once." == said()[0]
    fleet.bill(trigger="built-in")
    fleet.at(timedelta(minutes=12))
    assert "No daemon has reported yet; built-in billing bills." == said()[0]
    fleet.hours(2)
    assert "nothing takes over" in said()[0]


def test_a_broken_configuration_is_a_finding(command: Command, database: str, tmp_path: Path) -> None:
    """Doctor is what one runs when nothing works; it does not give up itself."""
    code, findings = examined(command, database, BILLING_INTERVAL_MINUTES="0")
    assert (code, findings["configuration"]["level"]) == (1, "FAIL")
    path = tmp_path / ".env"
    path.write_text(f"JWT_SECRET={SECRET}")
    path.chmod(0o644)
    code, findings = examined(command, database)
    assert (code, "chmod 600" in findings["configuration"]["hint"]) == (1, True)
