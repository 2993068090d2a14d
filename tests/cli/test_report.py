"""`doctor --report`: what a maintainer gets to see of an installation, and what never."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo
from tests.command import Command
from tests.fleet import Fleet

# Each of a form of its own, so that no shape but the value itself has to be recognised.
SECRETS = {
    "ADMIN_TOKEN": "canary-admin-5d1c6a-long-enough",
    "JWT_SECRET": "canary jwt with spaces 81f2",
    "WEBHOOK_SECRET": "whsec_Y2FuYXJ5LXdlYmhvb2stNzdhYi1sb25nLWVub3VnaA==",
}
PASSWORD = "canary-password-93be"


def files_of(report: Path) -> dict[str, str]:
    """The files of a report by name; all of them below one directory that is called like it."""
    with tarfile.open(report) as archive:
        entries = {entry.name: archive.extractfile(entry) for entry in archive.getmembers()}
        return {Path(name).name: file.read().decode() for name, file in entries.items() if file}


def a_failed_run(conn: psycopg.Connection[Any]) -> Fleet:
    """A fleet with a run whose error message quotes a connection string."""
    fleet = Fleet(conn)
    fleet.instance(fleet.organization("100.00"), fleet.plan("7.30"))
    fleet.hours(3)
    fleet.bill()
    conn.execute(
        "update billing_runs set outcome = 'failed', error_message = %s",
        (f"no route to postgresql://billing:{PASSWORD}@db.example.org/books",),
    )
    return fleet


def test_a_report_has_what_explains_a_fault_and_no_secret(
    conn: psycopg.Connection[Any], command: Command, database: str, role: str, tmp_path: Path
) -> None:
    """Findings, configuration, versions, server, migrations, status, runs and plans; every secret is masked in each of them."""
    a_failed_run(conn)
    conn.execute(f"alter role {role} superuser password '{PASSWORD}'")
    url = make_conninfo(database, user=role, password=PASSWORD)
    (tmp_path / ".env").write_text(
        f"DATABASE_URL={url}\n" + "".join(f'{key}="{value}"\n' for key, value in SECRETS.items())
    )
    (tmp_path / ".env").chmod(0o600)
    report = tmp_path / "report.tar.gz"

    done = command("doctor", "--report", str(report), "--json")

    assert "Wrote" in done.stderr
    assert 0o600 == report.stat().st_mode & 0o777
    files = files_of(report)
    assert {
        "findings.json", "configuration.json", "versions.json", "server.json", "migrations.json",
        "status.json", "runs.json", "plans.txt",
    } == set(files)  # fmt: skip
    assert [] == [
        (name, secret)
        for name, text in files.items()
        for secret in (PASSWORD, *SECRETS.values())
        if secret in text
    ]
    assert json.loads(done.stdout)["findings"] == json.loads(files["findings.json"])
    assert "********" == json.loads(files["configuration.json"])["given"]["ADMIN_TOKEN"]["value"]
    assert "failed" == json.loads(files["runs.json"])["runs"][0]["outcome"]
    assert "db.example.org" in files["runs.json"]
    assert files["plans.txt"].count("(cost=") > 20
    assert "no plan: " not in files["plans.txt"]
    assert {"settings", "tables", "waiting", "version"} == set(json.loads(files["server.json"]))


def test_a_report_of_a_database_that_cannot_be_read_says_why(
    command: Command, database: str, role: str, tmp_path: Path
) -> None:
    """A role without rights, and a port on which nothing listens: what can be known is in the report, and the exit code is doctor's."""
    for conninfo, named in (
        (make_conninfo(database, user=role, password=role), "findings.json"),
        ("postgresql://billing:secret@127.0.0.1:1/books", "unreadable.json"),
    ):
        report = tmp_path / "report.tar.gz"
        done = command("doctor", "--report", str(report), environment={"DATABASE_URL": conninfo})
        assert 1 == done.returncode
        files = files_of(report)
        assert {"findings.json", "versions.json", "configuration.json", named} <= set(files)
    assert "Connection refused" in files["unreadable.json"]


def test_a_report_that_cannot_be_written_is_a_failure_of_the_command(
    command: Command, tmp_path: Path
) -> None:
    """The directory is named by the person, so a wrong one is an error with what to do, not a missing file."""
    done = command("doctor", "--report", str(tmp_path / "nowhere" / "report.tar.gz"))
    assert 1 == done.returncode
    assert "cannot be written: No such file or directory" in done.stderr
    assert "hint: Name a file in a directory of yours." in done.stderr
