"""How fast the status page, `/metrics` and `status` answer on a large database, from a real server process.

    python -m benchmarks.status_page                     1,000,000 instances, 10,000,000 charges, 100,000 runs
    python -m benchmarks.status_page --instances 100000 --charges 1000000 --runs 100000
    python -m benchmarks.status_page --keep DIRECTORY    the same, but the database stays there for the next measurement

The database is a throw-away one, written in a minute and a half (years.py). One in a hundred instances is quarantined,
one wallet in ten owes, every wallet has a runway. Public and admin pages, `/metrics` and the health of the daemon are
asked one after another, at random, each over a new connection. A server shares what it reads for a second or two; the
one that is measured shares nothing, so that every request is the slow case and reads the tables anew. `status` is a
command that lives for one answer: what is measured of it is connecting and reading, as it does, without the start of an
interpreter. Beside the milliseconds stands how often each of them waits for the database: no other load changes that.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from benchmarks import years
from containerstacks_billing.database.connection import Connection, connect
from containerstacks_billing.database.pool import ReadingPool
from containerstacks_billing.sandbox.server import EmbeddedServer
from containerstacks_billing.schema.migrator import migrate
from containerstacks_billing.settings import settings_from
from containerstacks_billing.status.read import read_status
from containerstacks_billing.web.cache import Readings
from containerstacks_billing.web.context import Context
from containerstacks_billing.web.status_view import StatusReader

ADMIN_TOKEN = "the-admin-token-of-the-benchmark"  # noqa: S105 - of a server that lives for minutes
LIMIT_MS = 50
SERVE = """
from containerstacks_billing import cli
from containerstacks_billing.web import cache, status_view

