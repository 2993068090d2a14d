"""Agreement before money moves: somebody answers on a terminal, or has said --yes beforehand."""

from __future__ import annotations

import sys

import typer

from containerstacks_billing.errors import EXIT_FAILED, EXIT_INTERRUPTED


def require_confirmation(question: str, what: str, *, yes: bool, as_json: bool) -> None:
    """Return once it is agreed; ends the command where it is not, and where nobody can answer.

    `what` is what --yes would let happen without a question.
    """
    if yes:
        return
    if as_json or not sys.stdin.isatty():
        raise typer.BadParameter(f"{what} needs --yes here; --dry-run only shows it.")
    code = EXIT_FAILED
    try:
        if typer.confirm(question, err=True):
            return
    except typer.Abort as abort:
        # Ctrl-D is an answer, Ctrl-C is not.
        print(file=sys.stderr)
        if isinstance(abort.__context__, KeyboardInterrupt):
            code = EXIT_INTERRUPTED
    print("Nothing was changed.", file=sys.stderr)
    raise typer.Exit(code)
