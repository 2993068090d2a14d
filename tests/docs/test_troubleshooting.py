"""The table of symptoms in the troubleshooting guide is true: each cause is brought about, and `doctor` says what stands there.

Nothing here needs a systemd: a unit file is a file, and how a service ended is what systemd's words make of it. Under a real
one the life of the service (test_systemd.py) meets 203/EXEC, exit 78 and Permission denied again.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from tests.clock import application_side
from tests.daemons import ROOT
from tests.fleet import Fleet

from containerstacks_billing.config.target import Target
from containerstacks_billing.database import inspect as examination
from containerstacks_billing.database.connection import connect
from containerstacks_billing.doctor import Finding, Level, examine, host, unit
from containerstacks_billing.doctor import database as checks
from containerstacks_billing.doctor.billing import billing
from containerstacks_billing.doctor.database import Subject
from containerstacks_billing.settings import Settings
from containerstacks_billing.systemd.access import Account, examine_env_file, examine_executable
from containerstacks_billing.systemd.systemctl import UnitState

GUIDE = ROOT / "docs" / "troubleshooting" / "common-issues.md"
ME, NOBODY = Account("root", 0, 0, frozenset({0})), Account("nobody", 65534, 65534, frozenset({65534}))
UNIT = "containerstacks-billing.service"
Found = Iterable[Finding]


class Patient:
    """What a cause may change: a directory of its own, and a database on demand."""

    def __init__(self, directory: Path, patch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
        self.directory, self.patch = directory, patch
        self._request = request

    @property
    def conninfo(self) -> str:
        """A migrated database."""
        return str(self._request.getfixturevalue("database"))

    @property
    def empty(self) -> str:
        """A database without a table."""
        return str(self._request.getfixturevalue("empty_database"))

    @property
    def role(self) -> str:
        """A role without a right, whose name is its password."""
        return str(self._request.getfixturevalue("role"))

    @property
    def conn(self) -> psycopg.Connection[Any]:
        """A connection of the owner."""
        conn: psycopg.Connection[Any] = self._request.getfixturevalue("conn")
        return conn

    def examined(self, conninfo: str | None = None, **flags: str) -> list[Finding]:
        """Everything that `doctor` says."""
        return list(examine({"DATABASE_URL": conninfo or self.conninfo, **flags}))

    def program(self, mode: int = 0o755) -> Path:
        """A program that could be the daemon."""
        path = self.directory / "bin" / "billing"
        path.parent.mkdir()
        path.write_text("#!/bin/sh\necho 1\n")
        path.chmod(mode)
        return path

    def unit(self, *lines: str) -> list[Finding]:
        """What is said of a unit file with these lines."""
        file = self.directory / UNIT
        file.write_text("\n".join(["[Service]", *lines]))
        return list(unit.unit([file]))

    def fleet(self, hours: float = 0) -> Fleet:
        """A customer with an instance that has so many hours due."""
        fleet = Fleet(self.conn)
        fleet.instance(fleet.organization("10.00"), fleet.plan("7.30"))
        fleet.hours(hours)
        return fleet

    def debit_by_the_host(self) -> None:
        """A debit that the original application wrote."""
        self.conn.execute(
            "insert into payment_transactions (organization_id, amount, payment_method, payment_provider, status, created_at,"
            " description) select id, -1, 'wallet_debit', 'internal', 'completed', billing_clock(),"
            " 'VPS Hourly Billing - web-1 (1h)' from organizations"
        )

    def daemon(self, minutes_ago: int, **columns: str) -> None:
        """A daemon that was heard of so long ago."""
        names = ["daemon_instance_id", "status", *columns]
        self.conn.execute(
            sql.SQL(
                "insert into billing_daemon_status ({}, heartbeat_at) values ({}, billing_clock() - make_interval(mins => {}))"
            ).format(
                sql.SQL(", ").join(map(sql.Identifier, names)),
                sql.SQL(", ").join(map(sql.Literal, [f"host-{minutes_ago}", "running", *columns.values()])),
                sql.Literal(minutes_ago),
            )
        )


@pytest.fixture
def patient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Patient:
    """No settings but those of the test, no other database within reach, and the service is installed."""
    installed = "containerstacks_billing.doctor.billing.unit_files"
    monkeypatch.setattr(installed, lambda _: [tmp_path / UNIT])
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.setenv("CONTAINERSTACKS_BILLING_STATE", str(tmp_path / "state"))
    return Patient(tmp_path, monkeypatch, request)


def ended(**properties: str) -> Callable[[Patient], Found]:
    """What is said of a service that ended like this."""
    base = {"LoadState": "loaded", "ActiveState": "failed", "SubState": "failed", "Result": "exit-code", "NRestarts": "0",
            "WatchdogUSec": "2min", "ExecMainCode": "1", "ExecMainStatus": "0"}  # fmt: skip
    return lambda _: list(unit.how_it_is(UnitState(UNIT, {**base, **properties})))


def a_closed_directory(p: Patient) -> Found:
    program = p.program()
    program.parent.chmod(0o700)
    return examine_executable(program, NOBODY, hardened=False)


def a_program_in_a_home(p: Patient) -> Found:
    from containerstacks_billing.systemd import access as service_paths

    p.patch.setattr(service_paths, "_HOMES", (p.directory,))
    return examine_executable(p.program(), NOBODY, hardened=True)


def a_program_that_others_own(p: Patient) -> Found:
    return examine_executable(p.program(0o757), ME, hardened=False)


def an_unreadable_file(p: Patient) -> Found:
    file = p.directory / ".env"
    file.write_text("A=1\n")
    file.chmod(0o600)
    return examine_env_file(file, NOBODY)


def an_open_file(p: Patient) -> Found:
    (p.directory / ".env").write_text("A=1\n")
    (p.directory / ".env").chmod(0o644)
    return p.examined()


def read_only(p: Patient) -> Found:
    name = str(conninfo_to_dict(p.conninfo)["dbname"])
    p.conn.execute(
        sql.SQL("alter database {} set default_transaction_read_only = on").format(sql.Identifier(name))
    )
    return p.examined()


def little_memory(p: Patient, free: int, ended: int) -> Found:
    (p.directory / "meminfo").write_text(f"MemTotal: 2000000 kB\nMemAvailable: {free} kB\n")
    (p.directory / "vmstat").write_text(f"oom_kill {ended}\n")
    return host.memory(p.directory / "meminfo")


def a_full_disk(p: Patient) -> Found:
    p.patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1024))
    return list(host.room(p.directory))


def a_held_run(p: Patient) -> Found:
    fleet = p.fleet(hours=1)
    fleet.bill()
    p.conn.execute("update vps_plans set base_price = 7300")
    fleet.hours(1)
    fleet.bill()
    return p.examined()


def a_failed_run(p: Patient) -> Found:
    p.fleet(hours=1).bill()
    p.conn.execute("update billing_runs set outcome = 'failed', error_message = 'the server lost 3 batches'")
    return p.examined()


def no_run_for_a_long_time(p: Patient) -> Found:
    fleet = p.fleet(hours=1)
    fleet.bill()
    fleet.hours(5)
    return p.examined()


def a_server_that(check: Callable[[Subject], Found], **differs: Any) -> Callable[[Patient], Found]:
    """What a check says of a server that is another than the test's in this."""

    def look(p: Patient) -> Found:
        with connect(p.conninfo, purpose="reading") as connection:
            server = replace(examination.server(connection, p.conninfo), **differs)
            subject = Subject(Settings(), Target(p.conninfo, embedded=False), connection, server)
            return list(check(subject))

    return look


