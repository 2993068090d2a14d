"""How fast the status page answers on a large database, over HTTP from a real server process.

    python -m benchmarks.status_page                     1,000,000 instances, 10,000,000 charges, 100,000 runs
    python -m benchmarks.status_page --instances 100000 --charges 1000000 --runs 100000

The database is a throw-away one. One in a hundred instances is set aside, one wallet in ten owes, every wallet has a
runway. Public and admin pages, `/metrics` and the health of the daemon are asked one after another, at random; readings
are shared for a second or two, so each round begins with a pause that makes them stale, and what is measured is the
slow case: every request reads the tables anew.
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
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import psycopg
from psycopg.conninfo import make_conninfo

from benchmarks.fleet import HERE
from containerstacks_billing.postgres.embedded import EmbeddedServer
from containerstacks_billing.postgres.migrate import migrate

ADMIN_TOKEN = "the-admin-token-of-the-benchmark"  # noqa: S105 - of a server that lives for minutes
# Longer than any reading is shared.
STALE_SECONDS = 2.1


def fill(conninfo: str, instances: int, charges: int, runs: int) -> None:
    """Write the tables as years of billing leave them."""
    now = datetime.now(UTC)
    values = {
        "instances": instances,
        "wallets": max(1, instances // 20),
        "start": now,
        "now": now,
        "runs": runs,
    }
    values["hours"] = max(1, charges // instances)
    with psycopg.connect(conninfo, autocommit=True) as conn:
        for file in ("fleet.sql", "status_page.sql"):
            for statement in filter(str.strip, (HERE / file).read_text(encoding="utf-8").split(";\n")):
                conn.execute(cast("Any", statement), values)
        conn.execute("vacuum analyze")


class Client:
    """Asks the server, each time over a new connection."""

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


def measure(client: Client, rounds: int) -> dict[str, dict[str, float]]:
    """Ask every question `rounds` times with stale readings, and as often again at once with shared ones."""
    stale: dict[str, list[float]] = {name: [] for name in client.questions}
    shared: dict[str, list[float]] = {name: [] for name in client.questions}
    for name in client.questions:
        client.ask(name)
    for _ in range(rounds):
        for name in random.sample(list(client.questions), len(client.questions)):
            time.sleep(STALE_SECONDS)
            stale[name].append(client.ask(name))
            shared[name].append(client.ask(name))
    return {
        name: {
            "staleP50Ms": _percentile(stale[name], 50),
            "staleP99Ms": _percentile(stale[name], 99),
            "sharedP50Ms": _percentile(shared[name], 50),
            "sharedP99Ms": _percentile(shared[name], 99),
        }
        for name in client.questions
    }


def _percentile(values: list[float], percent: int) -> float:
    ranked = sorted(values)
    return round(ranked[min(len(ranked) * percent // 100, len(ranked) - 1)], 1)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def main() -> None:
    """Measure and print one JSON document; 1 when a page needs more than 50 ms."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else "")
    parser.add_argument("--instances", type=int, default=1_000_000)
    parser.add_argument("--charges", type=int, default=10_000_000)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=100)
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="containerstacks-bench-"))
    server = EmbeddedServer(
        directory, settings={"shared_buffers": "512MB", "max_wal_size": "8GB", "fsync": "off"}
    )
    application = None
    try:
        maintenance = server.start()
        with psycopg.connect(maintenance, autocommit=True) as conn:
            conn.execute("create database status_page")
        conninfo = make_conninfo(maintenance, dbname="status_page")
        migrate(conninfo)
        fill(conninfo, options.instances, options.charges, options.runs)
        port = _free_port()
        environment = {"PATH": os.environ["PATH"], "DATABASE_URL": conninfo, "ADMIN_TOKEN": ADMIN_TOKEN}
        environment |= {"PORT": str(port), "BUILT_IN_BILLING": "off"}
        application = subprocess.Popen(
            [sys.executable, "-m", "containerstacks_billing", "serve"],
            cwd=directory,
            env=environment,
            stderr=subprocess.DEVNULL,
        )
        _wait_for(port)
        figures = measure(Client(port), options.rounds)
        print(json.dumps(vars(options) | {"milliseconds": figures}, indent=2))
        if any(figure["staleP99Ms"] > 50 for figure in figures.values()):
            sys.exit("error: an answer took more than 50 ms")
    finally:
        if application is not None:
            application.terminate()
            application.wait(30)
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)


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
