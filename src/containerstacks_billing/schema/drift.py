"""Whether the schema is still what the migrations left behind, and making whole what can be made whole.

A version number says what was applied, not what became of it. A disabled trigger is the worst case: nothing fails,
hours in which an instance stood still are charged, and the books agree with themselves. So a run asks for every object
that money depends on, in one look at the catalogs, and refuses with the way back.

`migrate` makes again what carries nothing of its own: functions, triggers, and tables that say only what the next run
finds out anyway. What stood in any other table is known to a backup alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from containerstacks_billing.database.connection import Connection
from containerstacks_billing.database.errors import MIGRATE_HINT
from containerstacks_billing.errors import SchemaMismatch
from containerstacks_billing.schema.files import MigrationFile, delivered_migrations
from containerstacks_billing.schema.history import Recorded, find_table, read_record, statement
from containerstacks_billing.schema.schema_objects import SchemaObject, objects_of

# Without these a run charges the same: what is missing is a status, a warning, a login or a convenience.
_NOT_FOR_MONEY = {
    "users", "billing_daemon_status", "billing_tokens", "billing_runways",
    "billing_notify_events", "billing_rights", "billing_admit",
}  # fmt: skip
# What they hold, the next heartbeat or run writes again. A warning about a runway may be given a second time.
_WRITTEN_AGAIN = {
    "billing_daemon_status", "billing_quarantine", "billing_set_aside_counts", "billing_runways",
}  # fmt: skip

_RESTORE_HINT = (
    "Restore what was in there from a backup, see “Backup and restore” in docs/billing-daemon.md: "
    "`containerstacks-billing migrate` cannot know it."
)
_MIGRATE_HINT = "Run `containerstacks-billing migrate`, which makes them again."
_UNNOTICED = (
    "What the host changed meanwhile went unnoticed: "
    "look at `containerstacks-billing run --dry-run` before you bill."
)
# Statements to copy; a ruin of that name may stand in the way.
_INDEX_HINTS = {
    "vps_billing_cycles_one_charge_per_hour": "CREATE UNIQUE INDEX CONCURRENTLY vps_billing_cycles_one_charge_per_hour"
    " ON vps_billing_cycles (organization_id, billing_period_start, vps_instance_id,"
    " (CASE WHEN run_id IS NULL THEN id END)) NULLS NOT DISTINCT;",
    "vps_billing_cycles_open_debts": "CREATE INDEX CONCURRENTLY vps_billing_cycles_open_debts"
    " ON vps_billing_cycles (organization_id) WHERE status = 'failed' AND run_id IS NOT NULL;",
}


@dataclass(frozen=True, slots=True)
class _Defect:
    """One row of fitness.sql."""

    kind: str
    name: str
    table: str


def expected_schema_problem(
    connection: Connection, *, migrations: Sequence[MigrationFile] | None = None
) -> SchemaMismatch | None:
    """Return why billing must not run on this schema, with what to do about it, or None.

    Versions and checksums, and whether what the migrations made is still there.
    """
    delivered = delivered_migrations() if migrations is None else migrations
    try:
        record = read_record(connection, find_table(connection))
        refuse_mismatch(delivered, record)
    except SchemaMismatch as mismatch:
        return mismatch
    pending = [migration.file_name for migration in delivered if migration.version not in record]
    if pending:
        return SchemaMismatch(
            f"The database lacks {len(pending)} of {len(delivered)} migrations, the first is {pending[0]}.",
            MIGRATE_HINT,
        )
    return unfitness(connection, delivered)


def refuse_mismatch(delivered: Sequence[MigrationFile], record: Mapping[int, Recorded]) -> None:
    """Raise SchemaMismatch when the record holds a migration that this version does not have in the same words."""
    known = {migration.version: migration for migration in delivered}
    for one in record.values():
        migration = known.get(one.version)
        if migration is None:
            raise SchemaMismatch(
                f"The database has the migration {one.version:03}_{one.name}, which this version does not know.",
                "Install the version of containerstacks-billing that migrated it, or a newer one.",
            )
        if migration.checksum != one.checksum:
            raise SchemaMismatch(
                f"The migration {migration.file_name} was changed after it was applied on {one.applied_at:%Y-%m-%d}.",
                "Restore the file as it was delivered; a correction is a migration of its own.",
            )


def unfitness(
    connection: Connection, migrations: Sequence[MigrationFile], *, ignoring: Collection[str] = ()
) -> SchemaMismatch | None:
    """Return why billing must not run on what became of these migrations, with the way back, or None.

    `ignoring` names kinds of defects that somebody else reports.
    """
    found = [
        defect
        for defect in _defects(connection, objects_of(migrations))
        if defect.name not in _NOT_FOR_MONEY and defect.kind not in ignoring
    ]
    for kind, say in _SENTENCES.items():
        if defects := [defect for defect in found if defect.kind == kind]:
            return say(defects)
    return None


def make_whole(connection: Connection, migrations: Sequence[MigrationFile]) -> list[str]:
    """Make again what is missing of these migrations and enable what is disabled; return what was done, in sentences.

    Belongs into a transaction under the migrators' lock. Raises SchemaMismatch where a table is gone for good.
    """
    repairs = _repairs(connection, migrations)
    if repairs:
        # A function may call one that is made after it.
        connection.execute("select set_config('check_function_bodies', 'off', true)")
    for one, defect in repairs:
        statements = (_enabling(defect),) if defect.kind == "disabled trigger" else one.statements
        for text in statements:
            connection.execute(text.encode())
    return [f"{_repair(one, defect, 'was')} {_consequence(one)}" for one, defect in repairs]


def to_make_whole(connection: Connection, migrations: Sequence[MigrationFile]) -> list[str]:
    """Say in sentences what `make_whole` would do, and raise what it would; nothing is changed."""
    return [_repair(one, defect, "is to be") for one, defect in _repairs(connection, migrations)]


def _repairs(
    connection: Connection, migrations: Sequence[MigrationFile]
) -> list[tuple[SchemaObject, _Defect]]:
    objects = objects_of(migrations)
    defects = {(one.name, one.table): one for one in _defects(connection, objects)}
    lost = [one for one in defects.values() if one.kind == "table" and one.name not in _WRITTEN_AGAIN]
    if lost:
        raise _tables(lost)
    return [(one, defects[one.name, one.table]) for one in objects if (one.name, one.table) in defects]


def _defects(connection: Connection, objects: Iterable[SchemaObject]) -> list[_Defect]:
    triggers = [one for one in objects if one.kind == "trigger"]
    rows = connection.execute(
        statement("fitness"),
        {
            "tables": [one.name for one in objects if one.kind == "table"],
            "functions": [one.name for one in objects if one.kind == "function"],
            "triggers": [one.name for one in triggers],
            "trigger_tables": [one.table for one in triggers],
        },
    ).fetchall()
    return [_Defect(*row) for row in rows]


def _repair(one: SchemaObject, defect: _Defect, tense: str) -> str:
    place = f" on {one.table}" if one.table else ""
    if defect.kind == "disabled trigger":
        return f"The trigger {one.name}{place}, disabled, {tense} enabled again."
    return f"The {one.kind} {one.name}{place}, missing, {tense} made again."


def _consequence(one: SchemaObject) -> str:
    return "Roles of least privilege need `grants` again." if one.kind == "table" else _UNNOTICED


def _enabling(defect: _Defect) -> str:
    return f"ALTER TABLE {defect.table} ENABLE TRIGGER {defect.name};"


def _names(defects: Iterable[_Defect]) -> str:
    return ", ".join(defect.name for defect in defects)


def _on_tables(defects: Iterable[_Defect]) -> str:
    return ", ".join(f"{defect.name} on {defect.table}" for defect in defects)


def _tables(defects: list[_Defect]) -> SchemaMismatch:
    lost = [defect for defect in defects if defect.name not in _WRITTEN_AGAIN]
    return SchemaMismatch(
        f"Tables are missing that were there when the database was migrated: {_names(lost or defects)}.",
        _RESTORE_HINT if lost else _MIGRATE_HINT,
    )


def _functions(defects: list[_Defect]) -> SchemaMismatch:
    return SchemaMismatch(
        f"Functions are missing that migrations made: {_names(defects)}.",
        _MIGRATE_HINT,
    )


def _missing_triggers(defects: list[_Defect]) -> SchemaMismatch:
    return SchemaMismatch(
        f"Triggers are missing, so billing does not learn what the host changes: {_on_tables(defects)}.",
        f"{_MIGRATE_HINT}\n{_UNNOTICED}",
    )


def _disabled_triggers(defects: list[_Defect]) -> SchemaMismatch:
    return SchemaMismatch(
        f"Triggers are disabled, so billing does not learn what the host changes: {_on_tables(defects)}.",
        "\n".join([*map(_enabling, defects), f"-- {_UNNOTICED}"]),
    )


def _indexes(defects: list[_Defect]) -> SchemaMismatch:
    return SchemaMismatch(
        "; ".join(f"The index {one.name} is missing or invalid" for one in defects) + ".",
        "\n".join(f"DROP INDEX IF EXISTS {one.name};\n{_INDEX_HINTS[one.name]}" for one in defects),
    )


def _amounts(defects: list[_Defect]) -> SchemaMismatch:
    return SchemaMismatch(
        "The ledger cannot hold exact charges: "
        + "; ".join(f"{one.name} of vps_billing_cycles holds a fixed number of decimals" for one in defects)
        + ".",
        "Run `containerstacks-billing migrate`, which prints the statements that make them exact.",
    )


def _backups(_: list[_Defect]) -> SchemaMismatch:
    return SchemaMismatch(
        "vps_instances has the column backup_frequency by now, and backups are not rated yet.",
        "Run `containerstacks-billing migrate`, which adapts to it; backups are charged from then on.",
    )


# The one to mend first stands first: without its table no trigger can be made.
_SENTENCES: dict[str, Callable[[list[_Defect]], SchemaMismatch]] = {
    "table": _tables,
    "function": _functions,
    "trigger": _missing_triggers,
    "disabled trigger": _disabled_triggers,
    "index": _indexes,
    "amount": _amounts,
    "backups": _backups,
}
