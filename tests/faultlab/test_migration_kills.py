"""A migration is killed at every statement, and run again: the result is that of an undisturbed one."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import psycopg
import pytest
from tests.faultlab.migration_kills import LEGACY


@pytest.fixture(params=["empty", "legacy"])
def kind(request: pytest.FixtureRequest, empty_database: str) -> str:
    """The kind of database to migrate; `empty_database` is one of that kind."""
    if request.param == "legacy":
        with psycopg.connect(empty_database, autocommit=True) as host:
            host.execute(LEGACY)
    return str(request.param)


def killed(kind: str, database: str, rounds: int) -> dict[str, Any]:
    """Kill in a process of its own: one that forks must have no other threads."""
    command = [
        sys.executable,
        "-m",
        "tests.faultlab.migration_kills",
        f"--{kind}",
        database,
        "--rounds",
        str(rounds),
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=2400)
    assert done.returncode in {0, 1}, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.mark.slow
def test_a_migration_killed_at_every_statement_is_as_if_it_never_was(kind: str, empty_database: str) -> None:
    """Once at every exchange with the server, the moment changing; schema and rows are those of an undisturbed database."""
    report = killed(kind, empty_database, 1)

    assert [] == report["findings"]
    assert 0 == report.get("missed", 0)
    assert report["kills"] > 100
