"""Every hint of `doctor` leads to green: the fault is brought about, exactly what stands below it is done, and it is gone.

FOLLOWED has the situations whose hint is a statement or a command that this machine can run. The others stand in ELSEWHERE,
with the place where their hint is followed, or why no test can: a table that forgets one fails.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from psycopg.conninfo import make_conninfo
from tests.command import Command
from tests.docs.test_troubleshooting import CAUSES, ME, NOBODY, Found, Patient, patient
from tests.fleet import Fleet

from containerstacks_billing.doctor import Finding, Level
from containerstacks_billing.systemd.access import examine_env_file, examine_executable

__all__ = ["patient"]

LIFE = "followed under a real systemd: tests/systemd/test_systemd.py, test_debian_package.py"
DECISION = "a decision of a person: what is right cannot be printed"
MACHINE = "a change of the machine, which no test may make"
ELSEWHERE = {
    ("executable", "does not exist"): LIFE,
    ("executable", "ProtectHome=yes"): LIFE,
    ("executable", "names no program by its full path"): LIFE,
    ("service", "exit 203 (203/EXEC"): LIFE,
    ("working directory", "200/CHDIR"): LIFE,
    ("EnvironmentFile", "does not exist, so systemd refuses to start"): LIFE,
    ("EnvironmentFile", "the service gets another BILLING_INTERVAL_MINUTES"): LIFE,
    ("user", "217/USER"): LIFE,
    ("service", "exit 78"): LIFE,
    ("service", "ended by signal"): LIFE,
    ("service", "the watchdog timed out"): LIFE,
    ("service", "because memory was short"): LIFE,
    ("restarts", "systemd restarted the service"): LIFE,
    ("service", "The service is stopped"): LIFE,
    ("heartbeat", "No daemon has reported yet"): LIFE,
    ("heartbeat", "Last heartbeat "): LIFE,
    ("heartbeat", "has been silent for"): LIFE,
    ("interval", "BILLING_INTERVAL_MINUTES is"): LIFE,
    ("service", "active, but does not bill: the heartbeat cannot be written"): LIFE,
    ("service", "active, but does not bill: run 7"): LIFE,
    ("watchdog", "has no WatchdogSec="): LIFE,
    ("memory of the service", "MiB"): LIFE,
    ("built-in billing", "Nothing takes over"): LIFE,
    ("heartbeat", "nothing bills by itself"): "tests/cli/test_up.py starts it",
    ("interpreter", "is too old"): MACHINE,
    ("memory", "for want of memory"): MACHINE,
    ("memory", "available"): MACHINE,
    ("disk for logs", "free for logs"): MACHINE,
    ("disk", "free for the embedded database"): MACHINE,
    ("clock", "ahead of this machine"): MACHINE,
    ("clock", "behind this machine"): MACHINE,
    ("server version", "is too old"): MACHINE,
    ("database", "no PostgreSQL is listening"): MACHINE,
    ("recovery", "is a standby"): DECISION,
    ("database", "has no database of that name"): DECISION,
    ("configuration", "BILLING_INTERVAL_MINUTES"): DECISION,
    ("configuration", "does not exist"): DECISION,
    ("configuration", "is a link to"): DECISION,
    ("database", "DATABASE_URL is not set"): DECISION,
    ("migrations", "012"): DECISION,
    ("schema", "Missing: billing_decisions"): "tests/schema/test_backup.py restores the table from a backup",
    ("last error", "was held"): DECISION,
    ("last run", "was failed"): "says itself that the next run charges what is due",
    ("last run", "No run has completed for"): "leads to the log; the daemon's start ends it",
    ("instances", "0 of 1 instances are billable"): DECISION,
    (
        "quarantine",
        "not billed: ",
    ): "leads to `quarantine`, which names the cure of each reason; tests/charging follows those",
    ("other billers", "the host application bills too"): "tests/hosts/test_two_billers.py stops the host",
    ("built-in billing", "both take over"): DECISION,
    ("other daemons", "Also alive"): DECISION,
}


def again(p: Patient) -> Found:
    """Everything that `doctor` says afterwards."""
    return p.examined()


def as_role(p: Patient) -> Found:
    """The same, said to the role that lacked something."""
    return p.examined(make_conninfo(p.conninfo, user=p.role, password=p.role))


def after_a_run(p: Patient) -> Found:
    """What was held is charged by the next run."""
    Fleet(p.conn, at=p.conn.execute("select billing_clock()").fetchone()[0]).bill()  # type: ignore[index]
    return p.examined()


def program(user: str) -> Callable[[Patient], Found]:
    """The program, looked at again."""
    account = {"nobody": NOBODY, "root": ME}[user]
    return lambda p: examine_executable(p.directory / "bin" / "billing", account, hardened=False)


FOLLOWED: dict[tuple[str, str], Callable[[Patient], Found]] = {
    ("schema", "Missing: "): lambda p: p.examined(p.empty),
    ("rights", "lacks rights"): as_role,
    ("migrations", "permission denied"): as_role,
    ("database", "refused the password"): as_role,
    ("database", "none was given"): as_role,
    ("recovery", "read-only by default"): again,
    ("migrations", "Triggers are disabled"): again,
    ("migrations", "Triggers are missing"): again,
    ("migrations", "Functions are missing"): again,
    ("migrations", "Functions are not those"): again,
    ("migrations", "is missing or invalid"): again,
    ("last run", "was held"): after_a_run,
    ("configuration", "mode 0644"): again,
    ("executable", "cannot pass through"): program("nobody"),
    ("executable", "may not execute"): program("root"),
    ("executable", "can be changed by"): program("root"),
    (".env of the unit", "Permission denied: "): lambda p: examine_env_file(p.directory / ".env", NOBODY),
}
STATEMENT = re.compile(r"(?:ALTER|CREATE|DROP|GRANT)\b.*;", re.MULTILINE)
OURS = re.compile(r"`?containerstacks-billing ((?:migrate|grants|release)\b[^`;\n]*)`?")
SHELL = re.compile(r"\b((?:chmod|chown) [^,\n]*?)(?=$|,|\.$| or )", re.MULTILINE)


def follow(hint: str, p: Patient, command: Command, conninfo: str) -> int:
    """Do what a hint says, the first of its alternatives; return how many things were done."""
    done = 0
    for statement in STATEMENT.findall(hint):
        p.conn.execute(statement.encode())
        done += 1
    if done:
        return done
    for line in OURS.findall(hint)[-1:]:
        words = [*shlex.split(line), *(["--yes"] if line.startswith("release") else [])]
        said = command(*words, environment={"DATABASE_URL": conninfo})
        assert 0 == said.returncode, said.stderr
        if line.startswith("grants"):
            p.conn.execute(said.stdout.encode())
        done += 1
    if not done:
        for line in SHELL.findall(hint):
            subprocess.run(["sh", "-c", line], check=True)
            done += 1
    return done


def found(findings: Found, check: str, words: str) -> list[Finding]:
    """The findings of a check with these words that are not green."""
    return [
        one for one in findings if one.check == check and words in one.message and one.level is not Level.OK
    ]


@pytest.fixture
def open_directory(patient: Patient) -> Iterator[Path]:
    """A directory that every user may enter, which those of pytest are not."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="containerstacks-hints-") as name:
        Path(name).chmod(0o755)
        patient.patch.chdir(name)
        yield Path(name)


