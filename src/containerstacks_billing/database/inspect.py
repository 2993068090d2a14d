"""What a look at the database shows: its version, rights, clock, pooler, daemons. Values only, no verdicts."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from containerstacks_billing.database.connection import Connection, connect, translate_errors
from containerstacks_billing.database.grants import (
    BILLING_RIGHTS,
    BILLING_SEQUENCES,
    BILLING_TABLES,
    USER_COLUMNS,
    WITHHELD_FROM_READERS,
    grant,
    quoted,
    token_use,
)
from containerstacks_billing.database.statements import query


@dataclass(frozen=True)
class Server:
    """The server behind a connection; `clock_ahead_seconds` is its clock minus ours, negative when it is behind."""

    version: str
    version_number: int
    in_recovery: bool
    read_only: bool
    role: str
    database: str
    clock_ahead_seconds: float
    pooler: str | None


@dataclass(frozen=True)
class Daemon:
    """A daemon that reported: id, status, age of the heartbeat and of the start in seconds, interval, process."""

    instance_id: str
    status: str
    error_message: str | None
    age_seconds: float | None
    interval_minutes: str | None
    started_seconds: float | None
    process: dict[str, Any]

    def replaces(self, other: Daemon) -> bool:
        """Whether this daemon was started on the same host after the last heartbeat of the other."""
        return (
            self.instance_id != other.instance_id
            and self.process.get("hostname") is not None
            and self.process.get("hostname") == other.process.get("hostname")
            and self.started_seconds is not None
            and (other.age_seconds is None or self.started_seconds <= other.age_seconds)
        )


def _rows(
    connection: Connection, name: str, parameters: Mapping[str, object] | None = None
) -> list[tuple[Any, ...]]:
    with translate_errors():
        return connection.execute(query(name), parameters).fetchall()


def server(connection: Connection, conninfo: str) -> Server:
    """Describe the server; opens a second connection for a moment to recognise a pooler."""
    before = time.time()
    (version, number, in_recovery, read_only, role, database, backend, clock) = _rows(
        connection, "examine_server"
    )[0]
    ours = (before + time.time()) / 2
    pooler = _pooler(connection, conninfo, backend)
    return Server(version, number, in_recovery, read_only, role, database, clock - ours, pooler)


def _pooler(connection: Connection, conninfo: str, backend: int) -> str | None:
    """Return "transaction" or "session" for the mode of a pooler in between, None where there is none.

    A server sends its process id at login. A pooler sends another one, and one in transaction mode hands two clients
    the same process as long as neither is inside a transaction.
    """
    if connection.info.backend_pid == backend:
        return None
    with connect(conninfo, purpose="reading") as second:
        for _ in range(3):
            if _rows(second, "examine_backend") == _rows(connection, "examine_backend"):
                return "transaction"
    return "session"


def missing_tables(connection: Connection) -> list[str]:
    """List the tables of billing that do not exist."""
    return [name for (name,) in _rows(connection, "examine_missing_tables", {"tables": list(BILLING_TABLES)})]


def usable_schema(connection: Connection) -> bool:
    """Whether the current role may use the schema that the tables stand in."""
    return bool(_rows(connection, "examine_schema")[0][0])


def missing_rights(connection: Connection) -> dict[str, tuple[str, ...]]:
    """List the rights that the current role still needs, by table, on the tables that exist."""
    wanted = [(table, privilege) for table, rights in BILLING_RIGHTS.items() for privilege in rights]
    rows = _rows(
        connection,
        "examine_missing_rights",
        {"tables": [table for table, _ in wanted], "privileges": [privilege for _, privilege in wanted]},
    )
    by_table: dict[str, tuple[str, ...]] = {}
    for table, privilege in rows:
        by_table[table] = (*by_table.get(table, ()), privilege)
    return by_table


def hidden_tables(connection: Connection) -> list[str]:
    """List the tables of billing whose row security may hide rows from the current role."""
    return [name for (name,) in _rows(connection, "examine_hidden_tables", {"tables": list(BILLING_TABLES)})]


def may_read_users(connection: Connection) -> bool:
    """Whether the current role may read what a token of the host is checked with; true where there is no such table."""
    return bool(_rows(connection, "examine_users", {"columns": list(USER_COLUMNS)})[0][0])


def may_read(connection: Connection) -> bool:
    """Whether the current role may read every table of billing that exists, of those that a reader needs."""
    missing = missing_rights(connection)
    return not any("SELECT" in missing[table] for table in missing.keys() - WITHHELD_FROM_READERS)


def missing_grants(connection: Connection, role: str) -> list[str]:
    """Write the GRANT statements that the role still needs on the tables that exist."""
    sequences = _rows(connection, "examine_missing_sequences", {"sequences": list(BILLING_SEQUENCES)})
    return [
        *(grant(table, rights, role) for table, rights in missing_rights(connection).items()),
        *(f"GRANT USAGE ON SEQUENCE {quoted(name)} TO {quoted(role)};" for (name,) in sequences),
        *([] if _rows(connection, "examine_use_of_tokens", {})[0][0] else [token_use(role)]),
    ]


def daemons(connection: Connection) -> list[Daemon]:
    """List the daemons that reported, the liveliest first, 20 at most."""
    return [Daemon(*row) for row in _rows(connection, "examine_daemons")]


def foreign_debits(connection: Connection) -> int:
    """Count the wallet debits of the last day that another biller wrote."""
    return int(_rows(connection, "examine_foreign_debits", {})[0][0])


def billable_instances(connection: Connection, statuses: Iterable[str]) -> tuple[int, int]:
    """Count the instances that are billed, and all instances."""
    billable, every = _rows(connection, "examine_billable_instances", {"statuses": list(statuses)})[0]
    return billable, every


def denied_writers(connection: Connection) -> tuple[str, ...]:
    """Name the roles that may write an instance and not call the functions of its triggers."""
    return tuple(row[0] for row in _rows(connection, "examine_denied_writers", {}))
