"""How long questions about a whole fleet take: leaks, what-if, a dry run compared with a run, the audit of the host.

    .venv/bin/python -m benchmarks.fleet_questions --instances 100000 --wallets 2000

A throw-away server is filled with the fleet of `./dev bench`, billed for some hours by the product, and given a
provider's list, stopped instances, and a past of the host's own: for every charge a row and a debit, every tenth twice.
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
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from benchmarks.fleet import SERVER, START, Bench, _fill
from benchmarks.processor import postmaster_of, server_seconds
from containerstacks_billing.charging.dry_run import Supposition, dry_run
from containerstacks_billing.charging.dry_run_diff import ChargedInstances, charged_by_run, difference
from containerstacks_billing.charging.forecast import Limits
from containerstacks_billing.charging.model import Terms
from containerstacks_billing.charging.run import RunOrder
from containerstacks_billing.database.connection import connect
from containerstacks_billing.explain.audit import AuditOrder, audit_rows
from containerstacks_billing.explain.inventory import read_inventory
from containerstacks_billing.explain.leaks import find_leaks
from containerstacks_billing.explain.snapshot import snapshot
from containerstacks_billing.pricing.model import Price
from containerstacks_billing.pricing.versions import find_plans
from containerstacks_billing.pricing.what_if import Supposed, suppose, what_if_priced, what_if_run
from containerstacks_billing.sandbox.server import EmbeddedServer
from containerstacks_billing.schema.migrator import migrate

_HOURS = 3
# The fleet lives in March; what has no instant of its own reads the clock of the database.
_CLOCK = (
    "create or replace function billing_clock() returns timestamptz language sql volatile security definer"
    " set search_path = public as $$ select '{at}'::timestamptz $$"
)
_PAST = """
insert into payment_transactions (organization_id, amount, currency, payment_method, payment_provider, status,
    description, created_at)
select instance.organization_id, -round(total_amount, 2) - 0.01, 'USD', 'wallet_debit', 'internal', 'completed',
    'VPS Hourly Billing - ' || label || ' (1h)', billing_period_end - interval '30 days'
from vps_billing_cycles
join vps_instances instance on instance.id = vps_instance_id
join generate_series(1, 2) twin on twin = 1 or instance.label like '%0'
where run_id is not null;
insert into vps_billing_cycles (vps_instance_id, organization_id, billing_period_start, billing_period_end, hourly_rate,
    total_amount, status, created_at)
select vps_instance_id, instance.organization_id, billing_period_start - interval '30 days',
    billing_period_end - interval '30 days',
    hourly_rate, total_amount, 'billed', billing_period_end - interval '30 days'
from vps_billing_cycles charge
join vps_instances instance on instance.id = vps_instance_id
join generate_series(1, 2) twin on twin = 1 or instance.label like '%0'
where run_id is not null;
update wallets set created_at = created_at - interval '60 days';
update vps_instances set status = 'stopped' where label like '%33'
"""


def main() -> None:
    """Fill, bill, question, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=100_000)
    parser.add_argument("--wallets", type=int, default=2000)
    parser.add_argument(
        "--keep", type=Path, help="a directory for the server, kept, and used again if it is there"
    )
    asked = parser.parse_args()
    directory = asked.keep or Path(tempfile.mkdtemp(prefix="containerstacks-questions-"))
    known = (directory / "filled").exists()
    server = EmbeddedServer(directory, settings=SERVER)
    maintenance = server.start()
    try:
        conninfo = make_conninfo(maintenance, dbname="fleet")
        now = START + timedelta(hours=_HOURS + 1)
        if not known:
            _fill_and_bill(
                maintenance, conninfo, Bench(conninfo, asked.instances, asked.wallets, 2, 2500), now
            )
            (directory / "filled").touch()
        json.dump(_figures(conninfo, now, directory), sys.stdout, indent=2)
        print()
    finally:
        server.stop()
        if asked.keep is None:
            shutil.rmtree(directory)


def _fill_and_bill(maintenance: str, conninfo: str, bench: Bench, now: datetime) -> None:
    with psycopg.connect(maintenance, autocommit=True) as conn:
        conn.execute("create database fleet")
    migrate(conninfo)
    with psycopg.connect(conninfo, autocommit=True) as conn:
        _fill(conn, bench)
        for hour in range(1, _HOURS + 1):
            bench.bill(START + timedelta(hours=hour))
        conn.execute(_CLOCK.format(at=now).encode())
        for statement in _PAST.split(";\n"):
            conn.execute(statement.encode())
        conn.execute("vacuum analyze")


def _cpu(postmaster: int) -> float:
    """Return what the server and this process have used of the processor so far."""
    return server_seconds(postmaster) + time.process_time()


def _figures(conninfo: str, now: datetime, directory: Path) -> dict[str, Any]:
    postmaster = postmaster_of(directory)
    terms = Terms()
    with connect(conninfo, purpose="billing") as connection:
        rows = connection.execute("select provider_instance_id, label from vps_instances").fetchall()
        plan = find_plans(connection, "Plan 7")[0]
    inventory = directory / "nodes.csv"
    inventory.write_text("id,label\n" + "".join(f"{one},{label}\n" for one, label in rows[:-100]))
    change = Supposed(plan, Price(Decimal(100), Decimal(1)))

    def leaks() -> int:
        with snapshot(conninfo) as connection:
            return len(find_leaks(connection, terms).leaks)

    def leaks_beside_a_list() -> int:
        with snapshot(conninfo) as connection:
            return len(find_leaks(connection, terms, read_inventory(inventory)).leaks)

    def announced() -> int:
        with connect(conninfo, purpose="billing") as connection:
            return len(what_if_priced(connection, terms, change, now + timedelta(days=30)).changed)

    def diff() -> int:
        order = RunOrder(conninfo, terms, "manual", "benchmark", as_of=now, host_clock=lambda: now)
        with connect(conninfo, purpose="billing") as connection:
            last = connection.execute("select max(id), max(as_of) from billing_runs").fetchone()
            assert last is not None
            before, charged = charged_by_run(connection, last[0]), ChargedInstances()
            found = dry_run(
                order, Limits(), Supposition(lambda conn: suppose(conn, [change], terms, now), charged)
            )
            assert found.instances_billed, found.error_message
            what_if_run(connection, terms, [change])
            return difference(connection, (last[0], last[1]), before, charged.ids, terms).not_charged_now

    def audit() -> int:
        with snapshot(conninfo) as connection:
            return len(audit_rows(connection, AuditOrder()))

    with psycopg.connect(conninfo) as conn:
        counts = conn.execute(
            "select (select count(*) from vps_instances), (select count(*) from vps_billing_cycles),"
            " (select count(*) from payment_transactions)"
        ).fetchone()
    questions: dict[str, Callable[[], int]] = {
        "leaks": leaks,
        "leaksBesideAList": leaks_beside_a_list,
        "announcedPrice": announced,
        "dryRunDiff": diff,
        "audit": audit,
    }
    figures: dict[str, Any] = dict(zip(("instances", "charges", "entries"), counts or (), strict=True))
    for name, question in questions.items():
        begun, used = time.perf_counter(), _cpu(postmaster)
        found = question()
        figures[name] = {
            "seconds": round(time.perf_counter() - begun, 2),
            "cpuSeconds": round(_cpu(postmaster) - used, 2),
            "found": found,
        }
    figures["peakMemoryMiB"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
    return figures


if __name__ == "__main__":
    main()