@pytest.mark.parametrize(("check", "words"), FOLLOWED, ids=lambda text: str(text)[:30])
def test_what_a_hint_says_makes_the_finding_go_away(
    patient: Patient, command: Command, open_directory: Path, check: str, words: str
) -> None:
    """What stands below the finding is done to the letter, and the same look finds nothing of it any more."""
    patient.directory = open_directory
    conninfo = patient.empty if words == "Missing: " else patient.conninfo
    findings = found(CAUSES[check, words](patient), check, words)
    assert findings
    if check == "database":  # the hint is prose: write the right password into DATABASE_URL
        assert "DATABASE_URL" in str(findings[0].hint)
    else:
        assert follow(str(findings[0].hint), patient, command, conninfo) > 0, findings[0].hint
    assert [] == found(FOLLOWED[check, words](patient), check, words)


def test_every_situation_is_followed_here_or_says_where() -> None:
    """Those that doctor's table knows, no more and no less."""
    assert set(CAUSES) == set(FOLLOWED) | set(ELSEWHERE)
    assert set() == set(FOLLOWED) & set(ELSEWHERE)


@pytest.mark.parametrize(
    ("cause", "code"),
    [
        (("recovery", "read-only by default"), 1),
        (("configuration", "mode 0644"), 1),
        (("migrations", "Triggers are missing"), 1),
        (("last run", "was held"), 0),
        (("quarantine", "not billed: "), 0),
    ],
    ids=lambda text: str(text)[:40],
)
def test_doctor_exits_1_where_something_keeps_billing_from_working_and_0_for_a_warning(
    patient: Patient, command: Command, cause: tuple[str, str], code: int
) -> None:
    """The level of the finding is what scripts see as the exit code."""
    CAUSES[cause](patient)
    flags = [] if cause[0] == "configuration" else ["--database-url", patient.conninfo]
    assert code == command(*flags, "doctor").returncode


def test_doctor_says_the_same_from_every_directory(
    patient: Patient, command: Command, tmp_path: Path
) -> None:
    """A healthy installation is green wherever it is looked at; what stands in another directory is not its business."""
    failed = {}
    for place in (tmp_path, Path("/"), Path("/tmp")):
        patient.patch.chdir(place)
        failed[place] = [str(one) for one in patient.examined() if one.level is Level.FAIL]
    assert {tmp_path: [], Path("/"): [], Path("/tmp"): []} == failed
