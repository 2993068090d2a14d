"""How long verify takes over a large fleet, and how much memory our process needs for it.

    .venv/bin/python -m benchmarks.verification --instances 1000000 --hours 4

A throw-away server is filled with the fleet of `./dev bench`, billed once per hour by the product, and verified.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from benchmarks.fleet import SERVER, START, Bench, _fill
from benchmarks.processor import postmaster_of, server_seconds
from containerstacks_billing.sandbox.server import EmbeddedServer
from containerstacks_billing.schema.migrator import migrate
from containerstacks_billing.verification.verify import SHARED_FROM_CHARGES, verify


def main() -> None:
    """Fill, bill, verify, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=1_000_000)
    parser.add_argument("--wallets", type=int, default=50_000)
    parser.add_argument("--hours", type=int, default=4)
    parser.add_argument(
        "--keep", type=Path, help="a directory for the server, kept, and used again when it is there"
    )
    parser.add_argument("--one-reader", action="store_true", help="compare over one connection")
    asked = parser.parse_args()
    directory = asked.keep or Path(tempfile.mkdtemp(prefix="containerstacks-verification-"))
    known = (directory / "filled").exists()
    server = EmbeddedServer(directory, settings=SERVER)
    maintenance = server.start()
    try:
        conninfo = make_conninfo(maintenance, dbname="fleet")
        if not known:
            with psycopg.connect(maintenance, autocommit=True) as conn:
                conn.execute("create database fleet")
            migrate(conninfo)
            bench = Bench(conninfo, asked.instances, asked.wallets, 2, 2500)
            with psycopg.connect(conninfo, autocommit=True) as conn:
                _fill(conn, bench)
                for hour in range(1, asked.hours + 1):
                    before = conn.execute("select pg_current_wal_lsn()").fetchone()
                    bench.bill(START + timedelta(hours=hour))
                    _print_wal(conn, before, asked.instances)
                    conn.execute("vacuum vps_instances")
                conn.execute("vacuum analyze")
            (directory / "filled").touch()
        _verify(conninfo, postmaster_of(directory), one_reader=asked.one_reader)
    finally:
        server.stop()
        if asked.keep is None:
            shutil.rmtree(directory)


def _print_wal(conn: psycopg.Connection[Any], before: tuple[Any, ...] | None, charges: int) -> None:
    """Print what the run wrote ahead, in bytes per charge, on standard error."""
    assert before is not None
    grown = conn.execute("select pg_wal_lsn_diff(pg_current_wal_lsn(), %s)", before).fetchone()
    assert grown is not None
    print(f"WAL of the run: {grown[0] / charges:,.0f} bytes a charge", file=sys.stderr, flush=True)


def _sizes(conninfo: str) -> dict[str, float]:
    """Return bytes per row with indexes, of the two tables that grow every hour."""
    with psycopg.connect(conninfo) as conn:
        return {
            name: round(size / max(rows, 1), 1)
            for name, size, rows in conn.execute(
                "select relname, pg_total_relation_size(oid), reltuples from pg_class"
                " where relname in ('vps_billing_cycles', 'payment_transactions') and relkind = 'r'"
            )
        }


def _verify(conninfo: str, postmaster: int, *, one_reader: bool) -> None:
    used = server_seconds(postmaster)
    begun = last = time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds: dict[str, float] = {}
    doing = "snapshot and counts"

    def progressed(what: str) -> None:
        nonlocal last, doing
        now = time.perf_counter()
        seconds[doing] = round(seconds.get(doing, 0) + now - last, 2)
        last, doing = now, what

    shared_from = sys.maxsize if one_reader else SHARED_FROM_CHARGES
    verification = verify(conninfo, progressed=progressed, shared_from=shared_from)
    progressed("")
    figures = {
        "ok": verification.ok,
        "examined": {check.name: check.examined for check in verification.checks},
        "bytesPerRow": _sizes(conninfo),
        "seconds": round(time.perf_counter() - begun, 1),
        "serverCpuSeconds": round(server_seconds(postmaster) - used, 1),
        # Between one beginning and the next, so of a check only where one reader does them all.
        "secondsByCheck": seconds if one_reader else {},
        "memoryMiB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "memoryGrownMiB": round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, 1),
        "discrepancies": [str(one) for one in verification.discrepancies[:10]],
    }
    json.dump(figures, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
