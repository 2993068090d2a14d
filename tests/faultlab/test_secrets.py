"""Canaries: secrets that are nobody's, given to every verb in good and bad situations, and looked for in all that comes out.

A failing verb is the dangerous one: the driver echoes a connection string that it cannot read, a validator the value that it
refuses, a traceback whatever was at hand.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql
from tests import daemons, served
from tests.fleet import Fleet
from tests.forked import fork_server

ODD = "p@ss/w#r:d%zz"
CANARIES = {
    "password": "canary-password-4711",
    "ADMIN_TOKEN": "canary-admin-token-of-more-than-thirty-two-characters",
    "JWT_SECRET": "canary-jwt-secret-of-more-than-thirty-two-characters",
    "WEBHOOK_SECRET": "canary-webhook-secret-of-more-than-thirty-two-characters",
    "webhook login": "canary-webhook-login",
    "bearer": "canary-bearer-token-of-more-than-thirty-two-characters",
}
PASSWORD = CANARIES["password"]
SETTINGS = {name: text for name, text in CANARIES.items() if name.isupper()} | {
    "WEBHOOK_URL": f"http://hook:{CANARIES['webhook login']}@127.0.0.1:9/billing"
}

# How the database is named, and what every verb then makes of it. {good} is a database that is there.
SITUATIONS = {
    "good": "{good}",
    "refused": "{refused}",
    "away": f"postgresql://billing:{PASSWORD}@127.0.0.1:1/app",
    "port is no number": f"postgresql://billing:{PASSWORD}@127.0.0.1:{PASSWORD}/app",
    "no scheme": f"postgres//billing:{PASSWORD}@127.0.0.1/app",
    "odd characters": f"postgresql://billing:{ODD}{PASSWORD}@127.0.0.1:1/app",
    "unknown option": f"host=127.0.0.1 port=1 password={PASSWORD} pasword={PASSWORD}",
    "open quote": f"host=127.0.0.1 port=1 password='{PASSWORD}",
    "password as user": f"postgresql://{PASSWORD}@127.0.0.1:1:1/app",
    "unknown parameter": f"postgresql://127.0.0.1:1/app?password={PASSWORD}&passwort={PASSWORD}",
}
# Few verbs for every situation, and every verb for few situations.
EVERYWHERE = ("run", "doctor --json", "config show")
EVERY_VERB = (
    "run --json",
    "run --dry-run",
    "verify",
    "verify --json",
    "status",
    "status --json",
    "runs",
    "prices list",
    "quarantine",
    "runways",
    "events",
    "events test",
    "migrate --dry-run",
    "doctor",
    "grants --role billing",
    "config show --json",
    "service show",
    "token list",
    "token create canary",
    "--log-level debug run",
)
# What is wrong with another setting; its value is a secret that was pasted into the wrong line.
WRONG = {
    "BILLING_INTERVAL_MINUTES": PASSWORD,
    "BILLING_BATCH_SIZE": PASSWORD,
    "LOG_LEVEL": PASSWORD,
    "CURRENCY": PASSWORD,
    "WEBHOOK_URL": f"ftp://hook:{PASSWORD}@127.0.0.1/",
    "PARTIAL_HOUR": PASSWORD,
    "HOST": f"{PASSWORD}/{PASSWORD}",
    "ADMIN_TOKEN": "canary",
}


@dataclass(frozen=True)
class Installation:
    """A database with a fleet, and a role whose password is a canary."""

    conn: psycopg.Connection[Any]
    url: str
    refused: str
    owner: str

    def everything_written(self) -> str:
        """The rows of every table, as text."""
        tables = self.conn.execute("select tablename from pg_tables where schemaname = 'public'").fetchall()
        return "\n".join(
            str(row[0])
            for (table,) in tables
            for row in self.conn.execute(sql.SQL("select t::text from {} t").format(sql.Identifier(table)))
        )


@pytest.fixture
def installation(conn: psycopg.Connection[Any]) -> Iterator[Installation]:
    fleet = Fleet(conn)
    fleet.instance(fleet.organization("10.00"), fleet.plan("7.30"))
    fleet.hours(2)
    name = f"billing_test_{secrets.token_hex(6)}"
    role = sql.Identifier(name)
    conn.execute(sql.SQL("create role {} login password {}").format(role, sql.Literal(PASSWORD)))
    conn.execute("select billing_admit(%s)", (name,))
    conn.execute("grant select on test_clock to public")
    host, port = quote(conn.info.host, safe=""), conn.info.port
    url = "postgresql://{}:{}@/{}?host={}&port={}&sslmode=disable"
    yield Installation(
        conn,
        url.format(name, PASSWORD, conn.info.dbname, host, port),
        url.format(name, f"{PASSWORD}-wrong", conn.info.dbname, host, port),
        conn.info.dsn,
    )
    conn.execute(sql.SQL("drop owned by {}").format(role))
    conn.execute(sql.SQL("drop role {}").format(role))


def told(text: str) -> list[str]:
    """The names of the secrets that a text gives away."""
    return [name for name, canary in CANARIES.items() if canary in text]


def run(directory: Path, url: str, arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a verb as an operator does, with all secrets in its settings."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(directory),
        "CONTAINERSTACKS_BILLING_STATE": str(directory / "state"),
        "DATABASE_URL": url,
        **SETTINGS,
        **settings,
    }
    return fork_server().run(arguments.split(), directory, environment, 180)


def assert_no_secret(done: subprocess.CompletedProcess[str]) -> None:
    """No secret on stdout or stderr, and no traceback in which one may be the next time."""
    output = done.stdout + done.stderr
    assert not told(output), output
    assert "Traceback" not in output


CASES = [(situation, verb) for situation in SITUATIONS for verb in EVERYWHERE]
MORE = [(situation, verb) for situation in ("good", "refused", "port is no number") for verb in EVERY_VERB]
CHEAP = {
    ("good", "run --json"),
    ("good", "config show --json"),
    ("refused", "doctor --json"),
    ("port is no number", "run"),
    ("odd characters", "run"),
    ("unknown option", "run"),
    ("open quote", "config show"),
    ("no scheme", "doctor --json"),
}


@pytest.mark.parametrize(
    ("situation", "verb"),
    [
        pytest.param(*case, marks=[] if case in CHEAP else [pytest.mark.slow], id=" - ".join(case))
        for case in CASES + MORE
    ],
)
def test_no_verb_tells_a_secret(
    installation: Installation, tmp_path: Path, situation: str, verb: str
) -> None:
    """Whatever is wrong with the database's name or with the database: no secret on stdout, on stderr or in a table."""
    url = SITUATIONS[situation].replace("{good}", installation.url).replace("{refused}", installation.refused)
    assert_no_secret(run(tmp_path, url, verb))
    assert not told(installation.everything_written())


