"""The product against the reference model, to the last digit: a few histories, the same in every run.

`./dev reference` and the nightly run draw a seed and live thousands.
"""

from __future__ import annotations

from typing import Any

import psycopg
from tests.stateful_test import live


def test_random_histories_agree_with_the_reference_model(conn: psycopg.Connection[Any]) -> None:
    """Whatever happens to a fleet, every hour, balance, carry and debt is what plain arithmetic says."""
    lived = live(conn, histories=12, steps=30, seed=20260301)

    assert lived.tally["machines"] >= 12
    assert lived.tally["billed"] > 0
