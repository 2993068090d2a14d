"""What pages, metrics and `status` cost the database: no scan of what grows, and one wait for each reading."""

from __future__ import annotations

import http.client
import re
from pathlib import Path
from typing import Any

import psycopg
import pytest
from benchmarks import status_page, years
from tests.daemons import eventually
from tests.web.client import ADMIN_TOKEN, bearer, client_of, serving

from containerstacks_billing import logs
from containerstacks_billing.database.connection import connect, read_pipeline
from containerstacks_billing.database.pool import PoolExhausted, ReadingPool
from containerstacks_billing.errors import BillingError
from containerstacks_billing.status.read import read_status
from containerstacks_billing.status.totals import add_up_runs

PATHS = (
    "/readyz",
    "/metrics",
    "/status",
    "/api/health",
    "/api/health/billing-daemon",
    "/api/billing/runs",
    "/api/billing/summary",
)
# A row for each daemon, plan, price, migration, reason or outcome; everything else grows with the fleet or with time.
SMALL = {
    "billing_application_sides",
    "billing_daemon_status",
    "billing_leases",
    "billing_policies",
    "billing_quarantine_counts",
    "billing_run_totals",
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


# The same for one page of the console, whatever it is: there are 200 wallets; charts of twelve months read a year of runs.
MOST_ROWS_OF_A_PAGE = {
    "vps_instances": 130,
    "vps_billing_cycles": 1100,
    "payment_transactions": 210,
    "wallets": 210,
    "organizations": 300,
    "billing_quarantine": 250,
    "billing_runs": 5300,
}


@pytest.fixture
def years_of_billing(database: str, conn: psycopg.Connection[Any]) -> str:
    """A database as years leave it, where small tables are read by index as well: a scan means that no index serves."""
    years.fill(database, instances=4000, charges=40_000, runs=5000)
    years.let_the_daemon_live(database)
    add_up_runs(conn)
    conn.execute(
        "do $$ begin execute format('alter database %I set enable_seqscan = off', current_database()); end $$"
    )
    return database


def test_nothing_that_grows_is_scanned(years_of_billing: str, conn: psycopg.Connection[Any]) -> None:
    """Every page, every answer and `status`, as the server counts it: rows by index alone, and few of them."""
    database = years_of_billing
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


def test_no_page_of_the_console_scans(years_of_billing: str, conn: psycopg.Connection[Any]) -> None:
    """Lists, one of each thing, and a year of charts."""
    found_one = conn.execute("select id, vps_instance_id, organization_id from vps_billing_cycles limit 1")
    [(charge, instance, organization)] = found_one.fetchall()
    conn.execute("select pg_stat_force_next_flush()")
    pages = [
        "charts?span=12m", "runs", "runs?outcome=held", "runs?trigger=manual", "runs/77", "organizations", "organizations?q=org",
        "organizations?sort=runway", "organizations?sort=past-due", f"organizations/{organization}",
        f"instances/{instance}?days=30", f"charges/{charge}", "decisions",
        "decisions?reason=held", "prices", "deliveries", "deliveries?state=dead", "verification",
    ]  # fmt: skip
    found = {}
    with client_of(years_of_billing) as client:
        client.post("/status/sign-in", data={"token": ADMIN_TOKEN})
        for page in pages:
            before = read_so_far(conn)
            assert 200 == client.get(f"/status/{page}").status_code, page
            conn.execute("select pg_stat_force_next_flush()")
            conn.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and application_name like '%web%'"
            )
            eventually(lambda: nobody_else(conn))
            after = read_so_far(conn)
            scans = {name for name in after if after[name][0] > before[name][0]} - SMALL
            rows = {name: after[name][1] - before[name][1] for name in MOST_ROWS_OF_A_PAGE}
            found[page] = scans | {
                f"{rows[name]} rows of {name}" for name in rows if rows[name] > MOST_ROWS_OF_A_PAGE[name]
            }
    assert {} == {page: those for page, those in found.items() if those}


def read_so_far(conn: psycopg.Connection[Any]) -> dict[str, tuple[int, int]]:
    """Scans of each table so far, and the rows of it that were found by index; what this session counted is handed in first."""
    conn.execute("select pg_stat_force_next_flush()")
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
    """A page reads twice, metrics and health once, each after a check of the connection; `status` once."""
    assert {"/status": 4, "/metrics": 2, "status": 1} == status_page.waits(database)


def test_what_travels_together_is_one_bounded_transaction_that_may_not_write(database: str) -> None:
    """Its bounds hold for the last statement as for the first, and end with it."""
    bounds = "select current_setting('statement_timeout'), current_setting('transaction_read_only'), now()"
    with connect(database, purpose="billing") as connection:
        with read_pipeline(connection, "3s"):
            first, last = connection.execute(bounds), connection.execute(bounds)
        assert ("3s", "on") == (found := first.fetchall()[0])[:2]
        assert found == last.fetchall()[0]
        assert ("0", "off") == connection.execute(bounds).fetchall()[0][:2]
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction), read_pipeline(connection):
            connection.execute("delete from billing_runs")


@pytest.mark.parametrize("fetched", [True, False])
def test_an_error_ends_what_travels_together(
    database: str, fetched: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The first error is reported once, in either reader; the next reading is served normally."""
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


def test_an_outage_is_said_once_and_truly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Eight requests while the database is away: one error, in our words; no connection is said to be in use."""
    monkeypatch.setattr("containerstacks_billing.database.pool.WAIT_SECONDS", 0.2)
    logs.configure("info", form="logfmt")
    with serving(f"host={tmp_path} dbname=x") as (host, port):
        codes = []
        for path in ("/api/health", "/readyz", "/status", "/api/billing/runs") * 2:
            connection = http.client.HTTPConnection(host, port, timeout=180)
            connection.request("GET", path, headers=bearer(ADMIN_TOKEN))
            codes.append(connection.getresponse().status)
            connection.close()
    assert [503] * 8 == codes
    lines = [line for line in capfd.readouterr().err.splitlines() if "level=info" not in line]
    assert 1 == len(lines), lines
    assert "level=error" in lines[0]
    assert "The database cannot be read" in lines[0]
    assert not re.search(r"in use|psycopg|\\n", lines[0])


def test_a_pool_is_in_use_when_every_connection_is_lent(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only then is it said; the database is well, and the next who asks after one came back is served."""
    monkeypatch.setattr("containerstacks_billing.database.pool.WAIT_SECONDS", 0.2)
    pool = ReadingPool(database, connections=1)
    pool.open()
    with pool.reading(), pytest.raises(PoolExhausted, match="in use"), pool.reading():
        pass
    with pool.reading() as connection:
        assert [(1,)] == connection.execute("select 1").fetchall()
    pool.close()
