"""Reversals, credits and settlements that are killed or cut off are finished by the same command, once."""

from __future__ import annotations

import json
import subprocess
import sys


def test_what_is_broken_off_is_finished_once(database: str) -> None:
    """A few SIGKILLs and cut commits, each followed by the same command; `./dev nightly` makes thousands."""
    command = [sys.executable, "-m", "tests.faultlab.order_attacks", "--database", database]
    done = subprocess.run(
        [*command, "--kills", "6", "--cuts", "3", "--seed", "1"],
        check=False,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode in {0, 1}, done.stderr
    report = json.loads(done.stdout)

    assert [] == report["findings"]
    assert (True, True) == (report["kills"] >= 6, report["cuts"] >= 3)
