"""The frame of the command: help, options, and how every error ends."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

import psycopg
import pytest
import typer
from typer.testing import CliRunner

from containerstacks_billing import __version__
from containerstacks_billing.billing import errors
from containerstacks_billing.process.cli.application import Verbs, app

Command = Callable[..., "subprocess.CompletedProcess[str]"]
SECRET = "canary-5d1c6a"


def ending(error: BaseException) -> tuple[int, str]:
    """Run a verb that raises the error in the frame of the command; return exit code and standard error."""
    frame = typer.Typer(cls=Verbs, rich_markup_mode=None, pretty_exceptions_enable=False)

    @frame.callback()
    def options() -> None:
        """Nothing."""

    @frame.command()
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


def test_an_interrupt_ends_with_130() -> None:
    """As a shell expects after Ctrl-C."""
    assert ending(KeyboardInterrupt()) == (130, "")


def test_version_and_help(command: Command) -> None:
    """The first two things that anybody types."""
    assert command("--version").stdout == f"containerstacks-billing {__version__}\n"
    shown = command("--help")
    assert shown.returncode == 0
    assert "Exit codes:" in shown.stdout
    assert max(len(line) for line in shown.stdout.splitlines()) <= 80


def test_every_help_text_fits_and_is_plain_ascii() -> None:
    """Each verb's help reads well on any terminal, 80 columns wide."""

    def helps(command: object, path: list[str]) -> None:
        outcome = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "80", "TERM": "dumb"})
        assert outcome.exit_code == 0, path
        assert outcome.stdout.isascii(), path
        assert max(len(line) for line in outcome.stdout.splitlines()) <= 80, path
        for name, child in getattr(command, "commands", {}).items():
            helps(child, [*path, name])

    helps(typer.main.get_command(app), [])


def test_help_appears_at_once(command: Command) -> None:
    """Heavy modules are imported by the verbs that need them; generous, as machines are busy."""
    took = []
    for _ in range(3):
        began = time.monotonic()
        command("--help")
        took.append(time.monotonic() - began)
    assert min(took) < 1


def test_usage_errors_exit_2_and_are_redacted(command: Command) -> None:
    """A connection string in the wrong place is not repeated."""
    for arguments in (["nonsense"], ["doctor", "--nonsense"], ["doctor", f"postgresql://u:{SECRET}@h/d"]):
        outcome = command(*arguments)
        assert outcome.returncode == 2
        assert SECRET not in outcome.stderr


def test_global_options_may_follow_the_verb(command: Command) -> None:
    """Most people write them there."""
    for arguments in (["--log-level", "x", "config", "show"], ["config", "show", "--log-level=x"]):
        outcome = command(*arguments)
        assert outcome.returncode == 78
        assert "LOG_LEVEL (--log-level) must be one of debug, info, warning, error" in outcome.stderr


def test_completion_can_be_shown(command: Command) -> None:
    """Shell completion is on."""
    outcome = command(
        "--show-completion",
        environment={"SHELL": "/bin/bash", "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
    )
    assert "--show-completion" in command("--help").stdout
    assert outcome.returncode in {0, 2}
