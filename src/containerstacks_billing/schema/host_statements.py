"""Trial of the host's statements before its tables are adopted.

A trigger of the host that copies whole rows by position (`insert into history select old.*`) fails as soon as its table
has more columns, and with it every statement of the host that fires it. So the columns of billing are added in a
transaction that is rolled back, and in it the statements that every host makes are tried with its own triggers: insert,
update and delete of instances, movements of wallets, changes of plans, rows of its ledger. What fails only with the new
columns is refused before anything is changed. The tables are locked for as long as that takes, milliseconds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import psycopg
from psycopg import errors, sql

from containerstacks_billing.database.connection import Connection
from containerstacks_billing.errors import SchemaMismatch
from containerstacks_billing.schema.history import statement

_PART = re.compile(r"^-- (columns|triggers|seed|\w+: .+)$", re.MULTILINE)
_FUNCTION = re.compile(r"function (?:\w+\.)?\"?([^\"(]+)\"?\(")
# Another session holds a lock: tried again, and no fault of a statement.
_BUSY = (errors.LockNotAvailable, errors.DeadlockDetected, psycopg.OperationalError)


@dataclass(frozen=True, slots=True)
class BrokenStatement:
    """A statement of the host that fails once its table has the columns of billing."""

    what: str
    table: str
    error: str
    function: str | None
    trigger: str | None


def broken_statements(connection: Connection, *, lock_timeout: str = "2s") -> SchemaMismatch | None:
    """Return why the host's statements would fail after adoption, with what to do; None where none would.

    Everything is rolled back. Raises LockNotAvailable where a table is in use.
    """
    added = connection.execute(_parts()["columns"].encode()).fetchall()
    if not added:
        return None
    with connection.transaction(force_rollback=True):
        connection.execute(statement("bounds"), {"lock_timeout": lock_timeout})
        if connection.execute("select to_regclass('vps_instances') is not null").fetchone() == (True,):
            found = connection.execute("select exists (select from vps_instances)").fetchone()
            if found == (False,):
                _failure(connection, _parts()["seed"], keep=True)
        before = _failures(connection)
        for table, column in added:
            # A type is only kept as such where statements would compare it. Another migrator may be adding it.
            connection.execute(
                sql.SQL("alter table {} add column if not exists {} text").format(
                    sql.Identifier(table), sql.Identifier(column)
                )
                if column != "last_billed_at"
                else sql.SQL("alter table vps_instances add column if not exists last_billed_at timestamptz")
            )
        # A session keeps the plans that trigger functions had before; new sessions of the host have none.
        connection.execute("discard plans")
        broken = [
            _described(connection, what, error)
            for what, error in _failures(connection).items()
            if what not in before
        ]
    return _problem(broken) if broken else None


def _failures(connection: Connection) -> dict[str, psycopg.Error]:
    """Return which of the host's statements fail now."""
    tried = {what: text for what, text in _parts().items() if ": " in what}
    return {what: error for what, text in tried.items() if (error := _failure(connection, text))}


def _failure(connection: Connection, text: str, *, keep: bool = False) -> psycopg.Error | None:
    try:
        with connection.transaction(force_rollback=not keep):
            connection.execute(text.encode())
    except _BUSY:
        raise
    except psycopg.Error as error:
        return error
    return None


def _described(connection: Connection, what: str, error: psycopg.Error) -> BrokenStatement:
    table, _, words = what.partition(": ")
    # The innermost function stands first in the context.
    named = _FUNCTION.search(error.diag.context or "")
    function = named[1] if named else None
    row = None
    for name in _FUNCTION.findall(error.diag.context or ""):
        row = (
            row
            or psycopg.ClientCursor(connection)
            .execute(_parts()["triggers"].replace("$1", "%s").replace("$2", "%s"), (table, name))
            .fetchone()
        )
    return BrokenStatement(
        words, table, error.diag.message_primary or str(error), function, row[0] if row else None
    )


def _problem(broken: list[BrokenStatement]) -> SchemaMismatch:
    said = "; ".join(
        f"{one.what} in {one.table}"
        + (f" (trigger {one.trigger}" if one.trigger else "")
        + (
            f"{', ' if one.trigger else ' ('}function {one.function})"
            if one.function
            else ")"
            if one.trigger
            else ""
        )
        + f": {one.error}"
        for one in broken
    )
    names = sorted({one.trigger or one.function or one.table for one in broken})
    return SchemaMismatch(
        "Nothing was changed: with the columns that billing adds, statements of the host application would fail: "
        f"{said}.",
        f"Let {', '.join(names)} name the columns that it copies instead of copying whole rows (old.*, new.*), "
        "or give the table that it writes the same columns; then migrate again.",
    )


@cache
def _parts() -> dict[str, str]:
    """Return the statements of host_statements.sql by name."""
    text = (files("containerstacks_billing.schema") / "host_statements.sql").read_text("utf-8")
    _, *parts = _PART.split(text)
    return {name: body.strip() for name, body in zip(parts[::2], parts[1::2], strict=True)}
