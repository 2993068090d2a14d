"""The fork server of the tests: a forked command is a process like one that was started from nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.daemons import eventually
from tests.forked import fork_server

CLEAN = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}


@pytest.mark.parametrize(
    "words",
    [["--version"], ["--help"], ["status"], ["run", "--no-such"], ["config", "show"], ["status", "–"]],
)
def test_a_forked_command_says_and_returns_what_an_interpreter_does(words: list[str], tmp_path: Path) -> None:
    """Exit code, standard output and standard error; its environment and directory are those that were asked for."""
    environment = {**CLEAN, "HOME": str(tmp_path), "BILLING_WORKERS": "3"}
    started = subprocess.run(
        [sys.executable, "-m", "containerstacks_billing", *words],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    forked = fork_server().run(words, tmp_path, environment, 180)
    assert (started.returncode, started.stdout, started.stderr) == (
        forked.returncode,
        forked.stdout,
        forked.stderr,
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 0)])
def test_a_forked_command_is_a_process_with_signals(
    number: signal.Signals,
    code: int,
    conn: psycopg.Connection[Any],
    database: str,
    tmp_path: Path,
) -> None:
    """It is waited for, has an end of its own, and two of them run at once."""
    environment = {**CLEAN, "HOME": str(tmp_path), "DATABASE_URL": database}
    with (tmp_path / "log").open("wb") as log, Path(os.devnull).open() as nothing:
        streams = (nothing.fileno(), log.fileno(), log.fileno())
        one = fork_server().start(["daemon"], tmp_path, environment, streams)
        eventually(lambda: conn.execute("select 1 from billing_daemon_status").fetchone())
        assert one.poll() is None
        assert 2 == fork_server().run(["no-such-verb"], tmp_path, environment, 180).returncode
        one.send_signal(number)
        assert code == one.wait(180)
    assert not Path(f"/proc/{one.pid}").exists()
