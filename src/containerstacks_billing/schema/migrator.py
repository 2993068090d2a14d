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

How it waits is in lock.py.

What it refuses. A migration that was changed after it was applied, and a database that a newer version has migrated: in
both cases the tables are unknown, and billing on them would be a guess. And a table that was dropped since, because its
rows are in no file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial

from psycopg import errors

from containerstacks_billing.database.connection import connect
from containerstacks_billing.errors import RightsMissing, SchemaMismatch
from containerstacks_billing.schema.adoption import adoption_findings
from containerstacks_billing.schema.applier import Applier, open_guard, read_history
from containerstacks_billing.schema.diagnose import diagnosed
from containerstacks_billing.schema.drift import (
    STATUS_TABLE,
    Defect,
    drift,
    is_outdated,
    pending_files,
    repairable,
    repaired,
)
from containerstacks_billing.schema.files import DeliveredSchema, SchemaFile, delivered_schema
from containerstacks_billing.schema.history import Recorded, find_table, read_record
from containerstacks_billing.schema.host_statements import broken_statements
from containerstacks_billing.schema.lock import MigrationLock, Patience, Progress
from containerstacks_billing.schema.lost_columns import make_again
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


def migrate(
    conninfo: str,
    settings: Settings | None = None,
    *,
    delivered: DeliveredSchema | None = None,
    progress: Progress = lambda _sentence: None,
    patience: Patience = Patience(),  # noqa: B008 - frozen
) -> MigrationReport:
    """Apply what is pending, repair what drifted, and report both together with what was found in the host's data.

    Repeating it is harmless. Raises SchemaMismatch on a changed or unknown migration, a part of the migrations that the
    baseline replaces, a host table that lacks what billing needs, or what was dropped since and cannot be made again;
    RightsMissing; and DatabaseUnavailable when a lock stays taken.
    """
    delivered = delivered_schema() if delivered is None else delivered
    with diagnosed(conninfo), _owner_required(), closing(open_guard(conninfo)) as guard:
        lock = MigrationLock(guard, progress, patience)
        applier = Applier(conninfo, lock, delivered)
        read_history(guard, delivered)
        trial = partial(broken_statements, guard, lock_timeout=patience.lock_timeout)
        if problem := lock.retry(trial, "the trial of the host's statements"):
            raise problem
        applied = [
            _status(file, done) for file in applier.pending() if (done := applier.apply(file)) is not None
        ]
        repairs = repairable(guard)
        for defect in repairs:
            if defect.kind == "column":
                lock.run(partial(make_again, guard, defect.name), f"making {defect.name} again")
        for file in _repairing(delivered, repairs):
            applier.apply(file, again=True)
        for defect in repairs:
            if defect.kind == "disabled trigger":
                lock.run(partial(guard.execute, defect.enabling.encode()), defect.place)
        applier.adapt()
        # Inexact amounts are a finding of the report, which has the statements that change them.
        if problem := drift(guard, ignoring=("amount",)):
            raise problem
        found = tuple(Finding("repaired", 1, repaired(defect), "") for defect in repairs)
        return MigrationReport(tuple(applied), (*found, *adoption_findings(guard, settings)))


def apply_pending(conninfo: str) -> None:
    """Apply what is pending and compare nothing: for the tool that writes the expected catalog."""
    with diagnosed(conninfo), closing(open_guard(conninfo)) as guard:
        applier = Applier(
            conninfo, MigrationLock(guard, lambda _sentence: None, Patience()), delivered_schema()
        )
        for file in applier.pending():
            applier.apply(file)
        applier.adapt()


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
        _status(file, None if is_outdated(file, code) else code[file.name]) for file in delivered.code
    ]
    return (*sorted(known + unknown, key=lambda one: one.version), *repeatable)


def plan(conninfo: str, *, delivered: DeliveredSchema | None = None) -> tuple[PlannedMigration, ...]:
    """Return what migrate would do to this database, and what it would lock for how long; nothing is changed.

    What it would repair stands in front, under the number 0.
    """
    delivered = delivered_schema() if delivered is None else delivered
    with diagnosed(conninfo), closing(connect(conninfo, purpose="reading")) as connection:
        record, code = read_history(connection, delivered)
        pending = pending_files(delivered, record, code)
        if pending:
            _try_host_statements(conninfo)
        # What a pending file makes looks like what was dropped.
        repairs = [] if any(file.version for file in pending) else repairable(connection)
        if pending:
            repairs = [defect for defect in repairs if defect.kind == "disabled trigger"]
        sentences = tuple(defect.repair("is to be") for defect in repairs)
        sizes = read_sizes(connection)
        planned = [PlannedMigration(0, "repairs", (), sentences)] if repairs else []
        for file in pending:
            steps = tuple(step.title for step in file.steps)
            planned.append(PlannedMigration(file.version, file.name, steps, effects(connection, file, sizes)))
        return tuple(planned)


def _try_host_statements(conninfo: str) -> None:
    """Raise what migrate would refuse with; a role that may not alter tables, or a table in use, is passed over."""
    passed_over = (errors.InsufficientPrivilege, errors.LockNotAvailable, errors.ReadOnlySqlTransaction)
    with closing(open_guard(conninfo)) as connection, suppress(*passed_over):
        if problem := broken_statements(connection):
            raise problem


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
