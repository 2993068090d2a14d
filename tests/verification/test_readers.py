"""Two readers of one snapshot: the result of one, whichever connection read what, and the way back to one alone."""

from __future__ import annotations

from dataclasses import replace

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from tests.books import Books

from containerstacks_billing.database.connection import Connection, connect
from containerstacks_billing.verification.readers import read_all, second_reader


def test_two_readers_find_what_one_finds(books: Books) -> None:
    """Discrepancies of several checks come in the same order with the same fingerprints, bounded alike."""
    books.fleet.conn.execute("update wallets set balance = balance + 1")
    books.damage("update vps_billing_cycles set total_amount = total_amount + 1")
    one, two = books.verify(shown=2, shared_from=1_000_000), books.verify(shown=2, shared_from=0)
    assert {"amounts", "balances", "carries", "entries", "runs"} <= {
        check.name for check in one.checks if not check.ok
    }
    assert replace(one, read_at=two.read_at) == two
    assert [found.fingerprint for found in one.discrepancies] == [
        found.fingerprint for found in two.discrepancies
    ]


@pytest.mark.parametrize(
    ("database", "shares"), [(None, True), ("postgres", False)], ids=["same database", "another database"]
)
def test_a_snapshot_is_shared_where_it_can_be_imported(
    books: Books, database: str | None, shares: bool
) -> None:
    """The second reader sees no row that was committed since; where the snapshot is unknown there is no second reader."""
    conninfo = make_conninfo(books.fleet.conninfo, **({"dbname": database} if database else {}))
    with connect(books.fleet.conninfo, purpose="reading") as first:
        first.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        with first.transaction(), second_reader(first, conninfo) as second:
            books.fleet.conn.execute("update wallets set balance = -1")
            seen = second and second.execute("select count(*) from wallets where balance = -1").fetchone()
            assert ((0,) if shares else None) == seen


def test_the_error_of_one_reader_ends_the_statement_of_the_other(books: Books) -> None:
    """The second fails while a statement of the first runs for ten minutes: its error is raised, at once."""

    def waits(connection: Connection) -> None:
        connection.execute("select pg_sleep(600)")

    def fails(connection: Connection) -> None:
        asleep = "select count(*) = 1 from pg_stat_activity where wait_event = 'PgSleep' and datname = current_database()"
        while connection.execute(asleep).fetchone() != (True,):
            pass
        connection.execute("select 1 / 0")

    conninfo = books.fleet.conninfo
    with connect(conninfo, purpose="reading") as first, connect(conninfo, purpose="reading") as second:
        with pytest.raises(psycopg.errors.DivisionByZero):
            read_all({"waits": waits, "fails": fails}, first, second)
        assert (1,) == first.execute("select 1").fetchone()
