"""A database as years of billing leave it: a large fleet, its charges, its runs, and what waits for a decision.

Ten million charges are written in a minute and a half, because the indexes of the large tables are dropped first and
built once at the end, as a restore does it; what stands in the tables afterwards is what an insert an hour would leave.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, cast

import psycopg
from psycopg import sql

from benchmarks.fleet import HERE

LARGE_TABLES = ("vps_billing_cycles", "payment_transactions", "vps_instances", "billing_runs")
SERVER = {
    "shared_buffers": "512MB",
    "max_wal_size": "16GB",
    "maintenance_work_mem": "1GB",
    "fsync": "off",
    "autovacuum": "off",
}


def fill(conninfo: str, instances: int, charges: int, runs: int) -> float:
    """Write the tables of a migrated, empty database; return how many seconds that took."""
    begun = time.perf_counter()
    now = datetime.now(UTC)
    wallets = max(1, instances // 20)
    hours = max(1, charges // instances)
    values = {
        "instances": instances, "wallets": wallets, "start": now, "now": now, "runs": runs, "hours": hours
    }  # fmt: skip
    with psycopg.connect(conninfo, autocommit=True) as conn:
        with _without_indexes(conn):
            for file in ("fleet.sql", "years.sql"):
                for statement in filter(str.strip, (HERE / file).read_text(encoding="utf-8").split(";\n")):
                    conn.execute(cast("Any", statement), values)
        conn.execute("vacuum analyze")
    return time.perf_counter() - begun


def let_the_daemon_live(conninfo: str) -> None:
    """Write the heartbeat anew, so that a database that was kept looks as on the day on which it was written."""
    with psycopg.connect(conninfo, autocommit=True) as conn:
        conn.execute(
            "update billing_daemon_status set heartbeat_at = billing_clock(), last_run_at = billing_clock()"
        )


@contextmanager
def _without_indexes(conn: psycopg.Connection[Any]) -> Iterator[None]:
    """Drop the indexes and keys of the large tables, and build them again at the end."""
    keys = conn.execute(
        "select conrelid::regclass::text, conname, pg_get_constraintdef(oid) from pg_constraint"
        " where conrelid = any (%s::regclass[]) and contype in ('p', 'u') order by contype",
        (list(LARGE_TABLES),),
    ).fetchall()
    indexes = conn.execute(
        "select indexrelid::regclass::text, pg_get_indexdef(indexrelid) from pg_index"
        " where indrelid = any (%s::regclass[])"
        " and not exists (select from pg_constraint where conindid = indexrelid)",
        (list(LARGE_TABLES),),
    ).fetchall()
    references = conn.execute(
        "select conrelid::regclass::text, conname, pg_get_constraintdef(oid) from pg_constraint"
        " where contype = 'f' and confrelid = any (%s::regclass[])",
        (list(LARGE_TABLES),),
    ).fetchall()
    for table, name, _ in references + keys:
        _alter(conn, table, sql.SQL("drop constraint {}").format(sql.Identifier(name)))
    for name, _ in indexes:
        conn.execute(sql.SQL("drop index {}").format(sql.Identifier(name)))
    yield
    for _, definition in indexes:
        conn.execute(cast("Any", definition))
    for table, name, definition in keys + references:
        _alter(
            conn,
            table,
            sql.SQL("add constraint {} {}").format(sql.Identifier(name), sql.SQL(cast("Any", definition))),
        )


def _alter(conn: psycopg.Connection[Any], table: str, change: sql.Composable) -> None:
    conn.execute(sql.SQL("alter table {} ").format(sql.Identifier(table)) + change)
