"""Migrations: bring a database to the schema of this version, once, however many processes try and however often.

The problem. Migrations run when a host is upgraded, by hand, perhaps by two people, perhaps through a pooler, on a
database that goes on serving customers, and they may be killed anywhere.

What is applied. First the numbered files of `tables/` that the record does not have, oldest first. Then the repeatable
files of `code/` whose checksum differs from the recorded one, or all of them where the catalog lacks what they make
(drift.py). A record of the migrations of the time before the first release counts as one of the baseline (squash.py).

What is trusted. The record in the database, read under a lock, is the only truth about what was applied. The lock is an
advisory lock of the transaction: a session lock would be lost or leaked behind a pooler. A file in one transaction
commits together with its record, so it is in or it is not. One that cannot be a single transaction runs on a second
connection, step by step, while the first holds the lock and writes the record at the end; its steps are repeatable,
so half of it is no damage. Neither that first connection nor another migrator at the lock holds a snapshot meanwhile:
`create index concurrently` waits for every one that is older, and would wait for ever.

How it waits. A lock on a table is asked for with a short timeout, because every later session queues behind one that
waits: better to let them pass and try again, a bounded number of times.

What it refuses. A migration that was changed after it was applied, and a database that a newer version has migrated: in
both cases the tables are unknown, and billing on them would be a guess. And a table that was dropped since, because its
rows are in no file.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from typing import TypeVar

from psycopg import IsolationLevel, errors

from containerstacks_billing.database.connection import Connection, connect
from containerstacks_billing.errors import DatabaseUnavailable, RightsMissing, SchemaMismatch
from containerstacks_billing.schema.adoption import adoption_findings
from containerstacks_billing.schema.diagnose import diagnosed
from containerstacks_billing.schema.drift import (
    STATUS_TABLE,
    Defect,
    drift,
    refuse_mismatch,
    repairable,
    repaired,
)
from containerstacks_billing.schema.files import DeliveredSchema, SchemaFile, Step, delivered_schema
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
from containerstacks_billing.schema.preview import effects, read_sizes
from containerstacks_billing.schema.squash import with_baseline
from containerstacks_billing.settings import Settings

# Longer than deadlock_timeout (1 s), after which an autovacuum in the way is cancelled for us.
TABLE_LOCK_TIMEOUT = "2s"
ATTEMPTS = 30
ATTEMPTS_FOR_OTHER_MIGRATOR = 600
PAUSE_SECONDS = 1.0

Result = TypeVar("Result")
Progress = Callable[[str], None]
Record = tuple[dict[int, Recorded], dict[str, Recorded]]


def migrate(
    conninfo: str,
    settings: Settings | None = None,
    *,
    delivered: DeliveredSchema | None = None,
    progress: Progress = lambda _sentence: None,
) -> MigrationReport:
    """Apply what is pending, repair what drifted, and report both together with what was found in the host's data.

    Repeating it is harmless. Raises SchemaMismatch on a changed or unknown migration, a part of the migrations that the
    baseline replaces, a host table that lacks what billing needs, or what was dropped since and cannot be made again;
    RightsMissing; and DatabaseUnavailable when a lock stays taken.
    """
    delivered = delivered_schema() if delivered is None else delivered
    with diagnosed(conninfo), _owner_required(), closing(_open(conninfo)) as guard:
        apply = partial(_apply, conninfo, guard, delivered, progress)
        applied = _apply_pending(guard, delivered, apply)
        repairs = repairable(guard)
        for file in _repairing(delivered, repairs):
            apply(file, again=True)
        for defect in repairs:
            if defect.kind == "disabled trigger":
                _under_lock(guard, partial(guard.execute, defect.enabling.encode()), defect.place, progress)
        _adapt(guard, progress)
        # Inexact amounts are a finding of the report, which has the statements that change them.
        if problem := drift(guard, ignoring=("amount",)):
            raise problem
        found = tuple(Finding("repaired", 1, repaired(defect), "") for defect in repairs)
        return MigrationReport(tuple(applied), (*found, *adoption_findings(guard, settings)))


def apply_pending(conninfo: str, delivered: DeliveredSchema | None = None) -> None:
    """Apply what is pending and compare nothing: for the tool that writes the expected catalog."""
    delivered = delivered_schema() if delivered is None else delivered
    progress: Progress = lambda _sentence: None  # noqa: E731 - the default of migrate
    with diagnosed(conninfo), _owner_required(), closing(_open(conninfo)) as guard:
        _apply_pending(guard, delivered, partial(_apply, conninfo, guard, delivered, progress))
        _adapt(guard, progress)


def status(conninfo: str, *, delivered: DeliveredSchema | None = None) -> tuple[MigrationStatus, ...]:
    """Return where every file stands, delivered or recorded; nothing is changed."""
    delivered = delivered_schema() if delivered is None else delivered
    with diagnosed(conninfo), closing(connect(conninfo, purpose="reading")) as connection:
        record, code = read_record(connection, find_table(connection))
    # A part of the migrations that the baseline replaces is shown as it is: unknown to this version.
    with suppress(SchemaMismatch):
        record = with_baseline(record, delivered)
    known = [_status(file, record.get(file.version)) for file in delivered.tables]
    numbers = {file.version for file in delivered.tables}
    unknown = [
        MigrationStatus(one.version, one.name, MigrationState.UNKNOWN, one.applied_at, one.duration_ms)
        for one in record.values()
        if one.version not in numbers
    ]
    repeatable = [
        _status(file, None if _is_outdated(file, code) else code[file.name]) for file in delivered.code
    ]
    return (*sorted(known + unknown, key=lambda one: one.version), *repeatable)


def plan(conninfo: str, *, delivered: DeliveredSchema | None = None) -> tuple[PlannedMigration, ...]:
    """Return what migrate would do to this database, and what it would lock for how long; nothing is changed.

    What it would repair stands in front, under the number 0.
    """
    delivered = delivered_schema() if delivered is None else delivered
    with diagnosed(conninfo), closing(connect(conninfo, purpose="reading")) as connection:
        record, code = _read(connection, delivered)
        pending = [file for file in delivered.tables if file.version not in record]
        outdated = [file for file in delivered.code if _is_outdated(file, code)]
        # What a pending file makes looks like what was dropped.
        repairs = [] if pending else repairable(connection)
        if outdated:
            repairs = [defect for defect in repairs if defect.kind == "disabled trigger"]
        sentences = tuple(defect.repair("is to be") for defect in repairs)
        sizes = read_sizes(connection)
        planned = [PlannedMigration(0, "repairs", (), sentences)] if repairs else []
        for file in pending + outdated:
            steps = tuple(step.title for step in file.steps)
            planned.append(PlannedMigration(file.version, file.name, steps, effects(connection, file, sizes)))
        return tuple(planned)


def findings(conninfo: str, settings: Settings | None = None) -> tuple[Finding, ...]:
    """Count what the host left in its tables that an operator should know of; nothing is changed."""
    with diagnosed(conninfo), closing(connect(conninfo, purpose="reading")) as connection:
        return adoption_findings(connection, settings)


@contextmanager
def _owner_required() -> Iterator[None]:
    """Raise RightsMissing with its own hint: no grant lets a role alter a table of another."""
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
    # Repeatable read, set as the role's default, would hold a snapshot while we wait beside a concurrent index build.
    connection.isolation_level = IsolationLevel.READ_COMMITTED
    return connection


def _read(connection: Connection, delivered: DeliveredSchema) -> Record:
    record, code = read_record(connection, find_table(connection))
    record = with_baseline(record, delivered)
    refuse_mismatch(delivered, record)
    return record, code


def _apply_pending(
    guard: Connection, delivered: DeliveredSchema, apply: Callable[[SchemaFile], Recorded | None]
) -> list[MigrationStatus]:
    """Apply the pending files in their order; return those that no other process applied meanwhile."""
    record, code = _read(guard, delivered)
    pending = [file for file in delivered.tables if file.version not in record]
    pending += [file for file in delivered.code if _is_outdated(file, code)]
    return [_status(file, done) for file in pending if (done := apply(file)) is not None]


def _adapt(guard: Connection, progress: Progress) -> None:
    _under_lock(guard, lambda: guard.execute(statement("adapt")), "the host's changes", progress)


def _is_outdated(file: SchemaFile, code: Mapping[str, Recorded]) -> bool:
    return file.name not in code or code[file.name].checksum != file.checksum


def _repairing(delivered: DeliveredSchema, repairs: Sequence[Defect]) -> list[SchemaFile]:
    """Return the files that make again what is missing or altered."""
    lacking = [defect for defect in repairs if defect.kind != "disabled trigger"]
    status_table = [file for file in delivered.tables if file.name == STATUS_TABLE]
    return [
        *(status_table if any(defect.name == STATUS_TABLE for defect in lacking) else ()),
        *(delivered.code if any(defect.name != STATUS_TABLE for defect in lacking) else ()),
    ]


def _status(file: SchemaFile, done: Recorded | None) -> MigrationStatus:
    if done is None:
        return MigrationStatus(file.version, file.name, MigrationState.PENDING, None, None)
    state = MigrationState.APPLIED if done.checksum == file.checksum else MigrationState.CHANGED
    return MigrationStatus(file.version, file.name, state, done.applied_at, done.duration_ms)


def _apply(
    conninfo: str,
    guard: Connection,
    delivered: DeliveredSchema,
    progress: Progress,
    file: SchemaFile,
    *,
    again: bool = False,
) -> Recorded | None:
    """Apply one file under the lock; None when another process did so while we waited for it.

    `again` applies one that is recorded, to repair what it made; a migration keeps its record then.
    """

    def work() -> Recorded | None:
        table = prepare_table(guard)
        record, code = _read(guard, delivered)
        if not again and (file.version in record if file.version else not _is_outdated(file, code)):
            return None
        started = time.monotonic()
        if file.is_one_transaction:
            _execute(guard, file.sql, file.file_name)
        else:
            _run_steps(conninfo, file, progress)
        if again and file.version:
            return None
        return write_record(guard, table, file, round((time.monotonic() - started) * 1000))

    progress(file.file_name)
    return _under_lock(guard, work, file.file_name, progress)


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


def _run_steps(conninfo: str, file: SchemaFile, progress: Progress) -> None:
    with closing(_open(conninfo)) as worker:
        for number, step in enumerate(file.steps, 1):
            progress(f"{file.file_name}, step {number} of {len(file.steps)}: {step.title}")
            _retrying(partial(_run_step, worker, step, file.file_name), step.title, progress)


def _run_step(worker: Connection, step: Step, file_name: str) -> None:
    if not step.in_transaction:
        # It takes no lock that others wait for, and may wait itself for long transactions of others.
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
            "What an earlier migration made was changed since: restore it from a backup, then migrate again.",
        ) from None
    except errors.InvalidFunctionDefinition as refusal:
        # A function of that name with another signature or result; the server's hint names the DROP FUNCTION.
        raise SchemaMismatch(
            f"{file_name}: {refusal.diag.message_primary}.", refusal.diag.message_hint
        ) from None


def _retrying(work: Callable[[], Result], what: str, progress: Progress) -> Result:
    """Do a piece of work again while another session holds a lock it needs, a bounded number of times."""
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
