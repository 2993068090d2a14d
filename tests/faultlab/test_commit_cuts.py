"""The answer to a COMMIT is lost: the process survives, and every hour is charged once."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any


def cut(database: str, *arguments: str) -> dict[str, Any]:
    """Cut in a process of its own, whose pauses are none."""
    command = [sys.executable, "-m", "tests.faultlab.cuts", "--database", database, *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=1200)
    assert done.returncode in {0, 1}, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_every_commit_of_a_run_may_be_cut(database: str) -> None:
    """Each before, during and after it: lease, opening, batches, damage, runways, closing, renewal."""
    report = cut(database, "--seed", "1")

    assert [] == report["findings"]
    assert [] == report["neverCut"]
    assert {"acquire_lease", "open_run", "record_batch", "close_run", "renew_lease"} <= report[
        "cutsOfCommit"
    ].keys()
    assert report["hoursCharged"] > 500
