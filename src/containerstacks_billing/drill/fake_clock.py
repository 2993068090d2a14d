"""Clock of a throw-away database: start, speed and setting. fake_clock.sql documents its guarantees.

Like the oracle it shares nothing with the product.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any, LiteralString

import psycopg

Connection = psycopg.Connection[Any]


def start_clock(conn: Connection, at: datetime, speed: float = 0) -> None:
    """Replace the clock of this database, after the oracle was installed; at a speed of 0 it stands still."""
    with conn.transaction():
        conn.execute((Path(__file__).parent / "fake_clock.sql").read_text())
        conn.execute("insert into oracle.clock values (%s, clock_timestamp(), %s)", (at, speed))


def set_clock(conn: Connection, at: datetime | None = None, speed: float | None = None) -> datetime:
    """Set the clock to an instant, or let it run at another speed; return what it said before."""
    return _instant(conn, "select oracle.set_clock(%s, %s)", at, speed)


def read_clock(conn: Connection) -> datetime:
    """Return what the clock says."""
    return _instant(conn, "select billing_clock()")


def highest(conn: Connection) -> datetime:
    """Return how far the clock has come at most; what was closed in a time that was taken back is due from there on."""
    return _instant(conn, "select greatest(billing_clock(), (select max(before) from oracle.steps))")


def _instant(conn: Connection, statement: LiteralString, *values: object) -> datetime:
    row: tuple[datetime] | None = conn.execute(statement, values).fetchone()
    if row is None:
        raise LookupError("the clock of this database does not answer")
    return row[0]
