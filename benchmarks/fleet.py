"""How fast the engine charges, measured beside a COPY of the same rows, on a throw-away server that loses nothing.

    ./dev bench                         fleets of 10,000, 100,000 and 1,000,000 due instances
    ./dev bench --instances 1000000 --older 20000000
    ./dev bench --scenario changed      5 % of the fleet changed plan or status within the hour
    ./dev bench --scenario catch-up     72 hours of 100,000 instances across a price change

Every fleet is billed for several hours, one run each, after a first run that counts for nothing: a database that
has never been billed is not what anybody has. Median of the runs. fsync, synchronous_commit and full_page_writes are
on, the tables are logged, and an oracle goes over the result.

The figures of CPU are seconds of one core per million instances: the server's with all its processes (top-ups
and checkpoints included), ours with the start of Python. They still mean something on a machine that does other
work too; the seconds of the clock do not.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import psycopg
from psycopg.conninfo import make_conninfo

from benchmarks.processor import postmaster_of, server_seconds
from containerstacks_billing.sandbox.server import EmbeddedServer
from containerstacks_billing.schema.migrator import migrate

START = datetime(2026, 3, 1, tzinfo=UTC)
HERE = Path(__file__).parent
# What an operator of a fleet of this size would set; durability stays as PostgreSQL delivers it.
SERVER = {
    "shared_buffers": "2GB",
    "max_wal_size": "16GB",
    "min_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
}
COLUMNS = {
    "instances": "instances",
    "instancesPerSecond": "instances/s",
    "copyRatio": "x COPY",
    "seconds": "run s",
    "copySeconds": "COPY s",
    "peakMemoryMiB": "MiB",
    "longestBatchMs": "batch ms",
    "topUpP50Ms": "p50 ms",
    "topUpP99Ms": "p99 ms",
    "topUpMaxMs": "max ms",
    "emptyRunSeconds": "empty s",
    "serverCpuPerMillion": "server CPU",
    "ourCpuPerMillion": "our CPU",
    "copyCpuRatio": "CPU x COPY",
}


@dataclass(frozen=True)
class Bench:
    """One fleet on one database, and how to bill it."""

    conninfo: str
    instances: int
    wallets: int
    workers: int
    batch_size: int
    postmaster: int | None = None

    def server_seconds(self) -> float:
        """Return what the server has used of the processor so far; nothing where it is not known."""
        return server_seconds(self.postmaster) if self.postmaster else 0.0

    def bill(self, as_of: datetime) -> dict[str, Any]:
        """Bill in a process of its own."""
        arguments = [self.conninfo, as_of.isoformat(), str(self.workers), str(self.batch_size)]
        before = self.server_seconds()
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.biller", *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            sys.exit(f"the run failed:\n{done.stderr}")
        result = json.loads(done.stdout)
        if result["outcome"] != "completed":
            sys.exit(f"the run ended as {result['outcome']}: {result['error']}")
        result["serverCpu"] = self.server_seconds() - before
        return cast("dict[str, Any]", result)

    def bill_beside_top_ups(self, as_of: datetime) -> tuple[dict[str, Any], list[float]]:
        """Bill while wallets are topped up; return the run and the latencies of the top-ups in milliseconds."""
        command = [sys.executable, "-m", "benchmarks.top_ups", self.conninfo, "7"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as crowd:
            assert crowd.stdout is not None
            crowd.stdout.readline()
            result = self.bill(as_of)
            latencies = json.loads(crowd.communicate()[0])
        return result, latencies


def measure(bench: Bench, runs: int, older: int) -> dict[str, Any]:
    """Fill, bill some hours, compare with COPY, look for differences."""
    with psycopg.connect(bench.conninfo, autocommit=True) as conn:
        _fill(conn, bench)
        bench.bill(START + timedelta(hours=1))
        if older:
            _grow_old(conn, older)
        (first_run,) = conn.execute("select max(id) + 1 from billing_runs").fetchone() or (1,)
        results, copies, latencies = [], [], []
        for hour in range(2, runs + 2):
            conn.execute("vacuum vps_instances")
            conn.execute("checkpoint")
            result, topped_up = bench.bill_beside_top_ups(START + timedelta(hours=hour))
            results.append(result)
            latencies += topped_up
            copies.append(_copy(conn, bench))
        empty = bench.bill(START + timedelta(hours=runs + 1))
        differences = _oracle(conn, runs, first_run)
    if differences:
        sys.exit("the oracle disagrees:\n" + "\n".join(differences))
    return _figures(bench, results, copies, latencies, empty["seconds"])


def _figures(
    bench: Bench,
    results: list[dict[str, Any]],
    copies: list[tuple[float, float]],
    latencies: list[float],
    empty: float,
) -> dict[str, Any]:
    seconds = statistics.median(result["seconds"] for result in results)
    ranked = sorted(latencies) or [0.0]
    return {
        "instances": results[0]["instances"],
        "instancesPerSecond": round(results[0]["instances"] / seconds),
        "copyRatio": round(
            statistics.median(run["seconds"] / copy for run, (copy, _) in zip(results, copies, strict=True)),
            2,
        ),
        "seconds": round(seconds, 3),
        "copySeconds": round(statistics.median(copy for copy, _ in copies), 3),
        "peakMemoryMiB": round(max(result["peakMemoryMiB"] for result in results), 1),
        "longestBatchMs": round(max(result["longestBatchMs"] for result in results), 1),
        "topUpP50Ms": round(ranked[len(ranked) // 2], 2),
        "topUpP99Ms": round(ranked[len(ranked) * 99 // 100], 2),
        "topUpMaxMs": round(ranked[-1], 2),
        "emptyRunSeconds": round(empty, 3),
        "serverCpuPerMillion": _per_million(results, "serverCpu"),
        "ourCpuPerMillion": _per_million(results, "ourCpu"),
        "copyCpuRatio": round(
            statistics.median(
                run["serverCpu"] / max(used, 0.01) for run, (_, used) in zip(results, copies, strict=True)
            ),
            2,
        ),
        "workers": bench.workers,
        "batchSize": bench.batch_size,
    }


def _per_million(results: list[dict[str, Any]], what: str) -> float:
    return round(float(statistics.median(run[what] / run["instances"] for run in results)) * 1_000_000, 2)


def measure_changed(bench: Bench, runs: int) -> dict[str, Any]:
    """Bill hours in which a twentieth of the fleet changed plan or status, half of it each."""
    with psycopg.connect(bench.conninfo, autocommit=True) as conn:
        _fill(conn, bench)
        bench.bill(START + timedelta(hours=1))
        results, copies = [], []
        for hour in range(2, runs + 2):
            _set_clock(conn, START + timedelta(hours=hour, minutes=-20))
            conn.execute(
                """
                update vps_instances set
                    plan_id = case when substr(label, 5)::int %% 40 = 0 then plan.id::text
                                   else vps_instances.plan_id end,
                    status = case when substr(label, 5)::int %% 40 = 0 then status
                                  when status = 'running' then 'stopped' else 'running' end
                from vps_plans plan where substr(label, 5)::int %% 20 = 0 and plan.name = 'Plan ' || (%s)::text
                """,
                [hour],
            )
            conn.execute("vacuum analyze vps_instances")
            conn.execute("checkpoint")
            results.append(bench.bill(START + timedelta(hours=hour)))
            copies.append(_copy(conn, bench))
    return _figures(bench, results, copies, [], 0)


def measure_catch_up(bench: Bench, hours: int = 72) -> dict[str, Any]:
    """Bill an outage of 72 hours with a price change in the middle, in one run."""
    with psycopg.connect(bench.conninfo, autocommit=True) as conn:
        _fill(conn, bench)
        bench.bill(START + timedelta(hours=1))
        _set_clock(conn, START + timedelta(hours=hours // 2))
        conn.execute("update vps_plans set base_price = base_price + 1")
        _set_clock(conn, START + timedelta(hours=1 + hours))
        conn.execute("checkpoint")
        result = bench.bill(START + timedelta(hours=1 + hours))
        copy = _copy(conn, bench)
    return _figures(bench, [result], [copy], [], 0)


def _set_clock(conn: psycopg.Connection[Any], moment: datetime) -> None:
    """Let the triggers, which have no as_of, run at the time of the fleet."""
    conn.execute(
        cast(
            "Any",
            "create or replace function billing_clock() returns timestamptz language sql volatile"
            f" return timestamptz '{moment.isoformat()}'",
        )
    )


def _fill(conn: psycopg.Connection[Any], bench: Bench) -> None:
    values = {"instances": bench.instances, "wallets": bench.wallets, "start": START}
    for statement in (HERE / "fleet.sql").read_text(encoding="utf-8").split(";\n"):
        if statement.strip():
            conn.execute(cast("Any", statement), values)
    conn.execute("vacuum analyze")


def _grow_old(conn: psycopg.Connection[Any], older: int) -> None:
    """Write older charges, hour by hour back in time, as runs before these would have left them."""
    per_hour = conn.execute("select count(*) from vps_instances").fetchone()
    assert per_hour is not None
    for hour in range(1, -(-older // per_hour[0]) + 1):
        conn.execute(
            """
            insert into vps_billing_cycles (id, organization_id, vps_instance_id, billing_period_start,
                billing_period_end, hourly_rate, total_amount, status, run_id, plan_id, created_at, updated_at)
            select billing_batch_uuid(lpad(to_hex(%(hour)s::bigint), 16, '0'),
                    hashtextextended(vps_instance_id::text, 0)),
                organization_id, vps_instance_id, billing_period_start - %(hour)s * interval '1 hour',
                billing_period_end - %(hour)s * interval '1 hour', hourly_rate, total_amount, status, 0, plan_id,
                created_at, updated_at
            from vps_billing_cycles where run_id = 1 order by organization_id
            """,
            {"hour": hour},
        )
    conn.execute("vacuum analyze vps_billing_cycles")


def _copy(conn: psycopg.Connection[Any], bench: Bench) -> tuple[float, float]:
    """Copy the charges of the last run into a table without indexes; return seconds, and the server's of CPU."""
    conn.execute("drop table if exists bare")
    conn.execute("create table bare (like vps_billing_cycles)")
    with tempfile.TemporaryFile() as file:
        with conn.cursor().copy(
            "copy (select * from vps_billing_cycles where run_id = (select max(id) from billing_runs)) to stdout"
        ) as rows:
            for block in rows:
                file.write(block)
        file.seek(0)
        before, begun = bench.server_seconds(), time.perf_counter()
        with conn.cursor().copy("copy bare from stdin") as into:
            while block := file.read(1 << 18):
                into.write(block)
        seconds, used = time.perf_counter() - begun, bench.server_seconds() - before
    conn.execute("drop table bare")
    return seconds, used