def a_changed_migration(p: Patient) -> Found:
    p.conn.execute("update schema_migrations set checksum = 'changed' where version = 12")
    return p.examined()


def undone(statement: str) -> Callable[[Patient], Found]:
    """Findings about a database in which an object of billing was changed."""

    def look(p: Patient) -> Found:
        p.conn.execute(statement.encode())
        return p.examined()

    return look


def no_password(p: Patient) -> Found:
    given = {name: value for name, value in conninfo_to_dict(p.conninfo).items() if name != "password"}
    return p.examined(make_conninfo(**{**given, "user": p.role, "passfile": str(p.directory / "none")}))


def a_link_into_nowhere(p: Patient) -> Found:
    (p.directory / ".env").symlink_to(p.directory / "none")
    return p.examined()


def a_silent_embedded_database(p: Patient) -> Found:
    with connect(p.conninfo, purpose="reading") as connection:
        server = examination.server(connection, p.conninfo)
        return list(billing(Subject(Settings(), Target(p.conninfo, embedded=True), connection, server)))


def lines_that_systemd_reads_differently(p: Patient) -> Path:
    file = p.directory / ".env"
    file.write_text("BILLING_INTERVAL_MINUTES=30 # half an hour\n")
    file.chmod(0o600)
    return file


def a_full_disk_under_the_embedded_database(p: Patient) -> Found:
    p.patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1024))
    return list(host.disk(p.directory))


def an_error_in_the_row(p: Patient) -> Found:
    p.daemon(1, error_message="Run 7 was held: plan S costs more than before")
    return p.examined()


