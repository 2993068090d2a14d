"""Migrations: bring a database to the schema of this version, once, whoever tries and however often.

The problem. Migrations run when a host is upgraded, by hand, perhaps by two people, perhaps through a pooler, on a
database that goes on serving customers, and they may be killed anywhere.

What is trusted. The record in the database, read under a lock, is the only truth about what was applied. The lock is an
advisory lock of the transaction: a session lock would be lost or leaked behind a pooler. A migration in one transaction
commits together with its record, so it is in or it is not. One that cannot be a single transaction runs on a second
connection, step by step, while the first holds the lock and writes the record at the end; its steps are repeatable,
so half of it is no damage. Neither that first connection nor another migrator at the lock holds a snapshot meanwhile:
`create index concurrently` waits for every one that is older, and would wait for ever.

How it waits. A lock on a table is asked for with a short timeout, because everybody who comes later queues behind the
one who waits: better to let them pass and try again, a bounded number of times.

What it refuses. A file that was changed after it was applied, and a database that a newer version has migrated: in
both cases nobody knows what the tables are, and billing on them would be a guess. And a table that was dropped since:
what stood in it is not in a file. A function or a trigger that was dropped or disabled it makes whole (fitness.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from typing import TypeVar

import psycopg
from psycopg import IsolationLevel, errors

from containerstacks_billing.database.connection import Connection, connect
from containerstacks_billing.errors import DatabaseUnavailable, RightsMissing, SchemaMismatch
from containerstacks_billing.schema.adoption import adoption_findings
from containerstacks_billing.schema.diagnose import diagnosed
from containerstacks_billing.schema.drift import make_whole, refuse_mismatch, to_make_whole, unfitness
from containerstacks_billing.schema.files import MigrationFile, Step, delivered_migrations
from containerstacks_billing.schema.history import (
    Recorded,
    find_table,
    prepare_table,
    read_record,
    statement,
    write_record,
)
from containerstacks_billing.schema.model import (
    Finding,
    MigrationReport,
    MigrationState,
    MigrationStatus,
    PlannedMigration,
)
from containerstacks_billing.settings import Settings

# Longer than deadlock_timeout (1 s), after which an autovacuum in the way is cancelled for us.
TABLE_LOCK_TIMEOUT = "2s"
ATTEMPTS = 30
ATTEMPTS_FOR_OTHER_MIGRATOR = 600
PAUSE_SECONDS = 1.0

Result = TypeVar("Result")
Progress = Callable[[str], None]
Migrations = Sequence[MigrationFile]


def migrate(
    conninfo: str,
    settings: Settings | None = None,
    *,
    migrations: Migrations | None = None,
    progress: Progress = lambda _sentence: None,
) -> MigrationReport:
    """Apply what is pending, oldest first, and report it together with what was found in the host's data.

    Repeating it is harmless. Raises SchemaMismatch on a changed or unknown migration, a host table that lacks what
    billing needs, or what was dropped since and cannot be made again; RightsMissing; and DatabaseUnavailable when a
    lock stays taken.
    """
    delivered = delivered_migrations() if migrations is None else migrations
    with diagnosed(conninfo), _work_of_the_owner(), closing(_open(conninfo)) as guard:
        record = read_record(guard, find_table(guard))
        refuse_mismatch(delivered, record)
        mended: tuple[Finding, ...] = ()
        if record:
            mended = _under_lock(guard, partial(_mend, guard, delivered), "what was dropped", progress)
        applied = []
        for migration in delivered:
            if migration.version not in record:
                progress(migration.file_name)
                done = _apply(conninfo, guard, delivered, migration, progress)
                if done is not None:
                    applied.append(_status(migration, done))
        _under_lock(guard, lambda: guard.execute(statement("adapt")), "the host's changes", progress)
        # Inexact amounts are a finding of the report, which has the statements that change them.
        if problem := unfitness(guard, delivered, ignoring=("amount",)):
            raise problem
        return MigrationReport(tuple(applied), (*mended, *adoption_findings(guard, settings)))


def status(conninfo: str, *, migrations: Migrations | None = None) -> tuple[MigrationStatus, ...]:
    """Say of every migration, delivered or recorded, where it stands; nothing is changed."""
    delivered = delivered_migrations() if migrations is None else migrations
    with diagnosed(conninfo), closing(connect(conninfo, purpose="reading")) as connection:
        record = read_record(connection, find_table(connection))
    known = [_status(migration, record.get(migration.version)) for migration in delivered]
    unknown = [
        MigrationStatus(one.version, one.name, MigrationState.UNKNOWN, one.applied_at, one.duration_ms)
        for one in record.values()
        if one.version not in {migration.version for migration in delivered}
    ]
    return tuple(sorted(known + unknown, key=lambda one: one.version))


def plan(conninfo: str, *, migrations: Migrations | None = None) -> tuple[PlannedMigration, ...]:
    """Say what migrate would do to this database, and what it would lock for how long; nothing is changed.

    What it would make whole before the first migration stands under the number 0.
    """
    delivered = delivered_migrations() if migrations is None else migrations
    with diagnosed(conninfo), closing(connect(conninfo, purpose="reading")) as connection:
        record = read_record(connection, find_table(connection))
        refuse_mismatch(delivered, record)
        mended = to_make_whole(connection, [one for one in delivered if one.version in record])
        first = (PlannedMigration(0, "made_whole", (), tuple(mended)),) if mended else ()
        return first + tuple(
            PlannedMigration(
                migration.version,
                migration.name,
                tuple(step.title for step in migration.steps),
                _effects(connection, migration),
            )
            for migration in delivered
            if migration.version not in record
        )


def findings(conninfo: str, settings: Settings | None = None) -> tuple[Finding, ...]:
    """Count what the host left in its tables that an operator should know of; nothing is changed."""
    with diagnosed(conninfo), closing(connect(conninfo, purpose="reading")) as connection:
        return adoption_findings(connection, settings)


@contextmanager
def _work_of_the_owner() -> Iterator[None]:
    """A role that may not touch a table needs no right on it, but to be another."""
    try:
        yield
    except errors.InsufficientPrivilege as refusal:
        message = refusal.diag.message_primary or ""
        if "for schema" in message:
            raise
        raise RightsMissing(
            f"The database role may not change the schema: {message}.",
            "Run `containerstacks-billing migrate` as the owner of the host application's tables.",
        ) from refusal


def _open(conninfo: str) -> Connection:
    connection = connect(conninfo, purpose="maintenance")
    # Repeatable read, set as somebody's default, would hold a snapshot while we wait beside a concurrent index build.
    connection.isolation_level = IsolationLevel.READ_COMMITTED
    return connection


def _status(migration: MigrationFile, done: Recorded | None) -> MigrationStatus:
    if done is None:
        return MigrationStatus(migration.version, migration.name, MigrationState.PENDING, None, None)
    state = MigrationState.APPLIED if done.checksum == migration.checksum else MigrationState.CHANGED
    return MigrationStatus(migration.version, migration.name, state, done.applied_at, done.duration_ms)


def _apply(
    conninfo: str, guard: Connection, delivered: Migrations, migration: MigrationFile, progress: Progress
) -> Recorded | None:
    """Apply one migration under the lock; None when somebody else did so while we waited for it."""

    def work() -> Recorded | None:
        table = prepare_table(guard)
        record = read_record(guard, table)
        refuse_mismatch(delivered, record)
        if migration.version in record:
            return None
        started = time.monotonic()
        if migration.is_one_transaction:
            _execute(guard, migration.sql, migration.file_name)
        else:
            _run_steps(conninfo, migration, progress)
        return write_record(guard, table, migration, round((time.monotonic() - started) * 1000))

    return _under_lock(guard, work, migration.file_name, progress)


def _mend(guard: Connection, delivered: Migrations) -> tuple[Finding, ...]:
    """Make whole what the migrations that are in left behind; another migrator may have added to them meanwhile."""
    record = read_record(guard, find_table(guard))
    done = make_whole(guard, [migration for migration in delivered if migration.version in record])
    return tuple(Finding("made_whole", 1, sentence, "") for sentence in done)


def _under_lock(guard: Connection, work: Callable[[], Result], what: str, progress: Progress) -> Result:
    return _retrying(lambda: _alone(guard, work, progress), what, progress)


def _alone(guard: Connection, work: Callable[[], Result], progress: Progress) -> Result:
    """Do a piece of work in one transaction under the migrators' lock, once it is free."""
    for attempt in range(ATTEMPTS_FOR_OTHER_MIGRATOR):
        with guard.transaction():
            guard.execute(statement("bounds"), {"lock_timeout": TABLE_LOCK_TIMEOUT})
            if guard.execute(statement("lock")).fetchone() == (True,):
                return work()
        if attempt == 0:
            progress("waiting for another migration of this database to end")
        time.sleep(PAUSE_SECONDS)
    raise DatabaseUnavailable(
        "Another migration of this database has been running for ten minutes.",
        "Wait for it to end; `containerstacks-billing migrate --status` shows how far it is.",
    )