def _oracle(conn: psycopg.Connection[Any], hours: int, first_run: int) -> list[str]:
    statement = (HERE / "oracle.sql").read_text(encoding="utf-8")
    with psycopg.ClientCursor(conn) as cursor:
        values = {"hours": hours, "first_run": first_run}
        return [row[0] for row in cursor.execute(cast("Any", statement), values).fetchall()]


def _positive(text: str) -> int:
    """Read how many there are of something; a fleet of none has no speed."""
    if not text.strip().isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def _fleets(text: str) -> list[int]:
    return [_positive(part) for part in text.split(",")]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="./dev bench", description=__doc__.split("\n\n")[0] if __doc__ else ""
    )
    parser.add_argument(
        "--instances", type=_fleets, default="10000,100000,1000000", help="fleets to measure, by commas"
    )
    parser.add_argument("--wallets", type=_positive, default=50_000)
    parser.add_argument("--workers", type=_positive, default=2)
    parser.add_argument("--batch-size", type=_positive, default=2500)
    parser.add_argument("--runs", type=_positive, default=3, help="hours billed and measured")
    parser.add_argument("--scenario", choices=["plain", "changed", "catch-up"], default="plain")
    parser.add_argument("--older", type=int, default=0, help="older charges in the table")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="containerstacks-bench-"))
    server = EmbeddedServer(directory, settings=SERVER)
    try:
        maintenance = server.start()
        figures = []
        for number, instances in enumerate(options.instances):
            name = f"bench_{number}"
            with psycopg.connect(maintenance, autocommit=True) as conn:
                conn.execute(cast("Any", f"create database {name}"))
            conninfo = make_conninfo(maintenance, dbname=name)
            migrate(conninfo)
            wallets = min(options.wallets, max(1, instances // 20))
            bench = Bench(
                conninfo, instances, wallets, options.workers, options.batch_size, postmaster_of(directory)
            )
            if options.scenario == "changed":
                figures.append(measure_changed(bench, options.runs))
            elif options.scenario == "catch-up":
                figures.append(measure_catch_up(bench))
            else:
                figures.append(measure(bench, options.runs, options.older))
            if not options.json:
                _print(figures[-1], first=number == 0)
        if options.json:
            print(json.dumps(figures, indent=2))
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)


def _print(figures: dict[str, Any], *, first: bool) -> None:
    if first:
        print(" ".join(f"{heading:>11}" for heading in COLUMNS.values()))
    print(" ".join(f"{figures[key]:>11,}" for key in COLUMNS), flush=True)


if __name__ == "__main__":
    main()