def another_interval(p: Patient) -> Found:
    p.daemon(1, metadata='{"interval_minutes": 1440}')
    return p.examined()


def silence(p: Patient) -> Found:
    p.daemon(200)
    return p.examined()


def missing_heartbeats(p: Patient) -> Found:
    p.daemon(20)
    return p.examined()


def two_daemons(p: Patient) -> Found:
    p.daemon(1)
    p.daemon(2)
    return p.examined()


def nothing_billable(p: Patient) -> Found:
    p.fleet()
    p.conn.execute("update vps_instances set status = 'stopped'")
    return p.examined(BILLABLE_STATUSES="running")


def an_instance_without_a_plan(p: Patient) -> Found:
    fleet = p.fleet(hours=2)
    p.conn.execute("update vps_instances set plan_id = 'no such plan'")
    fleet.hours(1)
    fleet.bill()
    return p.examined()


def a_second_biller(p: Patient) -> Found:
    application_side(p.fleet(), "on")
    p.debit_by_the_host()
    return p.examined()


# Finding and words, as in the table: what brings it about.
CAUSES: dict[tuple[str, str], Callable[[Patient], Found]] = {
    ("executable", "does not exist"): lambda p: examine_executable(p.directory / "none" / "tsx", ME, hardened=False),
    ("executable", "cannot pass through"): a_closed_directory,
    ("executable", "ProtectHome=yes"): a_program_in_a_home,
    ("executable", "names no program by its full path"): lambda p: p.unit("User=root", "ExecStart=tsx index.js"),
    ("service", "exit 203 (203/EXEC"): ended(ExecMainStatus="203"),
    ("working directory", "200/CHDIR"): lambda p: p.unit(f"WorkingDirectory={p.directory}/none", f"ExecStart={p.program()}"),
    ("EnvironmentFile", "does not exist, so systemd refuses to start"): lambda p: p.unit(
        f"WorkingDirectory={p.directory}", f"ExecStart={p.program()}", f"EnvironmentFile={p.directory}/.env"
    ),
    ("interpreter", "is too old"): lambda _: host.interpreter((3, 9, 2)),
    ("user", "217/USER"): lambda p: p.unit("User=no-such-user-here", f"ExecStart={p.program()}"),
    ("executable", "may not execute"): lambda p: examine_executable(p.program(0o644), ME, hardened=False),
    ("configuration", "BILLING_INTERVAL_MINUTES"): lambda p: p.examined(BILLING_INTERVAL_MINUTES="0"),
    ("configuration", "does not exist"): lambda p: p.examined(CONTAINERSTACKS_ENV_FILE=str(p.directory / "none.env")),
    ("database", "DATABASE_URL is not set"): lambda _: list(examine({})),
    ("schema", "Missing: "): lambda p: p.examined(p.empty),
    ("service", "exit 78"): ended(ExecMainStatus="78"),
    ("database", "no PostgreSQL is listening"): lambda p: p.examined("postgresql://u:p@127.0.0.1:1/d"),
    ("database", "refused the password"): lambda p: p.examined(make_conninfo(p.conninfo, user=p.role, password="x")),
    ("database", "none was given"): no_password,
    ("migrations", "permission denied"): lambda p: p.examined(make_conninfo(p.conninfo, user=p.role, password=p.role)),
    ("heartbeat", "nothing bills by itself"): a_silent_embedded_database,
    ("configuration", "is a link to"): a_link_into_nowhere,
    ("database", "has no database of that name"): lambda p: p.examined(make_conninfo(p.conninfo, dbname="none")),
    ("rights", "lacks rights"): lambda p: p.examined(make_conninfo(p.conninfo, user=p.role, password=p.role)),
    ("recovery", "read-only by default"): read_only,
    ("service", "ended by signal"): ended(Result="signal", ExecMainCode="2", ExecMainStatus="11"),
    ("service", "the watchdog timed out"): ended(Result="watchdog", ExecMainCode="3", ExecMainStatus="6"),
    ("service", "because memory was short"): ended(Result="oom-kill", ExecMainCode="2", ExecMainStatus="9"),
    ("memory", "for want of memory"): lambda p: little_memory(p, free=1_500_000, ended=2),
    ("memory", "available"): lambda p: little_memory(p, free=50_000, ended=0),
    ("disk for logs", "free for logs"): a_full_disk,
    ("restarts", "systemd restarted the service"): ended(ActiveState="active", Result="success", NRestarts="3"),
    ("service", "The service is stopped"): ended(ActiveState="inactive", Result="success", ExecMainCode="0"),
    ("last error", "was held"): an_error_in_the_row,
    ("heartbeat", "No daemon has reported yet"): lambda p: p.examined(),
    ("heartbeat", "Last heartbeat "): silence,
    ("heartbeat", "has been silent for"): missing_heartbeats,
    ("interval", "BILLING_INTERVAL_MINUTES is"): another_interval,
    ("last run", "was held"): a_held_run,
    ("last run", "was failed"): a_failed_run,
    ("last run", "No run has completed for"): no_run_for_a_long_time,
    ("instances", "0 of 1 instances are billable"): nothing_billable,
    ("service", "active, but does not bill: the heartbeat cannot be written"): ended(
        ActiveState="active", Result="success",
        StatusText="error: the heartbeat cannot be written: The database refused the password; no run yet",
    ),
    ("service", "active, but does not bill: run 7"): ended(
        ActiveState="active", Result="success", StatusText="error: run 7 was held: plan S costs more; next run in 9 min",
    ),
    ("quarantine", "not billed: "): an_instance_without_a_plan,
    ("other billers", "the host application bills too"): a_second_biller,
    ("built-in billing", "both take over"): a_second_biller,
    ("built-in billing", "Nothing takes over"): lambda p: p.examined(),
    ("other daemons", "Also alive"): two_daemons,
    ("memory of the service", "MiB"): ended(ActiveState="active", Result="success", MemoryCurrent=str(2 * 1024**3)),
    (".env of the unit", "Permission denied: "): an_unreadable_file,
    ("server version", "is too old"): a_server_that(checks.version, version_number=140_011),
    ("recovery", "is a standby"): a_server_that(checks.writable, in_recovery=True),
    ("clock", "ahead of this machine"): a_server_that(checks.clock, clock_ahead_seconds=400.0),
    ("clock", "behind this machine"): a_server_that(checks.clock, clock_ahead_seconds=-6.0),
    ("migrations", "012"): a_changed_migration,
    ("migrations", "Triggers are disabled"): undone("alter table vps_instances disable trigger billing_move_watermark"),
    ("migrations", "Triggers are missing"): undone("drop trigger billing_price_changed on vps_plans"),
    ("migrations", "Functions are missing"): undone("drop function billing_amount"),
    ("migrations", "Functions are not those"): undone(
        "create or replace function billing_money_text(amount numeric) returns text language sql return '1'"
    ),
    ("migrations", "is missing or invalid"): undone("drop index vps_billing_cycles_one_charge_per_hour"),
    ("schema", "Missing: billing_decisions"): undone("drop table billing_decisions"),
    ("disk", "free for the embedded database"): a_full_disk_under_the_embedded_database,
    ("EnvironmentFile", "the service gets another BILLING_INTERVAL_MINUTES"): lambda p: list(
        unit.environment_file(str(lines_that_systemd_reads_differently(p)))
    ),
    ("watchdog", "has no WatchdogSec="): ended(ActiveState="active", Result="success", WatchdogUSec="0"),
    ("configuration", "mode 0644"): an_open_file,
    ("executable", "can be changed by"): a_program_that_others_own,
}  # fmt: skip
ROW = re.compile(r"^\| ([^|]+) \| `([^`]+)`: `([^`]+)` \| `([^`]+)` \|$", re.MULTILINE)


def rows() -> list[tuple[str, str, str, str]]:
    """The table: symptom, finding, its words, remedy."""
    section = GUIDE.read_text().partition("## What `doctor` says of each symptom")[2].partition("\n## ")[0]
    return ROW.findall(section)


@pytest.mark.parametrize(("symptom", "check", "words", "remedy"), rows(), ids=lambda text: str(text)[:40])
def test_doctor_names_the_cause_and_the_remedy(
    patient: Patient, symptom: str, check: str, words: str, remedy: str
) -> None:
    """The finding with these words is a warning or a failure, and its hint holds the remedy."""
    findings = list(CAUSES[check, words](patient))
    said = [one for one in findings if one.check == check and words in one.message]
    assert said, (symptom, [str(one) for one in findings])
    assert Level.OK not in {one.level for one in said}
    assert any(remedy in f"{one.message} {one.hint}" for one in said), said


def test_the_table_lists_every_cause_and_the_guide_of_the_daemon_every_symptom() -> None:
    """No cause without its line, and every heading of the troubleshooting has one."""
    assert sorted(CAUSES) == sorted((check, words) for _, check, words, _ in rows())
    listed = " ".join(symptom for symptom, *_ in rows())
    for words in ("203/EXEC", "Does not start", "Connection refused", "Authentication failed", "Stops", "No billing",
                  "Charged twice", "High memory usage", "Permission denied"):  # fmt: skip
        assert words in listed
