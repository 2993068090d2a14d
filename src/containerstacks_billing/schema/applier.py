"""Application of schema files to one database: in one transaction with the record, or step by step beside it."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from functools import partial

from psycopg import IsolationLevel, errors

from containerstacks_billing.database.connection import Connection, connect
from containerstacks_billing.errors import SchemaMismatch
from containerstacks_billing.schema.drift import is_outdated, pending_files, refuse_mismatch
from containerstacks_billing.schema.files import DeliveredSchema, SchemaFile, Step
from containerstacks_billing.schema.history import (
    Recorded,
    find_table,
    prepare_table,
    read_record,
    statement,
    write_record,
)
from containerstacks_billing.schema.lock import MigrationLock
from containerstacks_billing.schema.squash import with_baseline


@dataclass(frozen=True, slots=True)
class Applier:
    """Applies the files of this version under the migrators' lock."""

    conninfo: str
    lock: MigrationLock
    delivered: DeliveredSchema

    def pending(self) -> list[SchemaFile]:
        """Return what the database lacks, in the order in which it is applied."""
        return pending_files(self.delivered, *read_history(self.lock.guard, self.delivered))

    def apply(self, file: SchemaFile, *, again: bool = False) -> Recorded | None:
        """Apply one file; return None when another process did so while we waited for it.

        `again` applies one that is recorded, to repair what it made; a migration keeps its record then.
        """
        self.lock.progress(file.file_name)
        return self.lock.run(partial(self._apply, file, again=again), file.file_name)

    def adapt(self) -> None:
        """Bring what is derived from the host's columns and prices up to what they are now."""
        self.lock.run(lambda: self.lock.guard.execute(statement("adapt")), "the host's changes")

    def _apply(self, file: SchemaFile, *, again: bool) -> Recorded | None:
        guard = self.lock.guard
        table = prepare_table(guard)
        record, code = read_history(guard, self.delivered)
        if not again and (file.version in record if file.version else not is_outdated(file, code)):
            return None
        started = time.monotonic()
        if file.is_one_transaction:
            _execute(guard, file.sql, file.file_name)
        else:
            self._run_steps(file)
        if again and file.version:
            return None
        return write_record(guard, table, file, round((time.monotonic() - started) * 1000))

    def _run_steps(self, file: SchemaFile) -> None:
        with closing(open_guard(self.conninfo)) as worker:
            for number, step in enumerate(file.steps, 1):
                self.lock.progress(f"{file.file_name}, step {number} of {len(file.steps)}: {step.title}")
                self.lock.retry(partial(self._run_step, worker, step, file.file_name), step.title)

    def _run_step(self, worker: Connection, step: Step, file_name: str) -> None:
        if not step.in_transaction:
            # It takes no lock that others wait for, and may wait itself for long transactions of others.
            _execute(worker, step.sql, file_name)
            return
        with worker.transaction():
            self.lock.set_timeouts(worker)
            _execute(worker, step.sql, file_name)


def open_guard(conninfo: str) -> Connection:
    """Open a connection for migration work."""
    connection = connect(conninfo, purpose="maintenance")
    # Repeatable read, set as the role's default, would hold a snapshot while we wait beside a concurrent index build.
    connection.isolation_level = IsolationLevel.READ_COMMITTED
    return connection


def read_history(
    connection: Connection, delivered: DeliveredSchema
) -> tuple[dict[int, Recorded], dict[str, Recorded]]:
    """Return the applied migrations by number and code files by name; raise SchemaMismatch on what does not fit."""
    record, code = read_record(connection, find_table(connection))
    record = with_baseline(record, delivered)
    refuse_mismatch(delivered, record)
    return record, code


def _execute(connection: Connection, sql: str, file_name: str) -> None:
    try:
        connection.execute(sql)
    except errors.RaiseException as refusal:
        message = refusal.diag.message_primary or ""
        raise SchemaMismatch(f"{file_name}: {message}.", refusal.diag.message_hint) from None
    except (
        errors.UndefinedTable,
        errors.UndefinedColumn,
        errors.UndefinedFunction,
        errors.UndefinedObject,
    ) as lack:
        raise SchemaMismatch(
            f"{file_name}: {lack.diag.message_primary}.",
            "What an earlier migration made was changed since: restore it from a backup, then migrate again.",
        ) from None
    except errors.InvalidFunctionDefinition as refusal:
        # A function of that name with another signature or result; the server's hint names the DROP FUNCTION.
        raise SchemaMismatch(
            f"{file_name}: {refusal.diag.message_primary}.", refusal.diag.message_hint
        ) from None
