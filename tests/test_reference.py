"""The product against the reference model, to the last digit. The long form is ./dev reference."""

from __future__ import annotations

import secrets
from typing import Any

import psycopg
from tests.stateful_test import live


def test_random_histories_agree_with_the_reference_model(conn: psycopg.Connection[Any]) -> None:
    """Whatever happens to a fleet, every hour, balance, carry and debt is what plain arithmetic says."""
    lived = live(conn, histories=20, steps=30, seed=secrets.randbelow(10**6))

    assert lived.tally["machines"] >= 20
    assert lived.tally["billed"] > 0
