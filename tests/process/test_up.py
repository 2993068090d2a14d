"""`up`: two commands from nothing to a billed fleet, away from the operator's database."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.daemons import eventually
from tests.process.conftest import Command

from containerstacks_billing.postgres.embedded import EmbeddedServer


@pytest.fixture
def server_of_up(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """The embedded server that `up` makes, stopped after the test."""
    server = EmbeddedServer(tmp_path / "state", settings={"fsync": "off"})
    server.start()
    yield server
    server.stop()


def test_up_bills_a_demo_fleet_once(server_of_up: EmbeddedServer, command: Command, tmp_path: Path) -> None:
    """The first time makes, bills and shows; the second charges nothing; DATABASE_URL and .env are not looked at."""
    (tmp_path / ".env").write_text("BILLING_INTERVAL_MINUTES=nonsense\n")
    (tmp_path / ".env").chmod(0o666)
    elsewhere = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nowhere"}
    first = command("up", "--once", environment=elsewhere)
    second = command("up", "--once", environment=elsewhere)

    assert (0, 0) == (first.returncode, second.returncode), first.stderr + second.stderr
    assert "Run 1 completed: 12 instances charged for 55.8 hours." in first.stdout
    assert "Amount      2.63945204 USD exactly: 2.61 debited, 0.02945204 carried on" in first.stdout
    assert "Run 2 completed: 0 charged, all already billed." in second.stdout
    assert all(len(line) <= 80 for line in (first.stdout + second.stdout).splitlines())
    (tmp_path / ".env").unlink()
    assert 0 == command("verify").returncode


def test_two_at_once_make_one_fleet(server_of_up: EmbeddedServer, command: Command) -> None:
    """Whoever comes second finds the fleet, and waits for the first to have billed it."""
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: command("up", "--once"), range(2)))
    assert [0, 0] == [one.returncode for one in both], [one.stderr for one in both]
    with psycopg.connect(server_of_up.conninfo("containerstacks")) as connection:
        assert (5, 13) == connection.execute(
            "select (select count(*) from organizations), (select count(*) from vps_instances)"
        ).fetchone()


def test_up_refuses_another_database(command: Command) -> None:
    """--database-url is a misunderstanding, and a usage error before anything is made."""
    refused = command("--database-url", "postgresql://localhost/production", "up")
    assert (2, "") == (refused.returncode, refused.stdout)


def test_verbs_without_a_database_find_that_of_up(server_of_up: EmbeddedServer, command: Command) -> None:
    """Run and status work on it and say so."""
    command("up", "--once")
    status = command("status", "--json")
    assert "using the embedded database in" in status.stderr
    assert "completed" == json.loads(status.stdout)["lastRun"]["outcome"]


def test_up_runs_daemon_and_status_page_until_it_is_stopped(tmp_path: Path) -> None:
    """Both answer, the daemon's heartbeat is there; SIGINT ends them, and the server that was started for them."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    state = tmp_path / "state"
    clean = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "CONTAINERSTACKS_BILLING_STATE": str(state)}
    clean["http_proxy"] = "http://127.0.0.1:9"  # nothing listens there, and we ask nothing through it
    with subprocess.Popen(
        [sys.executable, "-m", "containerstacks_billing", "up", "--port", str(port)],
        cwd=tmp_path, env=clean, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            lines = iter(process.stdout.readline, "")
            assert any("Daemon and application side are running" in line for line in lines), (
                process.stderr.read()
            )
            token = next(line for line in lines if "Sign in with" in line).split()[3]
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/api/health/billing-daemon",
                headers={"Authorization": f"Bearer {token}"},
            )
            health = eventually(lambda: _running_daemon(request))
            assert 0 <= health["instancesBilled"]
            process.send_signal(signal.SIGINT)
            rest = process.communicate(timeout=60)[0]
        finally:
            process.kill()
    assert (0, True) == (process.returncode, "Stopping." in rest)
    assert not EmbeddedServer(state).status().running


def _running_daemon(request: urllib.request.Request) -> dict[str, Any] | None:
    with urllib.request.urlopen(request, timeout=10) as answer:
        daemon: dict[str, Any] = json.load(answer)["daemon"]
    return daemon if daemon["status"] == "running" else None
