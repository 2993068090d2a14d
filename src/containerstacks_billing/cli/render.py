"""Output: one JSON document for programs, tables and facts at 80 columns for people.

A terminal gets lines that fit it; a file or a pipe gets whole sentences, so that they can be searched.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, TextIO

from containerstacks_billing.document import Document
from containerstacks_billing.money import plain

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.table import Table
    from rich.text import Text

_WIDTH = 80
# Below this a table is written as one record per row: words and dates would be broken to fit.
_NARROW = 70
_LONGEST_WHOLE_CELL = 20
_NAME_CELLS = 11
_LONGEST_NAME = 22


def emit_json(document: object) -> None:
    """Write one JSON document on standard output; decimals become strings, instants ISO 8601 in UTC."""
    print(json.dumps(document, indent=2, default=_json_value))


def _json_value(value: object) -> object:
    from datetime import UTC, datetime

    if isinstance(value, Document):
        return value.as_json()
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

    is_terminal = stream.isatty()
    made = Console(
        file=stream,
        width=None if is_terminal else _WIDTH,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=False,
    )
    made.soft_wrap = not is_terminal
    return made


@dataclass(frozen=True)
class Listing:
    """A table that fits, or else one record for each of its rows."""

    table: Table
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    foldable_cells: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[object]:
        """Draw it for a console."""
        from rich.measure import Measurement

        cells = Measurement.get(console, options.update(width=10_000), self.table).maximum
        if options.no_wrap:
            yield from console.render(self.table, options.update(width=cells))
            return
        if options.max_width >= _NARROW:
            cells -= self.foldable_cells
        if cells <= options.max_width:
            yield self.table
            return
        for number, row in enumerate(self.rows):
            if number:
                yield ""
            yield facts(zip(self.headings, row, strict=True))


@dataclass(frozen=True)
class Facts:
    """Sentences, each behind what it begins with; a long one goes on below its beginning. No line ends in blanks."""

    pairs: Sequence[tuple[str, str]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        """Draw them for a console."""
        from rich.text import Text

        for begin, sentence in self.pairs:
            before, room = begin, max(options.max_width - len(begin), _NAME_CELLS)
            lines = (
                [Text(sentence)] if options.no_wrap else Text(sentence).wrap(console, room, overflow="fold")
            )
            for line in lines:
                yield Text(f"{before}{line.plain}".rstrip(), no_wrap=True, overflow="ignore")
                before = " " * len(begin)


def table(
    headings: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    right: Collection[str] = (),
) -> Listing:
    """Make a table; columns named in `right` are aligned right and never broken, as money has to be.

    Neither are those with short cells: a date or a number of an id in two pieces is none. Cells are plain text: markup
    in a label stays what it is, and control characters are shown escaped.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    cells = [[printable(cell) for cell in row] for row in rows]
    made = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    foldable_cells = 0
    for number, heading in enumerate(headings):
        is_right = heading in right
        longest = max((len(row[number]) for row in cells), default=0)
        is_whole = is_right or longest <= _LONGEST_WHOLE_CELL
        made.add_column(heading, justify="right" if is_right else "left", no_wrap=is_whole, overflow="fold")
        foldable_cells += 0 if is_whole else longest - _LONGEST_WHOLE_CELL
    for row in cells:
        made.add_row(*map(Text, row))
    return Listing(made, headings, cells, foldable_cells)


def facts(pairs: Iterable[tuple[str, object]]) -> Facts:
    """Make an indented list of names and sentences."""
    listed = [(name, printable(text)) for name, text in pairs]
    name_cells = max([_NAME_CELLS, *(len(name) for name, _ in listed)])
    return Facts([(f"  {name:<{name_cells}} ", text) for name, text in listed])


def indented(text: object, cells: int) -> Facts:
    """Make a sentence that stands so far from the left margin in all of its lines."""
    return Facts([(" " * cells, printable(text))])


def shortened(name: str) -> str:
    """Return a name as a table of several columns has room for it."""
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"


def printable(value: object) -> str:
    """Return a value as one line of text without control characters; None is a dash."""
    if value is None:
        return "-"
    text = plain(value) if isinstance(value, Decimal) else str(value)
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )
