"""The frame of the command: help, options, and how every error ends."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner

from containerstacks_billing import __version__, errors
from containerstacks_billing.cli.main import Verbs, app

Command = Callable[..., "subprocess.CompletedProcess[str]"]
SECRET = "canary-5d1c6a"


def ending(error: BaseException) -> tuple[int, str]:
    """Run a verb that raises the error in the frame of the command; return exit code and standard error."""
    frame = Verbs("frame")

    @frame.command("verb")
    def verb() -> None:
        raise error

    outcome = CliRunner().invoke(frame, ["verb"])
    return outcome.exit_code, outcome.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ConfigurationError, 78),
        (errors.SchemaMismatch, 78),
        (errors.RightsMissing, 78),
        (errors.DatabaseUnavailable, 75),
        (errors.LoginRefused, 75),
        (errors.LeaseNotObtained, 75),
        (errors.LeaseLost, 1),
        (errors.OutcomeUnknown, 1),
        (errors.InvariantBroken, 1),
        (errors.WorkFailed, 1),
    ],
)
def test_every_error_ends_in_a_sentence_a_hint_and_its_code(
    error: type[errors.BillingError], code: int
) -> None:
    """Scripts read the code, people read the rest."""
    assert ending(error("It is wrong.", hint="Do this.\nThen that.")) == (
        code,
        "error: It is wrong.\nhint: Do this.\n      Then that.\n",
    )


def test_an_error_that_nobody_foresaw_shows_no_secret_and_no_traceback() -> None:
    """Local variables in a traceback would hold connection strings."""
    code, text = ending(ZeroDivisionError(f"postgresql://u:{SECRET}@h/d"))
    assert code == 1
    assert "ZeroDivisionError" in text
    assert SECRET not in text
    assert "Traceback" not in text


def test_an_error_of_the_driver_is_put_into_our_words() -> None:
    """Also where a verb forgot to."""
    code, text = ending(psycopg.OperationalError(f"connection failed: password={SECRET} Connection refused"))
    assert (code, text.startswith("error: The database refuses connections"), SECRET in text) == (
        75,
        True,
        False,
    )


def test_a_hint_shows_what_to_write(command: Command) -> None:
    """What it says is an example and no secret, so nothing of it is taken out."""
    missing = command("daemon").stderr
    malformed = command("status", environment={"DATABASE_URL": f"postgresql://u:{SECRET}@h:x/d"}).stderr
    refused = command("status", environment={"DATABASE_URL": SECRET}).stderr

    assert "DATABASE_URL=postgresql://user:password@localhost:5432/containerstacks" in missing
    assert "hint: Write postgresql://user:password@host:5432/database with special" in malformed
    assert "must be postgresql://user:password@host:port/database, or key=value" in refused
    assert SECRET not in malformed + refused


@pytest.mark.parametrize(
    ("arguments", "environment", "file", "said", "hint"),
    [
        (
            ["daemon", "--interval", "0"],
            {},
            "",
            "BILLING_INTERVAL_MINUTES (--interval) must be a whole number from 1 to 1440 (minutes).",
            "Correct --interval, or leave it out to use the default.",
        ),
        (
            ["status"],
            {"BILLING_INTERVAL_MINUTES": "0"},
            "",
            "BILLING_INTERVAL_MINUTES (environment) must be",
            "Correct BILLING_INTERVAL_MINUTES, or unset it to use the default.",
        ),
        (
            ["status"],
            {},
            "BILLING_INTERVAL_MINUTES=0\n",
            ".env, line 1) must be",
            "Correct BILLING_INTERVAL_MINUTES, or remove the line to use the default.",
        ),
    ],
)
def test_a_refused_setting_is_corrected_where_it_came_from(
    command: Command,
    tmp_path: Path,
    arguments: list[str],
    environment: dict[str, str],
    file: str,
    said: str,
    hint: str,
) -> None:
    """A flag is called as it is written, and there is no line to remove where there is no file."""
    (tmp_path / ".env").write_text(file)
    (tmp_path / ".env").chmod(0o600)
    refused = command(*arguments, environment=environment)

    assert 78 == refused.returncode
    assert said in refused.stderr
    assert hint in refused.stderr.splitlines()[-1]


@pytest.mark.parametrize("service", ["daemon", "serve"])
def test_a_service_that_cannot_start_says_so_as_an_event(command: Command, service: str) -> None:
    """With its hint, in the form and with the priority that its reader knows, though no setting could be used."""
    wrong = {"BILLING_INTERVAL_MINUTES": "soon"}
    event = "BILLING_INTERVAL_MINUTES (environment) must be a whole number from 1 to 1440 (minutes)."
    journal = command(service, environment={**wrong, "JOURNAL_STREAM": "8:1"})
    assert (78, 1) == (journal.returncode, len(journal.stderr.splitlines()))
    assert journal.stderr.startswith(f'<3>level=error event="{event}" hint="Correct BILLING_INTERVAL_MINUTES')
    collected = json.loads(command(service, environment={**wrong, "LOG_FORMAT": "json"}).stderr)
    assert ("error", event, 78) == (collected["level"], collected["event"], collected["exit"])
    assert collected["hint"].startswith("Correct BILLING_INTERVAL_MINUTES")
    assert f'level=error event="{event}"' in command(service, environment=wrong).stderr


def test_a_service_at_a_terminal_speaks_to_people(tmp_path: Path) -> None:
    """A daemon that is tried by hand ends like every other verb."""
    here, there = os.openpty()
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "BILLING_INTERVAL_MINUTES": "soon"}
    subprocess.run(
        [sys.executable, "-m", "containerstacks_billing", "daemon"],
        cwd=tmp_path, env=environment, stderr=there, timeout=180, check=False,
    )  # fmt: skip
    os.close(there)
    with os.fdopen(here, "rb") as terminal:
        said = terminal.read1().decode()
    assert said.startswith("error: BILLING_INTERVAL_MINUTES")
    assert "\nhint: " in said


def test_an_interrupt_ends_with_130() -> None:
    """As a shell expects after Ctrl-C."""
    assert ending(KeyboardInterrupt()) == (130, "")


def test_version_and_help(command: Command) -> None:
    """The first two commands of a new user."""
    assert command("--version").stdout == f"containerstacks-billing {__version__}\n"
    shown = command("--help")
    assert shown.returncode == 0
    assert "Exit codes:" in shown.stdout
    assert max(len(line) for line in shown.stdout.splitlines()) <= 80


def test_every_help_text_fits_and_is_plain_ascii() -> None:
    """Each verb's help reads well on any terminal, 80 columns wide, and shows an example; no list of verbs is cut."""

    def helps(command: object, path: list[str]) -> None:
        outcome = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "80", "TERM": "dumb"})
        assert outcome.exit_code == 0, path
        assert outcome.stdout.isascii(), path
        assert max(len(line) for line in outcome.stdout.splitlines()) <= 80, path
        assert re.search(r"\n +Examples.*:\n +(sudo )?containerstacks-billing ", outcome.stdout), path
        assert re.search(
            r"containerstacks-billing [^\n]*" + " ".join(path), outcome.stdout.partition("Examples")[2]
        ), path
        assert "..." not in outcome.stdout.partition("Commands:")[2], path
        assert not re.search(r"[{}]|\[\[|<[a-z]", outcome.stdout.partition("Examples")[0]), outcome.stdout
        assert '[default: "' not in outcome.stdout, outcome.stdout
        summary = str(getattr(command, "help", "")).split("\n\n")[0]
        assert len(" ".join(summary.split())) <= 60 or not path, path
        for name, child in getattr(command, "commands", {}).items():
            helps(child, [*path, name])

    helps(app, [])


def test_help_appears_at_once(command: Command) -> None:
    """Heavy modules are imported by the verbs that need them, and by no help text."""
    imported = command("--help", environment={"PYTHONPROFILEIMPORTTIME": "1"})
    names = {line.rpartition("|")[2].strip() for line in imported.stderr.splitlines()}

    assert (0, True) == (imported.returncode, "containerstacks_billing" in names)
    assert set() == names & {"fastapi", "jinja2", "psycopg", "pydantic", "rich", "structlog", "uvicorn"}


def test_usage_errors_exit_2_and_are_redacted(command: Command) -> None:
    """A connection string in the wrong place is not repeated."""
    url = f"postgresql://u:{SECRET}@h/d"
    for arguments in (["nonsense"], ["doctor", "--nonsense"], ["doctor", url], [f"--{url}"], [url]):
        outcome = command(*arguments)
        assert 2 == outcome.returncode
        assert outcome.stderr.startswith("Usage: containerstacks-billing")
        assert SECRET not in outcome.stderr


def test_a_value_that_is_no_number_or_id_is_refused_in_plain_words(command: Command) -> None:
    """What it has to be, and not how a parser failed."""
    for arguments, words in (
        (["run", "--organization", "xyz"], "'--organization': 'xyz' is no id of an organization."),
        (["verify", "--organization", "xyz"], "'xyz' is no id of an organization."),
        (["events", "--organization", "xyz"], "'xyz' is no id of an organization."),
        (["events", "retry", "xyz"], "'[NO.]': it has to be a whole number, like 5"),
        (["runs", "--limit", "xyz"], "'--limit': it has to be a whole number from 1 to 10,000"),
        (["runs", "--limit", "0"], "'--limit': it has to be a whole number from 1 to 10,000"),
        (["run", "--wait", "xyz"], "'--wait': it has to be a number of at least 0"),
        (["run", "--wait", "inf"], "'--wait': it has to be a number of at least 0"),
        (["prices", "set", "x", "--base", "1e3", "--markup", "1"], "'--base': '1e3' is no amount"),
    ):
        refused = command(*arguments)
        assert 2 == refused.returncode
        assert words in refused.stderr


def test_global_options_may_follow_the_verb(command: Command) -> None:
    """Most people write them there."""
    for arguments in (
        ["--log-level", "x", "config", "show"],
        ["config", "--log-level", "x", "show"],
        ["config", "show", "--log-level=x"],
        ["--log-level", "info", "config", "show", "--log-level", "x"],
    ):
        outcome = command(*arguments)
        assert 78 == outcome.returncode
        assert "LOG_LEVEL (--log-level) must be one of debug, info, warning, error" in outcome.stderr


def test_completion_can_be_shown(command: Command) -> None:
    """The script of the shell in $SHELL, where the command was not started from a shell."""
    shown = command("--show-completion", environment={"SHELL": "/usr/bin/fish"})
    assert (0, True) == (
        shown.returncode,
        "complete --no-files --command containerstacks-billing" in shown.stdout,
    )
    refused = command("--show-completion", environment={"SHELL": "/usr/bin/tcsh"})
    assert (2, "") == (refused.returncode, refused.stdout)
    assert "completion is available for bash, zsh and fish" in refused.stderr
