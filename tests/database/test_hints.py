"""Hints of database errors, each followed in the situation that prints it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from tests.daemons import wait_for_lock
from tests.fleet import Fleet

from containerstacks_billing.database.connection import bounded_transaction, connect, translate_errors
from containerstacks_billing.errors import BillingError, DatabaseUnavailable


def test_a_lock_that_is_held_is_found_by_the_statement_of_the_hint(
    database: str, conn: psycopg.Connection[Any]
) -> None:
    """While one waits, the statement names the session that holds the row, and no load is blamed."""
    organization = Fleet(conn).organization("10.00")
    with psycopg.connect(database, application_name="top-up") as holder:
        holder.execute("select from wallets where organization_id = %s for update", (organization,))
        pid = holder.info.backend_pid
        with connect(database, purpose="billing") as connection:
            with pytest.raises(BillingError) as refused, translate_errors(), connection.transaction():
                connection.execute("set local lock_timeout = '50ms'")
                connection.execute("select from wallets for update")
        with ThreadPoolExecutor(1) as pool, psycopg.connect(database) as waiting:
            done = pool.submit(waiting.execute, "select from wallets for update")
            wait_for_lock(conn)
            rows = conn.execute(str(refused.value.hint).splitlines()[-1].encode()).fetchall()
            holder.rollback()
            done.result()
    assert [(pid, "top-up", "idle in transaction")] == [(r[0], r[2], r[3]) for r in rows]


def test_a_database_that_was_set_read_only_is_mended_by_the_statement_of_the_hint(
    database: str, server: str
) -> None:
    """Not every read-only database is a standby."""
    name = str(conninfo_to_dict(database)["dbname"])
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(
            sql.SQL("alter database {} set default_transaction_read_only = on").format(sql.Identifier(name))
        )
        with connect(database, purpose="reading") as connection:
            with pytest.raises(DatabaseUnavailable) as refused, translate_errors(database):
                connection.execute("create table written ()")
        admin.execute(str(refused.value.hint).splitlines()[-1].encode())
    with connect(database, purpose="billing") as connection, bounded_transaction(connection):
        connection.execute("create table written ()")


def test_a_session_that_was_ended_blames_no_firewall(database: str, conn: psycopg.Connection[Any]) -> None:
    """An administrator, or a restart of the server, is what ends a session with these words."""
    with connect(database, purpose="reading") as connection:
        conn.execute("select pg_terminate_backend(%s)", (connection.info.backend_pid,))
        with pytest.raises(DatabaseUnavailable) as refused, translate_errors():
            connection.execute("select 1")
    assert "administrator" in str(refused.value.hint)
    assert "firewall" not in str(refused.value.hint)
