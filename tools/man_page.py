"""Write the man page out of the command's own help and the settings' descriptions, so that it cannot say anything else.

    python -m tools.man_page            write docs/man/containerstacks-billing.1
    python -m tools.man_page --check    exit 1 when that is not what the command says today

It uses the macros of man(7) only, which every reader of man pages knows.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from containerstacks_billing import __version__
from containerstacks_billing.cli import app
from containerstacks_billing.settings import KEYS, accepted, default_text, describe

PAGE = Path(__file__).resolve().parent.parent / "docs" / "man" / "containerstacks-billing.1"
NAME = "containerstacks-billing"

_EXIT_CODES = (
    ("0", "Done, also when instances are past due or quarantined."),
    ("1", "The work failed or is held, or verify found a discrepancy."),
    ("2", "Usage: the command line is wrong."),
    ("75", "The database is not reachable, refused the login, or another biller holds the lease: try again."),
    ("78", "The configuration or the schema is wrong: trying again changes nothing."),
    ("130, 143", "Interrupted by SIGINT or SIGTERM."),
)
_FILES = (
    (
        "./.env",
        "The host application's settings, read where the command is started, or the file of --env-file.",
    ),
    ("$CREDENTIALS_DIRECTORY", "Credentials of systemd, each in a file named after its key."),
    (
        "~/.local/state/containerstacks-billing",
        "The embedded PostgreSQL of up; $CONTAINERSTACKS_BILLING_STATE names another place.",
    ),
    ("/etc/systemd/system/containerstacks-billing.service", "The unit that service install writes."),
)


def escaped(text: str) -> str:
    """Make text literal: no escape, no hyphen that is typeset as another sign, no request at the start of a line."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    text = text.replace("…", "...").replace("–", "\\-")
    return "\n".join(f"\\&{line}" if line.startswith((".", "\\(aq")) else line for line in text.split("\n"))


def page() -> str:
    """Return the page."""
    group: Any = app
    context = click.Context(app, info_name=NAME, **app.context_settings)
    lines = [
        f'.TH CONTAINERSTACKS\\-BILLING 1 "" "{NAME} {__version__}" "ContainerStacks Billing"',
        ".SH NAME",
        f"{escaped(NAME)} \\- charge every VPS instance for its hours, exactly once",
        ".SH SYNOPSIS",
        f".B {escaped(NAME)}",
        ".RI [ options ]",
        ".I command",
        ".RI [ arguments ]",
        ".SH DESCRIPTION",
        *_paragraphs(group.help),
        ".PP",
        escaped("Data goes to standard output, progress and logs to standard error."),
        escaped("Verbs that read accept --json and write one document."),
        ".SH OPTIONS",
        *_options(group, context),
        ".SH COMMANDS",
    ]
    for path, command, inner in _commands(group, context):
        lines += [f".SS {escaped(' '.join(path))}", *_paragraphs(command.help or "")]
        if any(one.param_type_name == "argument" for one in command.params):
            _, *arguments = command.collect_usage_pieces(inner)
            lines += [".PP", "Arguments: " + escaped(" ".join(arguments))]
        lines += _options(command, inner)
        lines += _examples(command.epilog or "")
    lines.append(".SH ENVIRONMENT")
    lines.append(escaped("A flag wins over the environment, that over .env, that over a credential file."))
    for key in KEYS:
        default = default_text(key)
        text = f"{describe(key)}: {accepted(key)}." + (f" Default: {default}." if default is not None else "")
        # A list without blanks could not be broken into lines.
        lines += [".TP", f".B {escaped(key)}", re.sub(r",(?=\S)", ", ", escaped(text))]
    for title, rows in (("EXIT STATUS", _EXIT_CODES), ("FILES", _FILES)):
        lines.append(f".SH {title}")
        for term, text in rows:
            lines += [".TP", f".B {escaped(term)}", escaped(text)]
    lines += [
        ".SH SHELL COMPLETION",
        escaped(f"{NAME} --install-completion sets it up for the shell it is run in."),
    ]
    lines += [".SH SEE ALSO", ".BR systemctl (1),", ".BR journalctl (1),", ".BR psql (1)"]
    return "\n".join(lines) + "\n"


def _commands(
    group: Any, context: Any, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    """Yield every verb with those below it, in the order of the help."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        inner = type(context)(command, info_name=name, parent=context)
        yield (*path, name), command, inner
        if hasattr(command, "list_commands"):
            yield from _commands(command, inner, (*path, name))


def _options(command: Any, context: Any) -> list[str]:
    lines = []
    for parameter in command.params:
        record = parameter.get_help_record(context) if parameter.param_type_name == "option" else None
        if record is not None and parameter.name != "help":
            lines += [
                ".TP",
                f".B {escaped(_plain(record[0]))}",
                escaped(_plain(record[1]) or "No description."),
            ]
    return lines


def _paragraphs(text: str) -> list[str]:
    """Let each paragraph of a help text be one of the page."""
    parts = [part for part in re.split(r"\n\s*\n", text.strip()) if part.strip()]
    lines: list[str] = []
    for number, part in enumerate(parts):
        lines += ([".PP"] if number else []) + [escaped(_plain(part))]
    return lines


def _examples(text: str) -> list[str]:
    """Show what stands behind the options as it stands there."""
    lines: list[str] = []
    for part in re.split(r"^\s*\b\s*$|\x08", text, flags=re.MULTILINE):
        if part.strip():
            lines += [".PP", ".in 2", ".nf", escaped(part.strip("\n").rstrip()), ".fi", ".in"]
    return lines


def _plain(text: str) -> str:
    return " ".join(text.replace("\x08", " ").split())


def main() -> int:
    """Write the page, or compare it."""
    text = page()
    if "--check" in sys.argv[1:]:
        return int(not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text)
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
