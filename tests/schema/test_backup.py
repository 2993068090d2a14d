"""Backup and restore as documented: a complete restore is consistent; a restored table of instances alone is detected and quarantined."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.command import Command
from tests.fleet import Fleet

from containerstacks_billing.errors import ConfigurationError
from containerstacks_billing.sandbox.programs import find_programs

Tool = Callable[..., None]


@pytest.fixture
def tool(conn: psycopg.Connection[Any]) -> Tool:
    """A function that runs pg_dump or pg_restore of the server's version."""
    try:
        programs = find_programs(major=conn.info.server_version // 10_000)
    except ConfigurationError as missing:
        pytest.skip(f"pg_dump of the server's version is not installed: {missing}")
    if not Path(programs.path("pg_dump")).exists():
        pytest.skip(f"pg_dump is missing in {programs.directory}, which has the server alone")

    def run(name: str, *arguments: str) -> None:
        done = subprocess.run(
            [programs.path(name), *arguments], capture_output=True, text=True, timeout=180, check=False
        )
        assert (0, "") == (done.returncode, done.stderr)

    return run


@pytest.fixture
def backed_up(conn: psycopg.Connection[Any], database: str, tool: Tool, tmp_path: Path) -> tuple[Fleet, Path]:
    """A fleet with three hours charged when it was backed up, and two more since."""
    fleet, backup = Fleet(conn), tmp_path / "backup"
    plan = fleet.plan("7.30")
    for count in (2, 1):
        organization = fleet.organization("100.00")
        for _ in range(count):
            fleet.instance(organization, plan)
    fleet.hours(3)
    fleet.bill()
    tool("pg_dump", "--format=custom", f"--file={backup}", "--dbname", database)
    fleet.hours(2)
    fleet.bill()
    return fleet, backup


def verified(command: Command, conninfo: str) -> tuple[int, str]:
    done = command("verify", environment={"DATABASE_URL": conninfo})
    return done.returncode, done.stdout


@pytest.mark.parametrize("where", ["empty_database", "database"])
def test_a_whole_backup_is_restored_and_billing_goes_on(
    backed_up: tuple[Fleet, Path], tool: Tool, command: Command, where: str, request: pytest.FixtureRequest
) -> None:
    """On another server or over the same database: books, watermarks and triggers are those of the backup.

    The hours since then are charged by the next run, once.
    """
    fleet, backup = backed_up
    conninfo = request.getfixturevalue(where)
    fleet.conn.close()
    tool("pg_restore", "--clean", "--if-exists", "--single-transaction", "--dbname", conninfo, str(backup))
    assert 0 == verified(command, conninfo)[0]
    assert 0 == command("migrate", "--status", environment={"DATABASE_URL": conninfo}).returncode

    with psycopg.connect(conninfo, autocommit=True) as conn:
        conn.execute("update test_clock set at = %s", (fleet.now,))
        fleet.conn, fleet.conninfo = conn, conninfo
        result = fleet.bill()
        assert (3, 6, [5, 5, 5]) == (result.instances_billed, result.hours, whole_hours(fleet))
        # Metering came back too.
        conn.execute("update vps_instances set status = 'stopped'")
    assert 0 == verified(command, conninfo)[0]


def whole_hours(fleet: Fleet) -> list[int]:
    """How many hours of each instance are charged."""
    rows = fleet.rows(
        "select (sum(extract(epoch from billing_period_end - billing_period_start)) / 3600)::integer as hours"
        " from vps_billing_cycles where run_id is not null group by vps_instance_id"
    )
    return [row.hours for row in rows]


def test_a_table_of_instances_restored_alone_is_found_and_charged_once(
    backed_up: tuple[Fleet, Path], database: str, tool: Tool, command: Command
) -> None:
    """Its watermarks are behind what was charged: verify says so of each instance, and a run goes on where the charges end."""
    fleet, backup = backed_up
    charged = fleet.charges()
    with fleet.conn.transaction():
        fleet.conn.execute("set local session_replication_role = replica")
        fleet.conn.execute("delete from vps_instances")
    tool("pg_restore", "--data-only", "--disable-triggers", "--table=vps_instances", "--dbname", database,
         str(backup))  # fmt: skip

    code, said = verified(command, fleet.conninfo)
    assert (1, 3) == (code, said.count("as after the restore of a backup")), said
    fleet.bill()
    assert (charged, {}) == (fleet.charges(), fleet.quarantine())
    code, said = verified(command, fleet.conninfo)
    assert 0 == code, said
