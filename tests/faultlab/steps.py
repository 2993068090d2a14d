"""Every statement that the product sends, as a step that can be counted, and stopped at.

Within `watched(tell)` connections of the product tell of each exchange with the server three times: before the request
is sent, when it is sent and not answered, and after the answer. Nothing here knows which statements there are: a new
one is watched by itself, under its name in queries/*.sql or its first words.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

import psycopg
from psycopg import sql
from psycopg.waiting import Wait

from containerstacks_billing.database import statements as queries


class Moment(StrEnum):
    """Where within an exchange."""

    BEFORE = "before"
    DURING = "during"
    AFTER = "after"


Tell = Callable[[str, Moment], None]


_connect, _wait = psycopg.Connection.connect.__func__, psycopg.Connection.wait  # type: ignore[attr-defined]


@contextmanager
def watched(tell: Tell) -> Iterator[None]:
    """Report the exchanges of all connections of this process, each in the thread that makes it."""

    def connect(cls: Any, *arguments: Any, **named: Any) -> Any:
        tell("connect", Moment.BEFORE)
        connection = _connect(cls, *arguments, **named)
        tell("connect", Moment.AFTER)
        return connection

    def wait(self: Any, gen: Any, *arguments: Any, **named: Any) -> Any:
        name = _name(self, gen)
        if name is None:
            return _wait(self, gen, *arguments, **named)
        tell(name, Moment.BEFORE)
        result = _wait(self, _sent(gen, lambda: tell(name, Moment.DURING)), *arguments, **named)
        tell(name, Moment.AFTER)
        return result

    patched: Any = psycopg.Connection
    patched.connect, patched.wait = classmethod(connect), wait
    try:
        yield
    finally:
        patched.connect, patched.wait = classmethod(_connect), _wait


def _sent(gen: Any, tell: Callable[[], None]) -> Generator[Any, Any, Any]:
    """Report when the driver begins to wait for the answer: the kernel has the whole request then."""
    told = False
    ready: Any = None
    try:
        while True:
            wanted = gen.send(ready)
            if not told and wanted == Wait.R:
                told = True
                tell()
            ready = yield wanted
    except StopIteration as end:
        return end.value


def _name(connection: Any, gen: Any) -> str | None:
    """Name the exchange that a generator of the driver is about to make; None for those that make none."""
    here = gen.gi_frame.f_locals
    match gen.gi_code.co_name:
        case "_execute_gen":
            connection.latest_statement = _named(here["query"])
            return str(connection.latest_statement)
        case "_enter_gen":
            return "begin"
        case "_exit_gen":
            latest = getattr(connection, "latest_statement", "nothing")
            return f"{'rollback' if here['exc_val'] else 'commit'} after {latest}"
    return None


def _named(text: Any) -> str:
    text = text.as_string() if isinstance(text, sql.Composable) else str(text)
    first_words = " ".join(line for line in text.splitlines() if not line.lstrip().startswith("--"))
    return _names().get(text) or " ".join(first_words.split())[:60]


_known: dict[str, str] = {}


def _names() -> dict[str, str]:
    if not _known:
        _known.update({queries.query(name): name for name in queries._sections()["name"]})
    return _known
