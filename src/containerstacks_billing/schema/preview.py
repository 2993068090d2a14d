"""What a schema file would create and lock in one database: sentences for `migrate --dry-run`.

A file says it in comments, one sentence a line:

    -- creates: billing_runs, billing_leases
        the tables among these that are not there yet
    -- locks: {wallets} is locked for about {read payment_transactions} s.
        {table}        its name and size
        {read table}   seconds to read it at 200 MB/s
        {index table}  seconds to build an index over it: two reads, and 500,000 entries a second
        {write table}  seconds to update each of its rows at 50,000 a second
        A line is left out as long as one of its tables does not exist, since nothing is locked then.

Sizes are read from the catalog, so the answer is instant and the durations are estimates.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

from containerstacks_billing.database.connection import Connection
from containerstacks_billing.schema.files import BASELINE, SchemaFile

_PLACE = re.compile(r"\{(?:(read|index|write) )?(\w+)\}")
_BYTES_READ = 200_000_000
_ENTRIES_BUILT = 500_000
_ROWS_WRITTEN = 50_000


@dataclass(frozen=True, slots=True)
class TableSize:
    """A table's size by the catalog; `text` is `bytes` for people."""

    bytes: int
    rows: int
    text: str


def read_sizes(connection: Connection) -> dict[str, TableSize]:
    """Return the size of every table in the schema public."""
    rows = connection.execute(_statement("sizes")).fetchall()
    return {name: TableSize(*size) for name, *size in rows}


def effects(connection: Connection, file: SchemaFile, sizes: Mapping[str, TableSize]) -> tuple[str, ...]:
    """Return what a file would do to this database, one sentence each; nothing is changed."""
    sentences = [_sentence(kind, text, sizes) for kind, text in file.previews]
    if file.version == BASELINE:
        # Foreign keys, indexes and views of the host, by the names that they have here.
        sentences += [row[0] for row in connection.execute(_statement("adoption"))]
    return tuple(sentence for sentence in sentences if sentence)


def _statement(name: str) -> bytes:
    return (files("containerstacks_billing.schema") / "preview" / f"{name}.sql").read_bytes()


def _sentence(kind: str, text: str, sizes: Mapping[str, TableSize]) -> str:
    if kind == "creates":
        missing = [name for name in text.split(", ") if name not in sizes]
        return f"Creates {', '.join(missing)}: nothing is locked." if missing else ""
    if any(table not in sizes for _, table in _PLACE.findall(text)):
        return ""
    return _PLACE.sub(lambda place: _filled(place[1], place[2], sizes[place[2]]), text)


def _filled(work: str | None, name: str, size: TableSize) -> str:
    if work == "read":
        return str(1 + size.bytes // _BYTES_READ)
    if work == "index":
        return str(1 + 2 * size.bytes // _BYTES_READ + size.rows // _ENTRIES_BUILT)
    if work == "write":
        return str(1 + size.rows // _ROWS_WRITTEN)
    return f"{name} (about {size.rows} rows, {size.text})"
