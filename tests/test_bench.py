"""The benchmark's command line; its figures are no test's business."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("arguments", ["--instances 0", "--instances=-5", "--instances 10,x", "--runs 0"])
def test_a_fleet_of_none_is_a_usage_error(arguments: str) -> None:
    """Said before a server is made; it used to end in a division by zero."""
    command = [sys.executable, "-m", "benchmarks.fleet", *arguments.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert 2 == done.returncode
    assert "is no whole number from 1 on" in done.stderr
