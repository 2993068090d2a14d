"""`why` and `statement` about random histories. The long form is ./dev reference --explain."""

from __future__ import annotations

import secrets
from typing import Any

import psycopg
import pytest
from tests.explain.judge import judge
from tests.stateful_test import live


def test_every_entry_adds_up_and_every_month_closes(conn: psycopg.Connection[Any]) -> None:
    """Whatever happened to a fleet, each hour is explained once, and all months together are the ledger."""
    lived = live(conn, histories=6, steps=25, seed=4711, judges=(judge,))

    assert lived.tally["months closed"] > 0
    assert lived.tally["hours explained"] > 0


@pytest.mark.slow
def test_a_thousand_histories_are_explained(conn: psycopg.Connection[Any]) -> None:
    """The same for a thousand machines, with entries of runs and of corrections among them."""
    lived = live(conn, histories=1000, steps=40, seed=secrets.randbelow(10**6), judges=(judge,))

    assert lived.tally["entries explained"] > 1000
    assert lived.tally["price corrections"] > 0
