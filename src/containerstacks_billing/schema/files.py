r"""Schema files: SQL that psql can run alone, read here into steps.

`tables/NNN_name.sql` are migrations: numbered, applied once and in order. `code/name.sql` are repeatable: functions and
triggers, applied again whenever their text has changed.

A file runs as one transaction, together with its record, unless its first line is `-- no-transaction`. Then every line
`-- step: title` begins a step that is sent by itself: either a transaction, written out from `begin;` to `commit;`, or
one statement that PostgreSQL refuses inside of one (`create index concurrently`). Steps must be repeatable, because a
migration that was killed between two of them starts again from the first.

`\ir ../code/name.sql` on a line of its own includes another file, as it does in psql. `-- creates:` and `-- locks:`
lines are what `migrate --dry-run` shows (preview.py).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

_FILE_NAME = re.compile(r"(\d{3})_([a-z0-9_]+)\.sql")
_STEP = re.compile(r"^-- step: (.+)$", re.MULTILINE)
_TRANSACTION = re.compile(r"\s*(?:--[^\n]*\n\s*)*begin;(.*)commit;\s*", re.DOTALL)
_INCLUDE = re.compile(r"^\\ir \.\./code/(\w+\.sql)$", re.MULTILINE)
_PREVIEW = re.compile(r"^-- (creates|locks): (.+)$", re.MULTILINE)
NO_TRANSACTION = "-- no-transaction"
BASELINE = 1

# In the order in which one needs the other.
CODE = ("derived", "instance_edits", "functions", "admission", "wallet_opening", "triggers", "rights")


@dataclass(frozen=True, slots=True)
class Step:
    """A part of a file that is sent by itself; `sql` comes without its begin and commit."""

    title: str
    sql: str
    in_transaction: bool


@dataclass(frozen=True, slots=True)
class SchemaFile:
    """A file as delivered. The checksum is the SHA-256 of its text with line feeds alone as line ends.

    `version` is the number of a migration and 0 for a repeatable file, whose `name` begins with `code/`.
    """

    version: int
    name: str
    checksum: str
    sql: str
    steps: tuple[Step, ...]
    previews: tuple[tuple[str, str], ...]

    @property
    def file_name(self) -> str:
        """The file's name, which is how people refer to it."""
        return f"{self.version:03}_{self.name}.sql" if self.version else f"{self.name}.sql"

    @property
    def is_one_transaction(self) -> bool:
        """Whether the file and its record commit together."""
        return not self.steps


@dataclass(frozen=True, slots=True)
class DeliveredSchema:
    """The schema of this version: its migrations by number, and its repeatable files in their order."""

    tables: tuple[SchemaFile, ...]
    code: tuple[SchemaFile, ...]

    @property
    def files(self) -> tuple[SchemaFile, ...]:
        """Every file, in the order in which an empty database gets them."""
        return self.tables + self.code


@cache
def delivered_schema(directory: Traversable | None = None) -> DeliveredSchema:
    """Read the files that came with this version, or those of a directory; ValueError when two share a number."""
    home = directory if directory is not None else files("containerstacks_billing.schema")
    tables = sorted(_numbered(home), key=lambda file: file.version)
    versions = [file.version for file in tables]
    if len(set(versions)) != len(versions):
        raise ValueError(f"two migrations share a number: {versions}")
    code = tuple(_read(home, 0, f"code/{name}", home / "code" / f"{name}.sql") for name in CODE)
    return DeliveredSchema(tuple(tables), code)


def _numbered(home: Traversable) -> Iterator[SchemaFile]:
    for entry in (home / "tables").iterdir():
        if match := _FILE_NAME.fullmatch(entry.name):
            yield _read(home, int(match[1]), match[2], entry)


def _read(home: Traversable, version: int, name: str, entry: Traversable) -> SchemaFile:
    text = _text(entry)
    sql = _INCLUDE.sub(lambda include: _text(home / "code" / include[1]), text)
    return SchemaFile(
        version=version,
        name=name,
        # Of the file's own text: what it includes is repeatable and has a checksum of its own.
        checksum=hashlib.sha256(text.encode()).hexdigest(),
        sql=sql,
        steps=_steps(sql) if text.startswith(NO_TRANSACTION) else (),
        previews=tuple((kind, sentence) for kind, sentence in _PREVIEW.findall(text)),
    )


def _text(entry: Traversable) -> str:
    # A checkout with other line ends is the same file, so it must have the same checksum.
    return entry.read_bytes().decode("utf-8").replace("\r\n", "\n")


def _steps(text: str) -> tuple[Step, ...]:
    _, *parts = _STEP.split(text)
    steps = []
    for title, body in zip(parts[::2], parts[1::2], strict=True):
        transaction = _TRANSACTION.fullmatch(body)
        steps.append(Step(title.strip(), transaction[1] if transaction else body, transaction is not None))
    return tuple(steps)