@pytest.mark.parametrize(
    "key",
    [pytest.param(key, marks=[] if key in ("CURRENCY", "HOST") else [pytest.mark.slow]) for key in WRONG],
)
def test_a_refused_setting_is_named_and_not_quoted(
    installation: Installation, tmp_path: Path, key: str
) -> None:
    """A secret that was pasted into the wrong line ends with 78, the key's name and without the value."""
    done = run(tmp_path, installation.url, "run", **{key: WRONG[key]})
    assert_no_secret(done)
    assert 78 == done.returncode, done.stderr
    assert key in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("form", ["logfmt", "json", "terminal"])
@pytest.mark.parametrize("situation", ["good", "away", "refused"])
def test_a_daemon_tells_no_secret(
    installation: Installation, tmp_path: Path, situation: str, form: str
) -> None:
    """Not in its log, its messages to systemd, the process list or its table."""
    url = SITUATIONS[situation].replace("{good}", installation.url).replace("{refused}", installation.refused)
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(address))
        systemd.settimeout(1)
        daemon = daemons.start(
            tmp_path, url, LOG_FORMAT=form, LOG_LEVEL="debug", NOTIFY_SOCKET=str(address), **SETTINGS
        )
        try:
            daemon.says(
                {"good": "completed", "away": "refuses connections", "refused": "refused"}[situation],
                seconds=60,
            )
            titles = Path(f"/proc/{daemon.pid}/cmdline").read_text()
            if situation == "good":
                daemon.conninfo = installation.url
        finally:
            daemon.stop(60)
        notified = ""
        systemd.setblocking(False)
        while True:
            try:
                notified += systemd.recv(65536).decode()
            except BlockingIOError:
                break
    assert "STATUS=" in notified
    assert "billing" in titles
    assert not told(daemon.log() + notified + titles)
    assert not told(installation.everything_written())


@pytest.mark.parametrize("situation", ["good", pytest.param("away", marks=pytest.mark.slow)])
def test_the_application_side_tells_no_secret(
    installation: Installation, tmp_path: Path, situation: str
) -> None:
    """Pages, answers, problem documents and metrics, with the right token, with a wrong one, and without; and its log."""
    started: list[subprocess.Popen[bytes]] = []
    url = SITUATIONS[situation].replace("{good}", installation.url)
    try:
        serving = served.serve(tmp_path, url, started, LOG_LEVEL="debug", **SETTINGS)
        said = ""
        for token in (CANARIES["ADMIN_TOKEN"], CANARIES["bearer"], None):
            for path in (
                "/status",
                "/status/sign-in",
                "/healthz",
                "/readyz",
                "/metrics",
                "/api/health",
                "/api/health/billing-daemon",
                "/api/billing/runs",
                f"/api/billing/runs?limit={CANARIES['bearer']}",
                "/api/billing/summary",
                "/openapi.json",
                f"/nowhere?token={CANARIES['bearer']}",
            ):
                said += _get(serving.address + path, token)
        titles = Path(f"/proc/{serving.process.pid}/cmdline").read_text()
        assert 0 == serving.end(15)
    finally:
        served.end(started)
    assert not told(said.replace(f"limit={CANARIES['bearer']}", ""))
    assert not told(serving.log() + titles)
    assert not told(installation.everything_written())


def _get(address: str, token: str | None) -> str:
    request = urllib.request.Request(address, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(request, timeout=180) as answer:
            return f"{answer.headers}{answer.read().decode()}"
    except urllib.error.HTTPError as refused:
        with refused:
            return f"{refused.headers}{refused.read().decode()}"


def test_a_token_is_kept_as_its_hash(installation: Installation, tmp_path: Path) -> None:
    """It is shown once, when it is made; no row of any table holds it, and no list shows it again."""
    made = run(tmp_path, installation.owner, "token create operator --json")
    assert 0 == made.returncode, made.stderr
    token = json.loads(made.stdout)["token"]
    assert len(token) > 32
    assert token not in installation.everything_written()
    assert token not in run(tmp_path, installation.url, "token list --json").stdout
