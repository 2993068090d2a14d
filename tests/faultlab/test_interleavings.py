"""Billers and hosts on one organization, in orders of their statements that are drawn here and complete with --slow."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest


def explored(database: str, *arguments: str) -> dict[str, Any]:
    """Explore in a process of its own."""
    command = [sys.executable, "-m", "tests.faultlab.interleavings", "--database", database, *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=2400)
    assert done.returncode in {0, 1}, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def every_wallet(*scenes: str) -> list[str]:
    return [f"{scene}, {wallet}" for scene in scenes for wallet in ("rich", "past due")]


def arguments(scenes: list[str]) -> list[str]:
    return [word for scene in scenes for word in ("--scene", scene)]


def test_some_orders_charge_every_hour_once(database: str) -> None:
    """Two billers, a takeover, and transactions of the host that lock in either order, with a rich and a short wallet."""
    scenes = every_wallet("two billers", "takeover", "delete", "resize and pay")
    report = explored(database, "--limit", "6", "--seed", "7", *arguments(scenes))

    assert [] == report["findings"]
    assert dict.fromkeys(scenes, 6) == report["schedulesOfScene"]


@pytest.mark.slow
def test_every_order_of_two_billers_and_of_a_takeover_charges_every_hour_once(database: str) -> None:
    """All schedules: the rows alone keep two billers apart, and a biller whose lease is gone charges nothing."""
    scenes = ["two billers, rich", "two billers, past due", "takeover, rich"]
    report = explored(database, *(word for scene in scenes for word in ("--scene", scene)))

    assert [] == report["findings"]
    assert set(scenes) == set(report["complete"])
    assert any("LeaseLost" in ending for ending in report["endings"])
    assert not any(ending.startswith("first charged 3, second charged 3") for ending in report["endings"])
