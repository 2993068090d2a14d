"""Confirmation before money moves: an answer on a terminal, or --yes beforehand."""

from __future__ import annotations

import select
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from containerstacks_billing.errors import EXIT_FAILED, EXIT_INTERRUPTED


def require_confirmation(question: str, what: str, *, yes: bool, as_json: bool) -> None:
    """Require a yes: --yes or an answer on a terminal; ends the command otherwise.

    `what` names in the error what needs --yes. Without a terminal, or with --json, a missing --yes is a usage error.
    """
    if yes:
        return
    if as_json or not sys.stdin.isatty():
        raise click.BadParameter(f"{what} needs --yes here; --dry-run only shows it.")
    code = EXIT_FAILED
    try:
        if _is_yes(question):
            return
    except KeyboardInterrupt:
        print(file=sys.stderr)
        code = EXIT_INTERRUPTED
    print("Nothing was changed.", file=sys.stderr)
    raise click.exceptions.Exit(code)


def is_confirmed(question: str) -> bool:
    """Return the answer that is given on a terminal; without one it is no."""
    return sys.stdin.isatty() and _is_yes(question)


def _is_yes(question: str) -> bool:
    """Ask until the answer is yes or no; an empty line and Ctrl-D are no, Ctrl-C is a KeyboardInterrupt."""
    while True:
        print(f"{question} [y/N]: ", end="", file=sys.stderr, flush=True)
        line = _read_line()
        if not line.endswith("\n"):
            print(file=sys.stderr)
        answer = line.strip().lower()
        if answer in {"", "n", "no", "y", "yes"}:
            return answer in {"y", "yes"}
        print("Error: invalid input", file=sys.stderr)


def _read_line() -> str:
    """Read a line from standard input, "" at its end.

    input() alone can lose a Ctrl-C: one that arrives after the question was written and before the process is inside
    read(2) interrupts no system call, and its exception would have to wait for the next key.
    """
    with _readable_by_signals() as signals:
        while True:
            readable, _, _ = select.select([sys.stdin, signals], [], [])
            if sys.stdin in readable:
                return sys.stdin.readline()


@contextmanager
def _readable_by_signals() -> Iterator[socket.socket]:
    """Return a socket that every signal makes readable."""
    reading, writing = socket.socketpair()
    with reading, writing:
        writing.setblocking(False)
        before = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
        try:
            yield reading
        finally:
            signal.set_wakeup_fd(before)
