"""SQL statements by name, loaded from the `*.sql` files that stand in the rooms beside the Python that binds them.

A file holds named queries, and parts that several of them share:

    -- name: lock_wallets
    -- A sentence that says what it does.
    select ...

    -- part: payers
    -- A common table expression, named as a state of the data.
    payer as (...)

    -- name: charge
    -- ...
    insert into ... with
    -- include: payers, tariffs

An include is replaced by the parts that it lists, separated by commas, from this file or any other.
Values are bound by the driver, as %(name)s; no value is ever formatted into a statement.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any, LiteralString, TypeVar, overload

from psycopg import Connection, Cursor
from psycopg.rows import BaseRowFactory, tuple_row

from containerstacks_billing.errors import InvariantBroken

Row = TypeVar("Row")

_HEADING = re.compile(r"^-- (name|part): (\w+)$", re.MULTILINE)
_INCLUDE = re.compile(r"^-- include: (.+)$", re.MULTILINE)


@cache
def _sections() -> dict[str, dict[str, str]]:
    sections: dict[str, dict[str, str]] = {"name": {}, "part": {}}
    for file in sorted(Path(str(files("containerstacks_billing"))).glob("*/*.sql")):
        pieces = _HEADING.split(file.read_text(encoding="utf-8"))[1:]
        for kind, name, body in zip(pieces[::3], pieces[1::3], pieces[2::3], strict=True):
            if name in sections[kind]:
                raise ValueError(f"{file.name}: a second {kind} called {name}")
            sections[kind][name] = body.strip()
    return sections


@cache
def query(name: str) -> LiteralString:
    """Return the text of the statement called `name` with its parts included; `KeyError` when there is none.

    Comments are removed: psycopg would read a percent sign in one as a placeholder.
    """
    sections = _sections()

    def parts(match: re.Match[str]) -> str:
        return ",\n".join(sections["part"][part.strip()] for part in match[1].split(","))

    text = _INCLUDE.sub(parts, sections["name"][name])
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("--"))
    return "\n".join(lines)


@overload
def ask(
    connection: Connection[Any], name: str, *, values: Mapping[str, object] = ...
) -> Cursor[tuple[Any, ...]]: ...


@overload
def ask(
    connection: Connection[Any], name: str, rows: BaseRowFactory[Row], values: Mapping[str, object] = ...
) -> Cursor[Row]: ...


def ask(
    connection: Connection[Any],
    name: str,
    rows: BaseRowFactory[Any] = tuple_row,
    values: Mapping[str, object] = MappingProxyType({}),
) -> Cursor[Any]:
    """Execute the statement called `name` and return the cursor; each row is made by the row factory `rows`."""
    return connection.cursor(row_factory=rows).execute(query(name), values)


def one_row(
    connection: Connection[Any],
    name: str,
    rows: BaseRowFactory[Any] = tuple_row,
    values: Mapping[str, object] = MappingProxyType({}),
) -> Any:
    """Return the first row of the statement called `name`; raises InvariantBroken where it returns none."""
    row = ask(connection, name, rows, values).fetchone()
    if row is None:
        raise InvariantBroken(f"the statement {name} returned nothing")
    return row
