"""What is written for people and for programs: one JSON document, or tables at 80 columns."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterable, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, TextIO

from containerstacks_billing.billing.money import plain

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_WIDTH = 80


def emit_json(document: object) -> None:
    """Write one JSON document on standard output; decimals become strings, instants ISO 8601 in UTC."""
    print(json.dumps(document, indent=2, default=_json_value))


def _json_value(value: object) -> str:
    from datetime import UTC, datetime

    if isinstance(value, Decimal):
        return plain(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return str(value)


def stdout() -> Console:
    """Return a console for data."""
    return _console(sys.stdout)


def stderr() -> Console:
    """Return a console for progress and remarks."""
    return _console(sys.stderr)


def _console(stream: TextIO) -> Console:
    from rich.console import Console

    return Console(
        file=stream,
        width=None if stream.isatty() else _WIDTH,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=False,
    )


def table(
    headings: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    right: Collection[str] = (),
    title: str | None = None,
) -> Table:
    """Make a table; columns named in `right` are aligned right and never broken, as money has to be.

    Cells are plain text: markup in a label stays what it is, and control characters are shown escaped.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for heading in headings:
        is_right = heading in right
        made.add_column(heading, justify="right" if is_right else "left", no_wrap=is_right, overflow="fold")
    for row in rows:
        made.add_row(*(Text(printable(cell)) for cell in row))
    return made


def facts(pairs: Iterable[tuple[str, object]]) -> Table:
    """Make an indented list of names and sentences; a long sentence goes on below its own beginning."""
    from rich.table import Table
    from rich.text import Text

    made = Table.grid(padding=(0, 1))
    made.add_column(width=1)
    made.add_column(min_width=11, no_wrap=True)
    made.add_column(overflow="fold")
    for name, text in pairs:
        made.add_row("", name, Text(printable(text)))
    return made


def printable(value: object) -> str:
    """Return a value as one line of text without control characters; None is a dash."""
    if value is None:
        return "-"
    text = plain(value) if isinstance(value, Decimal) else str(value)
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )
