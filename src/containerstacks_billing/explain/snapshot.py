"""One read-only snapshot of the database: all numbers of an explanation belong to the same instant.

REPEATABLE READ and READ ONLY, so a role that may only read is enough, a hot standby serves it, and a run that commits
meanwhile is either wholly in it or not at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.rows import namedtuple_row

from containerstacks_billing.database.connection import Connection, connect
from containerstacks_billing.database.statements import ask
from containerstacks_billing.schema.diagnose import diagnosed
from containerstacks_billing.schema.row_security import hidden_rows_problem

_BOUNDS = """
    select set_config('statement_timeout', %s, true), set_config('lock_timeout', '5s', true),
        set_config('idle_in_transaction_session_timeout', '0', true),
        set_config('jit', 'off', true), set_config('TimeZone', 'UTC', true), set_config('DateStyle', 'ISO', true)
"""


@contextmanager
def snapshot(conninfo: str, statement_timeout: str = "0") -> Iterator[Connection]:
    """Open a connection and yield it inside one read-only snapshot; raises BillingError."""
    with diagnosed(conninfo), connect(conninfo, purpose="reading") as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        with connection.transaction():
            connection.execute(_BOUNDS, (statement_timeout,))
            if problem := hidden_rows_problem(connection):
                raise problem
            yield connection


def rows_of(connection: Connection, statement: str, values: dict[str, Any]) -> list[Any]:
    """Return the rows of a named statement, as named tuples."""
    rows: list[Any] = ask(connection, statement, namedtuple_row, values).fetchall()
    return rows