cache.HEALTH_SECONDS = status_view.DETAILS_SECONDS = 0.0
cli.main()
"""


class Client:
    """Requests to the server, each over a new connection."""

    def __init__(self, port: int) -> None:
        self._port = port
        body = f"token={ADMIN_TOKEN}"
        answer = self._ask(
            "POST", "/status/sign-in", {"Content-Type": "application/x-www-form-urlencoded"}, body
        )
        cookie = re.match(r"[^;]+", answer.getheader("Set-Cookie") or "")
        assert cookie is not None
        bearer = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
        self.questions: dict[str, tuple[str, dict[str, str]]] = {
            "/status public": ("/status", {}),
            "/status admin": ("/status", {"Cookie": cookie[0]}),
            "/metrics": ("/metrics", {}),
            "/api/health/billing-daemon": ("/api/health/billing-daemon", bearer),
        }

    def ask(self, name: str) -> float:
        """Return after how many milliseconds the whole answer was there."""
        path, headers = self.questions[name]
        begun = time.perf_counter()
        answer = self._ask("GET", path, headers)
        milliseconds = (time.perf_counter() - begun) * 1000
        assert answer.status == 200, answer.status
        return milliseconds

    def _ask(self, method: str, path: str, headers: dict[str, str], body: str | None = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer


def measure(client: Client, conninfo: str, rounds: int) -> dict[str, dict[str, float]]:
    """Ask every question `rounds` times, in any order; p50, p99 and the worst of each in milliseconds."""
    questions: dict[str, Callable[[], float]] = {name: partial(client.ask, name) for name in client.questions}
    questions["status"] = partial(status_command, conninfo)
    taken: dict[str, list[float]] = {name: [] for name in questions}
    for ask in questions.values():
        ask()
    for _ in range(rounds):
        for name in random.sample(list(questions), len(questions)):
            taken[name].append(questions[name]())
    return {name: _figures(values) for name, values in taken.items()}


def waits(conninfo: str) -> dict[str, int]:
    """Count how often each answer waits for the database, connecting aside: turns from asking to listening."""
    pool = ReadingPool(conninfo, connections=1)
    pool.open()
    context = Context(settings_from({"DATABASE_URL": conninfo}), conninfo, pool, Readings(pool))
    with pool.reading() as connection:
        pass
    page = turns(connection, StatusReader(context).now)
    context.readings = Readings(pool)
    metrics = turns(connection, context.readings.health)
    pool.close()
    with connect(conninfo, purpose="reading") as connection:
        status = turns(connection, lambda: read_status(connection))
    return {"/status": page, "/metrics": metrics, "status": status}


def turns(connection: Connection, work: Callable[[], object]) -> int:
    """Count the round trips of a connection while some work is done."""
    with tempfile.TemporaryFile() as trace:
        connection.pgconn.trace(trace.fileno())
        work()
        connection.pgconn.untrace()
        trace.seek(0)
        sent = [b"", *re.findall(rb"^[^\t\n]+\tF\t\d+\t(\w+)", trace.read(), re.MULTILINE)]
    # A flush alone asks too; after a Sync it asks for nothing more.
    return sum(
        name in (b"Query", b"Sync") or (name == b"Flush" and before != b"Sync")
        for before, name in pairwise(sent)
    )


def status_command(conninfo: str) -> float:
    """Return how many milliseconds `status` connects and reads."""
    begun = time.perf_counter()
    with connect(conninfo, purpose="reading") as connection:
        read_status(connection)
    return (time.perf_counter() - begun) * 1000


def _figures(values: list[float]) -> dict[str, float]:
    return {
        name: _percentile(values, percent) for name, percent in {"p50": 50, "p99": 99, "worst": 100}.items()
    }


def _percentile(values: list[float], percent: int) -> float:
    ranked = sorted(values)
    return round(ranked[min(len(ranked) * percent // 100, len(ranked) - 1)], 1)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


@contextmanager
def database(options: argparse.Namespace) -> Iterator[tuple[str, float | None]]:
    """Lend a filled database; the seconds of filling are None when it was kept from an earlier measurement."""
    directory = options.keep or Path(tempfile.mkdtemp(prefix="containerstacks-bench-"))
    server = EmbeddedServer(directory, settings=years.SERVER)
    name = f"years_{options.instances}_{options.charges}_{options.runs}"
    try:
        maintenance = server.start()
        conninfo = make_conninfo(maintenance, dbname=name)
        with psycopg.connect(maintenance, autocommit=True) as conn:
            known = conn.execute("select from pg_database where datname = %s", (name,)).rowcount
            if not known:
                conn.execute(f"create database {name}_unfinished")
        seconds = None
        if not known:
            unfinished = make_conninfo(maintenance, dbname=f"{name}_unfinished")
            migrate(unfinished)
            seconds = years.fill(unfinished, options.instances, options.charges, options.runs)
            with psycopg.connect(maintenance, autocommit=True) as conn:
                conn.execute(f"alter database {name}_unfinished rename to {name}")
        migrate(conninfo)
        years.let_the_daemon_live(conninfo)
        yield conninfo, seconds
    finally:
        server.stop()
        if not options.keep:
            shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def serving(conninfo: str) -> Iterator[int]:
    """Run the application side as a process that shares no reading; its port."""
    port = _free_port()
    environment = {"PATH": os.environ["PATH"], "DATABASE_URL": conninfo, "ADMIN_TOKEN": ADMIN_TOKEN}
    environment |= {"PORT": str(port), "BUILT_IN_BILLING": "off"}
    with tempfile.TemporaryDirectory() as empty:
        application = subprocess.Popen(
            [sys.executable, "-c", SERVE, "serve"],
            cwd=empty,
            env=environment,
            stderr=subprocess.DEVNULL,
        )
        try:
            _wait_for(port)
            yield port
        finally:
            application.terminate()
            application.wait(30)


def main() -> None:
    """Measure and print one JSON document; 1 when one answer in a hundred needs more than 50 ms."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else "")
    parser.add_argument("--instances", type=int, default=1_000_000)
    parser.add_argument("--charges", type=int, default=10_000_000)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--keep", type=Path, help="a directory where the database stays for the next time")
    options = parser.parse_args()
    with database(options) as (conninfo, seconds), serving(conninfo) as port:
        figures = measure(Client(port), conninfo, options.rounds)
        counted = waits(conninfo)
    shape = {name: getattr(options, name) for name in ("instances", "charges", "runs", "rounds")}
    document = shape | {"fillSeconds": seconds, "milliseconds": figures, "waitsForTheDatabase": counted}
    print(json.dumps(document, indent=2))
    if late := [name for name, figure in figures.items() if figure["p99"] > LIMIT_MS]:
        sys.exit(f"error: one answer in a hundred took more than {LIMIT_MS} ms: {', '.join(late)}")


def _wait_for(port: int) -> None:
    until = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > until:
                sys.exit("the application side did not start")
            time.sleep(0.1)
        else:
            return


if __name__ == "__main__":
    main()
