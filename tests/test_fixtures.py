"""The databases that tests are given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg


def tables(conninfo: str) -> int:
    """How many tables a database has of its own."""
    with psycopg.connect(conninfo) as conn:
        row = conn.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
    assert row is not None
    return int(row[0])


def test_a_database_is_migrated(conn: psycopg.Connection[Any]) -> None:
    """`conn` stands in a database that has the tables of the product."""
    assert conn.execute("SELECT count(*) FROM vps_billing_cycles").fetchone() == (0,)
    assert conn.autocommit


def test_an_empty_database_is_empty(empty_database: str) -> None:
    """Nothing was migrated."""
    assert tables(empty_database) == 0


def test_what_one_database_gets_no_other_has(
    make_database: Callable[[str], str], template: str, database: str
) -> None:
    """Clones share nothing after they were made."""
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute("CREATE TABLE mine ()")
    assert tables(make_database(template)) == tables(database) - 1
