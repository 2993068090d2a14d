"""The record of applied schema files in the database, in a table that may be shared with the host application.

Later versions of the host record their own migrations in `schema_migrations (filename, checksum, applied_at,
execution_time_ms)`. Ours has the same columns and two more, so the two programs share the table whichever is
installed first, and neither reads the other's rows. A table of that name which belongs to yet another tool is left
alone; the record is then kept in `containerstacks_billing_migrations`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.resources import files

from psycopg import sql

from containerstacks_billing.database.connection import Connection
from containerstacks_billing.database.grants import quoted
from containerstacks_billing.errors import RightsMissing, SchemaMismatch
from containerstacks_billing.schema.files import SchemaFile

SHARED_TABLE = "schema_migrations"
OWN_TABLE = "containerstacks_billing_migrations"
OLDEST_SERVER = 150000
_HOST_COLUMNS = {"filename", "checksum", "applied_at"}
_OUR_COLUMNS = {"version", "name", "execution_time_ms"}


@dataclass(frozen=True, slots=True)
class RecordTable:
    """Which table holds the record, and whether it can be read as it is."""

    name: str
    is_ready: bool


@dataclass(frozen=True, slots=True)
class Recorded:
    """One applied file as the database remembers it; `version` is 0 for a repeatable one."""

    version: int
    name: str
    checksum: str
    applied_at: datetime
    duration_ms: int | None


@cache
def statement(name: str, table: str = SHARED_TABLE) -> sql.Composed:
    """Load one statement about the record, with the name of its table filled in."""
    text = (files("containerstacks_billing.schema") / "history" / f"{name}.sql").read_text("utf-8")
    return sql.SQL(text).format(table=sql.Identifier(table), index=sql.Identifier(f"{table}_version"))


def find_table(connection: Connection) -> RecordTable:
    """Decide where the record is or would be; refuse a server or a schema that billing cannot work in."""
    row = connection.execute(statement("shape")).fetchone()
    assert row is not None  # noqa: S101 - a query without FROM returns one row
    has_own, shared_columns, schema_name, server_version = row
    if server_version < OLDEST_SERVER:
        raise SchemaMismatch(
            f"The server runs PostgreSQL {server_version // 10000}; billing needs 15 or newer.",
            "Upgrade the server, or point DATABASE_URL at a newer one.",
        )
    if schema_name is None:
        raise RightsMissing(
            "The role may use no schema of its search path.",
            f"GRANT USAGE ON SCHEMA public TO {quoted(connection.info.user)}; -- and CREATE for the role that migrates",
        )
    if schema_name != "public":
        raise SchemaMismatch(
            f"The search path leads to the schema {schema_name}; the tables of ContainerStacks live in public.",
            "Remove search_path from DATABASE_URL and from the role (ALTER ROLE … RESET search_path).",
        )
    if has_own:
        return RecordTable(OWN_TABLE, is_ready=True)
    if shared_columns is None:
        return RecordTable(SHARED_TABLE, is_ready=False)
    columns = set(shared_columns)
    if columns >= _HOST_COLUMNS:
        return RecordTable(SHARED_TABLE, is_ready=columns >= _OUR_COLUMNS)
    return RecordTable(OWN_TABLE, is_ready=False)


def read_record(
    connection: Connection, table: RecordTable
) -> tuple[dict[int, Recorded], dict[str, Recorded]]:
    """Return the applied migrations by number and the repeatable files by name; without a table, none."""
    if not table.is_ready:
        return {}, {}
    rows = [Recorded(*row) for row in connection.execute(statement("list", table.name))]
    return {one.version: one for one in rows if one.version}, {
        one.name: one for one in rows if not one.version
    }


def prepare_table(connection: Connection) -> RecordTable:
    """Create or complete the table inside the open transaction, under the lock."""
    table = find_table(connection)
    if not table.is_ready:
        connection.execute(statement("create", table.name))
    return RecordTable(table.name, is_ready=True)


def write_record(connection: Connection, table: RecordTable, file: SchemaFile, duration_ms: int) -> Recorded:
    """Record a file inside the transaction that applied it."""
    values = {
        "file_name": file.file_name,
        "checksum": file.checksum,
        "duration_ms": duration_ms,
        "version": file.version,
        "name": file.name,
    }
    row = None
    if not file.version:
        row = connection.execute(statement("update", table.name), values).fetchone()
    if row is None:
        row = connection.execute(statement("insert", table.name), values).fetchone()
    assert row is not None  # noqa: S101 - INSERT … RETURNING of one row
    return Recorded(file.version, file.name, file.checksum, row[0], duration_ms)
