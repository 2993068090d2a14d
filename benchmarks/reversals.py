"""How long a reversal of a run takes at a hoster's size: preview, posting, undo; the longest batch; and our memory.

    .venv/bin/python -m benchmarks.reversals --instances 100000 --wallets 20000

A throw-away server is filled with the fleet of `./dev bench` and billed by the product; then the last run is previewed,
reversed and the reversal undone. A top-up waits for one batch at most, so the longest batch is its longest wait.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from benchmarks.fleet import SERVER, START, Bench, _fill
from containerstacks_billing.adjustments.model import Mode, Order, OrderKind, Outcome, Scope
from containerstacks_billing.adjustments.orders import post_order, preview
from containerstacks_billing.adjustments.posting import Posted
from containerstacks_billing.database.connection import connect
from containerstacks_billing.sandbox.server import EmbeddedServer
from containerstacks_billing.schema.migrator import migrate
from containerstacks_billing.verification.verify import verify


def main() -> None:
    """Fill, bill, reverse, undo, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=100_000)
    parser.add_argument("--wallets", type=int, default=20_000)
    parser.add_argument("--hours", type=int, default=5)
    asked = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="containerstacks-reversals-"))
    server = EmbeddedServer(directory, settings=SERVER)
    maintenance = server.start()
    try:
        conninfo = make_conninfo(maintenance, dbname="fleet")
        with psycopg.connect(maintenance, autocommit=True) as conn:
            conn.execute("create database fleet")
        migrate(conninfo)
        bench = Bench(conninfo, asked.instances, asked.wallets, 2, 2500)
        with psycopg.connect(conninfo, autocommit=True) as conn:
            _fill(conn, bench)
            for hour in range(1, asked.hours + 1):
                bench.bill(START + timedelta(hours=hour))
            conn.execute("vacuum analyze")
            [(run,)] = conn.execute("select max(id) from billing_runs").fetchall()
        json.dump(_figures(conninfo, run), sys.stdout, indent=2)
        print()
    finally:
        server.stop()
        shutil.rmtree(directory)


def _figures(conninfo: str, run: int) -> dict[str, Any]:
    order = Order(OrderKind.REVERSAL, Mode.WAIVE, Scope(run=run), "bench", "bench")
    figures: dict[str, Any] = {}
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with connect(conninfo, purpose="reading") as connection:
        begun = time.perf_counter()
        shown = preview(connection, order)
        figures["previewSeconds"] = round(time.perf_counter() - begun, 2)
    answers = shown.effects.answers
    figures |= {
        "charges": answers.charges,
        "amount": str(answers.now),
        "organizations": answers.organizations,
    }
    outcome = _timed(conninfo, order, figures, "reverse")
    undo = Order(order.kind, Mode.UNDO, Scope(), "bench", "bench", undoes=outcome.order.order_id)
    _timed(conninfo, undo, figures, "undo")
    figures["memoryGrownMiB"] = round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024, 1)
    figures["discrepancies"] = verify(conninfo).found
    return figures


def _timed(conninfo: str, order: Order, figures: dict[str, Any], name: str) -> Outcome:
    batches: list[float] = []
    begun = last = time.perf_counter()

    def posted(_: Posted) -> None:
        nonlocal last
        now = time.perf_counter()
        batches.append(now - last)
        last = now

    report: Callable[[Posted], None] = posted
    outcome = post_order(conninfo, order, holder="bench", posted=report)
    figures[f"{name}Seconds"] = round(time.perf_counter() - begun, 2)
    figures[f"{name}LongestBatchMilliseconds"] = round(max(batches[1:]) * 1000)
    figures[f"{name}Adjustments"] = outcome.adjustments
    return outcome


if __name__ == "__main__":
    main()
