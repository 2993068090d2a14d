"""`db`: the embedded server by hand; `.env` and DATABASE_URL mean nothing to it."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from containerstacks_billing.config.target import target
from containerstacks_billing.errors import ConfigurationError
from containerstacks_billing.sandbox.server import EmbeddedServer
from containerstacks_billing.settings import Settings

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """The state directory of the command, whose server is stopped after the test."""
    directory = tmp_path / "state"
    yield directory
    EmbeddedServer(directory).stop()


def test_a_server_is_started_used_and_stopped(command: Command, state: Path) -> None:
    """Each verb may be repeated."""
    (state.parent / ".env").write_text(
        "DATABASE_URL=postgresql://nobody@nowhere.invalid/x"
    )  # readable by others
    assert command("db", "status").stdout.startswith("State     never created")
    assert command("db", "psql").returncode == 78
    for _ in range(2):
        started = command("db", "start")
        assert (started.returncode, f"is running in {state}" in started.stdout) == (0, True)
        assert "not for production" in started.stderr
    status = json.loads(command("db", "status", "--json").stdout)
    assert (status["running"], status["directory"]) == (True, str(state))
    asked = command("db", "psql", "--", "-Atc", "select 1 + 1")
    assert (asked.returncode, asked.stdout) == (0, "2\n")
    other = command("db", "psql", "--", "-d", "template1", "-Atc", "select current_database()")
    assert (other.returncode, other.stdout) == (0, "template1\n"), other.stderr
    assert command("db", "stop").stdout.startswith("Stopped")
    assert command("db", "stop").stdout.startswith("Nothing was running")


def test_verbs_work_on_the_embedded_database_and_say_so(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without DATABASE_URL: the one that `up` made, or a refusal with 78."""
    monkeypatch.setenv("CONTAINERSTACKS_BILLING_STATE", str(state))
    with pytest.raises(ConfigurationError, match="there is no embedded database"):
        target(Settings())
    server = EmbeddedServer(state)
    server.start()
    with pytest.raises(ConfigurationError, match="there is no embedded database"):
        target(Settings())
    import psycopg

    with psycopg.connect(server.conninfo("postgres"), autocommit=True) as admin:
        admin.execute("CREATE DATABASE containerstacks")
    server.stop()
    sentences: list[str] = []
    chosen = target(Settings(), announce=sentences.append, announce_started=sentences.append)
    assert chosen.embedded
    assert sentences == [
        f"The embedded database in {state} was started and goes on; `containerstacks-billing db stop` stops it.",
        f"DATABASE_URL is not set: using the embedded database in {state}",
    ]
    target(Settings(), announce=lambda _: None, announce_started=sentences.append)
    assert 2 == len(sentences)
    assert server.status().running
    with pytest.raises(ConfigurationError, match="DATABASE_URL is not set"):
        target(Settings(), embedded_allowed=False)
