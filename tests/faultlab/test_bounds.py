"""No statement of a run is without bounds: each is in a transaction that says how long it may take."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from tests.fleet import Fleet

from containerstacks_billing.database import connection
from containerstacks_billing.database.connection import (
    ConfirmingConnection,
    bounded_transaction,
    connect,
    translate_errors,
)
from containerstacks_billing.errors import BillingError


def test_every_statement_of_a_run_is_bounded(
    conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each statement the server is asked which bounds hold there: none is left to run, or to wait, for ever.

    They are those of the transaction, so a pooler in transaction mode keeps them together.
    """
    fleet = Fleet(conn)
    small, poor, rich = fleet.plan("7.30"), fleet.organization("0.01"), fleet.organization("100.00")
    for organization in (poor, rich, rich, rich):
        fleet.instance(organization, small)
    fleet.instance(rich, "no such plan")
    fleet.hours(3)
    execute = psycopg.Cursor.execute
    unbounded: list[str] = []
    asked = 0

    def asking(cursor: psycopg.Cursor[Any], query: Any, *arguments: Any, **named: Any) -> Any:
        nonlocal asked
        result = execute(cursor, query, *arguments, **named)
        if isinstance(cursor.connection, ConfirmingConnection):
            bounds = execute(
                psycopg.Cursor(cursor.connection),
                "select setting from pg_settings where name in"
                " ('lock_timeout', 'statement_timeout', 'idle_in_transaction_session_timeout')",
            ).fetchall()
            asked += 1
            if ("0",) in bounds:
                unbounded.append(str(query))
        return result

    monkeypatch.setattr(psycopg.Cursor, "execute", asking)
    fleet.bill(batch_size=2)
    fleet.bill()
    assert [] == unbounded
    assert asked > 50


def test_a_statement_that_takes_too_long_is_ended(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound is kept by the server, and the transaction is over with it."""
    with connect(database, purpose="billing") as ours:
        with (
            pytest.raises(BillingError, match="gave up waiting"),
            translate_errors(),
            bounded_transaction(ours, "50ms"),
        ):
            ours.execute("select pg_sleep(10)")
        monkeypatch.setattr(connection, "LOCK_TIMEOUT", "50ms")
        with psycopg.connect(database) as blocker:
            blocker.execute("lock table billing_runs")
            with (
                pytest.raises(BillingError, match="gave up waiting"),
                translate_errors(),
                bounded_transaction(ours),
            ):
                ours.execute("select from billing_runs")
        assert ours.execute("show statement_timeout").fetchone() == ("0",)