def _run_steps(conninfo: str, migration: MigrationFile, progress: Progress) -> None:
    with closing(_open(conninfo)) as worker:
        for number, step in enumerate(migration.steps, 1):
            progress(f"{migration.file_name}, step {number} of {len(migration.steps)}: {step.title}")
            _retrying(partial(_run_step, worker, step, migration.file_name), step.title, progress)


def _run_step(worker: Connection, step: Step, file_name: str) -> None:
    if not step.in_transaction:
        # It takes no lock that anybody waits for, and may wait itself for long transactions of others.
        _execute(worker, step.sql, file_name)
        return
    with worker.transaction():
        worker.execute(statement("bounds"), {"lock_timeout": TABLE_LOCK_TIMEOUT})
        _execute(worker, step.sql, file_name)


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
            "Somebody changed what an earlier migration made: restore it from a backup, then migrate again.",
        ) from None


def _retrying(work: Callable[[], Result], what: str, progress: Progress) -> Result:
    """Do a piece of work again while somebody else holds a lock it needs, a bounded number of times."""
    for left in range(ATTEMPTS - 1, -1, -1):
        try:
            return work()
        except (errors.LockNotAvailable, errors.DeadlockDetected):
            if not left:
                break
            progress(f"{what}: a table is in use, trying again ({left} attempts left)")
            time.sleep(PAUSE_SECONDS)
    raise DatabaseUnavailable(
        f"A table that {what} changes stayed locked by another session; nothing is half done.",
        "Look for the longest transaction (SELECT pid, query FROM pg_stat_activity ORDER BY xact_start), then repeat.",
    )


def _effects(connection: Connection, migration: MigrationFile) -> tuple[str, ...]:
    if migration.preview is None:
        return ()
    try:
        with connection.transaction():
            return tuple(row[0] for row in connection.execute(migration.preview))
    except psycopg.errors.UndefinedTable:
        return ("Depends on the tables that the migrations before it create.",)
