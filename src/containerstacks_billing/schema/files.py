"""Migration files: numbered SQL that psql can run alone, read here into steps.

A file is `NNN_name.sql`. It runs as one transaction, together with its record, unless its first line is
`-- no-transaction`. Then every line `-- step: title` begins a step that is sent by itself: either a transaction,
written out from `begin;` to `commit;`, or one statement that PostgreSQL refuses inside of one (`create index
concurrently`). Steps must be repeatable, because a migration that was killed between two of them starts again from
the first.

`previews/NNN_name.sql`, where there is one, is a query that returns sentences: what the migration would change and
lock in this database. It reads catalogs only, so that it works before the migrations in front of it have run.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable

_FILE_NAME = re.compile(r"(\d{3})_([a-z0-9_]+)\.sql")
_STEP = re.compile(r"^-- step: (.+)$", re.MULTILINE)
_TRANSACTION = re.compile(r"\s*(?:--[^\n]*\n\s*)*begin;(.*)commit;\s*", re.DOTALL)
NO_TRANSACTION = "-- no-transaction"


@dataclass(frozen=True, slots=True)
class Step:
    """A part of a migration that is sent by itself; `sql` comes without its begin and commit."""

    title: str
    sql: str
    in_transaction: bool


@dataclass(frozen=True, slots=True)
class MigrationFile:
    """A migration as delivered; the checksum is the SHA-256 of its text with line feeds alone as line ends."""

    version: int
    name: str
    checksum: str
    sql: str
    steps: tuple[Step, ...]
    preview: str | None

    @property
    def file_name(self) -> str:
        """The file's name, which is how people refer to it."""
        return f"{self.version:03}_{self.name}.sql"

    @property
    def is_one_transaction(self) -> bool:
        """Whether the migration and its record commit together."""
        return not self.steps


def delivered_migrations(directory: Traversable | None = None) -> tuple[MigrationFile, ...]:
    """Read the migrations that came with this version, or those of a directory, in the order of their numbers."""
    home = directory if directory is not None else files("containerstacks_billing.schema") / "tables"
    found = [_read(match, entry, home) for match, entry in _numbered(home.iterdir())]
    found.sort(key=lambda migration: migration.version)
    versions = [migration.version for migration in found]
    if len(set(versions)) != len(versions):
        raise ValueError(f"two migrations share a number: {versions}")
    return tuple(found)


def _numbered(entries: Iterable[Traversable]) -> Iterable[tuple[re.Match[str], Traversable]]:
    for entry in entries:
        match = _FILE_NAME.fullmatch(entry.name)
        if match:
            yield match, entry


def _read(match: re.Match[str], entry: Traversable, home: Traversable) -> MigrationFile:
    # A checkout with other line ends is the same migration, so it must have the same checksum.
    text = entry.read_bytes().decode("utf-8").replace("\r\n", "\n")
    preview = home / "previews" / entry.name
    return MigrationFile(
        version=int(match[1]),
        name=match[2],
        checksum=hashlib.sha256(text.encode()).hexdigest(),
        sql=text,
        steps=_steps(text) if text.startswith(NO_TRANSACTION) else (),
        preview=preview.read_text("utf-8") if preview.is_file() else None,
    )


def _steps(text: str) -> tuple[Step, ...]:
    _, *parts = _STEP.split(text)
    steps = []
    for title, body in zip(parts[::2], parts[1::2], strict=True):
        transaction = _TRANSACTION.fullmatch(body)
        steps.append(Step(title.strip(), transaction[1] if transaction else body, transaction is not None))
    return tuple(steps)
