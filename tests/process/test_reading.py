"""What pages, metrics and `status` cost the database: no scan of what grows, and one wait for each reading."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from benchmarks import status_page, years
from tests.daemons import eventually
from tests.process.web import ADMIN_TOKEN, bearer, client_of

from containerstacks_billing.billing.errors import BillingError
from containerstacks_billing.postgres.connection import asking, connect
from containerstacks_billing.postgres.pool import ReadingPool
from containerstacks_billing.postgres.status import read_status

PATHS = (
    "/readyz",
    "/metrics",
    "/status",
    "/api/health",
    "/api/health/billing-daemon",
    "/api/billing/runs",
    "/api/billing/summary",
)
# A row for each daemon, plan, price, migration or reason; everything else grows with the fleet or with time.
SMALL = {
    "billing_daemon_status",
    "billing_leases",
    "billing_set_aside_counts",
    "plan_price_versions",
    "schema_migrations",
    "vps_plans",
}
# The rows that all answers together may read of what grows: lists are bounded, and a month has 720 runs.
MOST_ROWS = {
    "vps_instances": 50,
    "vps_billing_cycles": 50,
    "payment_transactions": 5,
    "wallets": 50,
    "organizations": 50,
    "billing_quarantine": 20,
    "billing_runs": 900,
}


def test_nothing_that_grows_is_scanned(database: str, conn: psycopg.Connection[Any]) -> None:
    """Every page, every answer and `status`, as the server counts it: rows by index alone, and few of them."""
    years.fill(database, instances=4000, charges=40_000, runs=5000)
    years.let_the_daemon_live(database)
    # Small tables are scanned because they are small. Without that, a scan means that no index serves.
    conn.execute(
        "do $$ begin execute format('alter database %I set enable_seqscan = off', current_database()); end $$"
    )
    before = read_so_far(conn)
    with client_of(database) as client:
        for path in PATHS:
            assert 200 == client.get(path, headers=bearer(ADMIN_TOKEN)).status_code
        client.post("/status/sign-in", data={"token": ADMIN_TOKEN})
        assert "Sign out" in client.get("/status").text
    with connect(database, purpose="reading") as connection:
        read_status(connection)
    eventually(lambda: nobody_else(conn))
    after = read_so_far(conn)

    assert set() == {name for name in after if after[name][0] > before[name][0]} - SMALL
    read = {name: after[name][1] - before[name][1] for name in MOST_ROWS}
    assert {} == {name: rows for name, rows in read.items() if rows > MOST_ROWS[name]}
    assert read["vps_billing_cycles"] > 0


def read_so_far(conn: psycopg.Connection[Any]) -> dict[str, tuple[int, int]]:
    """Scans of each table so far, and the rows of it that were found by index."""
    rows = conn.execute(
        "select relname, seq_scan, coalesce((select sum(idx_tup_read) from pg_stat_user_indexes one"
        " where one.relid = stat.relid), 0)::bigint from pg_stat_user_tables stat"
    ).fetchall()
    return {name: (scans, found) for name, scans, found in rows}


def nobody_else(conn: psycopg.Connection[Any]) -> bool:
    """Whether all other connections are gone: a server process hands in what it counted when it ends."""
    others = "select from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
    return not conn.execute(f"{others} and backend_type = 'client backend'").fetchall()


def test_a_reading_waits_for_the_database_once(database: str) -> None:
    """A page reads twice, metrics and health once, each after a look whether the connection still lives; `status` once."""
    assert {"/status": 4, "/metrics": 2, "status": 1} == status_page.waits(database)


def test_what_travels_together_is_one_bounded_transaction_that_may_not_write(database: str) -> None:
    """Its bounds hold for the last statement as for the first, and end with it."""
    bounds = "select current_setting('statement_timeout'), current_setting('transaction_read_only'), now()"
    with connect(database, purpose="billing") as connection:
        with asking(connection, "3s"):
            first, last = connection.execute(bounds), connection.execute(bounds)
        assert ("3s", "on") == (found := first.fetchall()[0])[:2]
        assert found == last.fetchall()[0]
        assert ("0", "off") == connection.execute(bounds).fetchall()[0][:2]
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction), asking(connection):
            connection.execute("delete from billing_runs")


@pytest.mark.parametrize("fetched", [True, False])
def test_an_error_ends_what_travels_together(
    database: str, fetched: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The first error is told, once, wherever it is noticed; the next reading is as good as any."""
    pool = ReadingPool(database, connections=1)
    pool.open()
    with pytest.raises(BillingError, match="nowhere"), pool.reading() as connection:
        connection.execute("select 1")
        broken = connection.execute("select * from nowhere")
        connection.execute("select 2")
        if fetched:
            broken.fetchall()
    with pool.reading() as connection:
        assert [(3,)] == connection.execute("select 3").fetchall()
    pool.close()
    assert [] == caplog.messages
