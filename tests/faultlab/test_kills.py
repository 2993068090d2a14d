"""A run is killed at every statement, and the next one charges exactly what is missing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.resources import files
from typing import Any


def killed(database: str, *arguments: str) -> dict[str, Any]:
    """Kill in a process of its own: one that forks must have no other threads."""
    command = [sys.executable, "-m", "tests.faultlab.kills", "--json", "--database", database, *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=1200)
    assert done.returncode in {0, 1}, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def statements_of_a_batch() -> set[str]:
    """Every statement of batch.sql but the one that only a lock which was not given leads to."""
    text = files("containerstacks_billing.charging").joinpath("batch.sql").read_text()
    names = set(re.findall(r"^-- name: (\w+)$", text, re.MULTILINE)) - {"lock_holders"}
    return {f"batch: {name}" for name in names}


def test_a_run_killed_at_every_statement_loses_nothing(database: str) -> None:
    """Once at each statement of a run, the moment (before, during, after) changing from one to the next."""
    report = killed(database, "--share", "3", "--seed", "1")

    assert [] == report["findings"]
    assert [] == report["neverKilledAt"]
    assert statements_of_a_batch() <= report["killsOfStatement"].keys()
    assert report["kills"] > 60
    assert report["hoursCharged"] > 1000
