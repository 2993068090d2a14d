"""The connections of a run: kept between its steps, replaced when they broke."""

from __future__ import annotations

from contextlib import suppress

import psycopg
import pytest

from containerstacks_billing.database.run_pool import RunPool


def test_the_next_step_gets_the_connection_of_the_last(database: str) -> None:
    """One that is in use is not lent a second time."""
    with RunPool(database) as connections:
        with connections.connection() as first, connections.connection() as second:
            assert first is not second
        with connections.connection() as again:
            assert again is first


def test_a_connection_that_broke_while_nobody_used_it_is_replaced(
    database: str, conn: psycopg.Connection[tuple[object, ...]]
) -> None:
    """As after a restart of the server in the middle of a long run."""
    with RunPool(database) as connections:
        with connections.connection() as first:
            process = first.info.backend_pid
        conn.execute("select pg_terminate_backend(%s, 5000)", [process])
        with connections.connection() as second:
            assert second.execute("select 1").fetchone() == (1,)
        assert first.closed


def test_a_connection_in_the_middle_of_a_transaction_is_not_kept(database: str) -> None:
    """The next step would find itself in it."""
    with RunPool(database) as connections:
        with connections.connection() as first:
            first.execute("begin")
        with connections.connection() as second:
            assert second is not first
        assert first.closed


@pytest.mark.parametrize("fails", [False, True])
def test_no_connection_outlives_the_run(database: str, fails: bool) -> None:
    """However it ends."""
    with suppress(KeyError), RunPool(database) as connections, connections.connection() as connection:
        if fails:
            raise KeyError
    assert connection.closed
