"""How long `why` and `statement` take at a hoster's size, and how much memory our process needs for all statements.

    .venv/bin/python -m benchmarks.explanations --instances 5600 --wallets 2000 --hours 720

A throw-away server is filled with the fleet of `./dev bench` and billed once per hour by the product; then single ids
are explained, and the statements of the month are written for every customer.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg.conninfo import make_conninfo

from benchmarks.fleet import SERVER, START, Bench, _fill
from benchmarks.processor import postmaster_of, server_seconds
from containerstacks_billing.explain import why
from containerstacks_billing.explain.month import month_of
from containerstacks_billing.explain.snapshot import snapshot
from containerstacks_billing.explain.statement import Reading, read_statement, read_statements
from containerstacks_billing.explain.statement_files import FORMATS, Letterhead, publisher, write_file
from containerstacks_billing.sandbox.server import EmbeddedServer
from containerstacks_billing.schema.migrator import migrate

SAMPLES = 40
_SAMPLED: dict[str, LiteralString] = {
    "entry": "select id from payment_transactions order by md5(id::text) limit %s",
    "charge": "select id from vps_billing_cycles order by md5(id::text) limit %s",
    "instance": "select id from vps_instances order by md5(id::text) limit %s",
    "organization": "select id from organizations order by md5(id::text) limit %s",
}


def main() -> None:
    """Fill, bill, explain, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=5600)
    parser.add_argument("--wallets", type=int, default=2000)
    parser.add_argument("--hours", type=int, default=720)
    parser.add_argument(
        "--keep", type=Path, help="a directory for the server, kept, and used again if it is there"
    )
    asked = parser.parse_args()
    directory = asked.keep or Path(tempfile.mkdtemp(prefix="containerstacks-explanations-"))
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
                    bench.bill(START + timedelta(hours=hour))
                conn.execute("vacuum analyze")
            (directory / "filled").touch()
        json.dump(_figures(conninfo, postmaster_of(directory)), sys.stdout, indent=2)
        print()
    finally:
        server.stop()
        if asked.keep is None:
            shutil.rmtree(directory)


def _figures(conninfo: str, postmaster: int) -> dict[str, Any]:
    chance = random.Random(1)
    with psycopg.connect(conninfo, autocommit=True) as conn:
        ids = {kind: [row[0] for row in conn.execute(query, [SAMPLES])] for kind, query in _SAMPLED.items()}
        [(charges, entries)] = conn.execute(
            "select (select count(*) from vps_billing_cycles), (select count(*) from payment_transactions)"
        ).fetchall()
    reading = Reading(month_of(START + timedelta(hours=2)), "USD")
    spans = timedelta(days=7)
    at = START + timedelta(hours=chance.randrange(1, 24))
    return {
        "charges": charges,
        "entries": entries,
        "whySeconds": {
            "entry": _timed(conninfo, ids["entry"], why.explain_entry),
            "charge": _timed(conninfo, ids["charge"], why.explain_charge),
            "instance": _timed(conninfo, ids["instance"], lambda c, i: why.explain_instance(c, i, at, spans)),
            "organization": _timed(
                conninfo, ids["organization"], lambda c, i: why.explain_organization(c, i, None)
            ),
        },
        "statementSeconds": _timed(conninfo, ids["organization"], lambda c, i: read_statement(c, reading, i)),
        "every": {form: _every(conninfo, reading, form, postmaster) for form in FORMATS},
    }


def _timed(conninfo: str, ids: list[Any], explain: Callable[[Any, Any], Any]) -> dict[str, float]:
    """Return median and maximum of explaining each id in a snapshot of its own, the connection included."""
    seconds = []
    for identifier in ids:
        begun = time.perf_counter()
        with snapshot(conninfo) as connection:
            assert explain(connection, identifier) is not None
        seconds.append(time.perf_counter() - begun)
    return {"median": round(statistics.median(seconds), 4), "max": round(max(seconds), 4)}


def _every(conninfo: str, reading: Reading, form: Any, postmaster: int) -> dict[str, Any]:
    used = server_seconds(postmaster) + time.process_time()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.perf_counter()
    written = 0
    with (
        tempfile.TemporaryDirectory() as folder,
        publisher({form}, Letterhead(), "USD", "UTC") as made,
        snapshot(conninfo) as connection,
    ):
        for one in read_statements(connection, reading):
            write_file(Path(folder) / f"{one.organization_id}.{form}", made.contents(one, form))
            assert not one.findings, one.findings
            written += 1
    return {
        "statements": written,
        "seconds": round(time.perf_counter() - begun, 1),
        "cpuSeconds": round(server_seconds(postmaster) + time.process_time() - used, 1),
        "memoryGrownMiB": round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, 1),
    }


if __name__ == "__main__":
    main()
