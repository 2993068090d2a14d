"""Schema drift: what became of the schema since it was migrated, and how it is repaired.

A record says what was applied, not what became of it. A disabled trigger is the worst case: nothing fails, hours in
which an instance stood still are charged, and the books agree with themselves. So a run looks for every object that
money depends on, in one query of the catalogs, and refuses with the way back.

`migrate` repairs what carries no data of its own: it applies the repeatable files again and enables triggers. The rows
of a lost table are in a backup alone, unless the next run writes them anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from containerstacks_billing.database.connection import Connection
from containerstacks_billing.database.errors import MIGRATE_HINT
from containerstacks_billing.errors import SchemaMismatch
from containerstacks_billing.manuals import manual
from containerstacks_billing.schema.catalog import expected_catalog
from containerstacks_billing.schema.files import DeliveredSchema, SchemaFile, delivered_schema
from containerstacks_billing.schema.history import Recorded, find_table, read_record, statement
from containerstacks_billing.schema.lost_columns import REMADE, can_be_made_again
from containerstacks_billing.schema.squash import with_baseline

# Without these a run charges the same: what is missing is a status, a warning, a login or a convenience.
_NOT_FOR_MONEY = {
    "users", "billing_daemon_status", "billing_application_sides", "billing_tokens", "billing_runways",
    "billing_notify_events", "billing_rights", "billing_admit",
}  # fmt: skip
STATUS_TABLE = "billing_daemon_status"
# What they hold, the next heartbeat or run writes again. A warning about a runway may be given a second time.
_WRITTEN_AGAIN = {
    STATUS_TABLE, "billing_application_sides", "billing_quarantine", "billing_quarantine_counts", "billing_runways",
}  # fmt: skip

_GUIDE = manual("billing-daemon.md")
_RESTORE_HINT = (
    f"Restore what was in there from a backup, see “Backup and restore” in {_GUIDE}: "
    "`containerstacks-billing migrate` cannot know it."
)
_MIGRATE_HINT = "Run `containerstacks-billing migrate`, which makes them again."
_UNNOTICED = (
    "What the host changed meanwhile went unnoticed: "
    "look at `containerstacks-billing run --dry-run` before you bill."
)
_COLUMN_HINT = (
    "Give the columns of the host back their names and types, or install a version of containerstacks-billing that"
    " knows the new ones. What stood in a column of vps_billing_cycles is in a backup alone, see “Backup and restore”"
    f" in {_GUIDE}. Then `containerstacks-billing migrate`."
)
_FROM_THE_BOOKS = (
    "What was in it is derived from the books; `containerstacks-billing verify` names what they do not know,"
    " and `reconcile` settles it."
)
# Statements to copy; an unusable index of that name may stand in the way.
_INDEX_HINTS = {
    "vps_billing_cycles_one_charge_per_hour": "CREATE UNIQUE INDEX CONCURRENTLY vps_billing_cycles_one_charge_per_hour"
    " ON vps_billing_cycles (organization_id, billing_period_start, vps_instance_id,"
    " (CASE WHEN run_id IS NULL THEN id END)) NULLS NOT DISTINCT;",
    "vps_billing_cycles_past_due_hours": "CREATE INDEX CONCURRENTLY vps_billing_cycles_past_due_hours"
    " ON vps_billing_cycles (organization_id, billing_period_start, vps_instance_id)"
    " WHERE status = 'failed' AND run_id IS NOT NULL;",
}


@dataclass(frozen=True, slots=True)
class Defect:
    """One row of drift.sql; `name` of a function is its signature, `table` is what a trigger stands on."""

    kind: str
    subject: str
    table: str

    @property
    def name(self) -> str:
        """The name without arguments."""
        return self.subject.partition("(")[0].rstrip()

    @property
    def place(self) -> str:
        """The name, and for a trigger its table."""
        return f"{self.name} on {self.table}" if self.table else self.name

    @property
    def enabling(self) -> str:
        """The statement that enables a disabled trigger."""
        return f"ALTER TABLE {self.table} ENABLE TRIGGER {self.name};"

    def repair(self, tense: str) -> str:
        """The repair as a sentence, in a tense: "was" or "is to be"."""
        kind = self.kind.rpartition(" ")[2]
        state = {"disabled trigger": "disabled", "altered function": "altered"}.get(self.kind, "missing")
        return (
            f"The {kind} {self.place}, {state}, {tense} {'enabled' if state == 'disabled' else 'made'} again."
        )


def expected_schema_problem(
    connection: Connection, *, delivered: DeliveredSchema | None = None
) -> SchemaMismatch | None:
    """Return why billing must not run on this schema, with what to do about it, or None.

    Compares the record with the files of this version, and the catalog with what they made.
    """
    delivered = delivered_schema() if delivered is None else delivered
    try:
        record, code = read_record(connection, find_table(connection))
        record = with_baseline(record, delivered)
        refuse_mismatch(delivered, record)
    except SchemaMismatch as mismatch:
        return mismatch
    if pending := pending_files(delivered, record, code):
        return SchemaMismatch(
            f"The database lacks {len(pending)} of {len(delivered.files)} migrations,"
            f" the first is {pending[0].file_name}.",
            MIGRATE_HINT,
        )
    return drift(connection)


def pending_files(
    delivered: DeliveredSchema, record: Mapping[int, Recorded], code: Mapping[str, Recorded]
) -> list[SchemaFile]:
    """Return the files that migrate would apply, in order."""
    tables = [file for file in delivered.tables if file.version not in record]
    return tables + [file for file in delivered.code if is_outdated(file, code)]


def is_outdated(file: SchemaFile, code: Mapping[str, Recorded]) -> bool:
    """Whether a repeatable file is recorded with another text, or not at all."""
    return file.name not in code or code[file.name].checksum != file.checksum


def refuse_mismatch(delivered: DeliveredSchema, record: Mapping[int, Recorded]) -> None:
    """Raise SchemaMismatch when the record holds a migration that this version does not have in the same words."""
    known = {file.version: file for file in delivered.tables}
    for one in record.values():
        file = known.get(one.version)
        if file is None:
            raise SchemaMismatch(
                f"The database has the migration {one.version:03}_{one.name}, which this version does not know.",
                "Install the version of containerstacks-billing that migrated it, or a newer one.",
            )
        if file.checksum != one.checksum:
            raise SchemaMismatch(
                f"The migration {file.file_name} was changed after it was applied on {one.applied_at:%Y-%m-%d}.",
                "Restore the file as it was delivered; a correction is a migration of its own.",
            )


def drift(connection: Connection, *, ignoring: Collection[str] = ()) -> SchemaMismatch | None:
    """Return why billing must not run on what became of the schema, with the way back, or None.

    `ignoring` names kinds of defects that are reported elsewhere.
    """
    found = [
        defect
        for defect in _defects(connection)
        if defect.name not in _NOT_FOR_MONEY and defect.kind not in ignoring
    ]
    for kind, say in _SENTENCES.items():
        if defects := [defect for defect in found if defect.kind == kind]:
            return say(defects)
    return None


def repairable(connection: Connection) -> list[Defect]:
    """Return what `migrate` repairs. Raises SchemaMismatch where the rows of a table or a column are lost."""
    found = _defects(connection)
    if lost := [one for one in found if one.kind == "table" and one.name not in _WRITTEN_AGAIN]:
        raise _tables(lost)
    columns = [one for one in found if one.kind == "column"]
    if any(not can_be_made_again(one.subject) for one in columns):
        raise _columns(columns)
    return [one for one in found if one.kind.rpartition(" ")[2] in ("table", "column", "function", "trigger")]


def repaired(defect: Defect) -> str:
    """Return what was repaired and what follows from it, in sentences."""
    consequences = {"table": "Roles of least privilege need `grants` again.", "column": _FROM_THE_BOOKS}
    return f"{defect.repair('was')} {consequences.get(defect.kind, _UNNOTICED)}"


def _defects(connection: Connection) -> list[Defect]:
    expected = expected_catalog()
    rows = connection.execute(
        statement("drift"),
        {
            "tables": list(expected.tables),
            "signatures": [signature for signature, _ in expected.functions],
            "bodies": [body for _, body in expected.functions],
            "triggers": [name for name, _ in expected.triggers],
            "trigger_tables": [table for _, table in expected.triggers],
        },
    ).fetchall()
    defects = [Defect(*row) for row in rows]
    if any(defect.kind in ("table", "column", "function") for defect in defects):
        return defects  # what looks for the rest may be among them
    behind = connection.execute("select billing_sequences_behind()").fetchall()
    return defects + [Defect("sequence", name, "") for (name,) in behind]


def _places(defects: Iterable[Defect]) -> str:
    return ", ".join(defect.place for defect in defects)


def _tables(defects: list[Defect]) -> SchemaMismatch:
    lost = [defect for defect in defects if defect.name not in _WRITTEN_AGAIN]
    return SchemaMismatch(
        f"Tables are missing that were there when the database was migrated: {_places(lost or defects)}.",
        _RESTORE_HINT if lost else _MIGRATE_HINT,
    )


def _columns(defects: list[Defect]) -> SchemaMismatch:
    lost = [defect for defect in defects if not can_be_made_again(defect.subject)]
    return SchemaMismatch(
        "Columns that billing needs are missing or have another type: "
        f"{', '.join(defect.subject for defect in defects)}. Nothing is billed, and no change of"
        " an instance is metered.",
        _COLUMN_HINT if lost else REMADE,
    )


def _functions(defects: list[Defect]) -> SchemaMismatch:
    return SchemaMismatch(f"Functions are missing that migrations made: {_places(defects)}.", _MIGRATE_HINT)


def _altered_functions(defects: list[Defect]) -> SchemaMismatch:
    return SchemaMismatch(f"Functions are not those that migrations made: {_places(defects)}.", _MIGRATE_HINT)


def _missing_triggers(defects: list[Defect]) -> SchemaMismatch:
    return SchemaMismatch(
        f"Triggers are missing, so billing does not learn what the host changes: {_places(defects)}.",
        f"{_MIGRATE_HINT}\n{_UNNOTICED}",
    )


def _disabled_triggers(defects: list[Defect]) -> SchemaMismatch:
    return SchemaMismatch(
        f"Triggers are disabled, so billing does not learn what the host changes: {_places(defects)}.",
        "\n".join([*(defect.enabling for defect in defects), f"-- {_UNNOTICED}"]),
    )


def _indexes(defects: list[Defect]) -> SchemaMismatch:
    return SchemaMismatch(
        "; ".join(f"The index {one.name} is missing or invalid" for one in defects) + ".",
        "\n".join(f"DROP INDEX IF EXISTS {one.name};\n{_INDEX_HINTS[one.name]}" for one in defects),
    )


def _amounts(defects: list[Defect]) -> SchemaMismatch:
    return SchemaMismatch(
        "The ledger cannot hold exact charges: "
        + "; ".join(f"{one.name} of vps_billing_cycles holds a fixed number of decimals" for one in defects)
        + ".",
        "Run `containerstacks-billing migrate`, which prints the statements that make them exact.",
    )


def _backups(_: list[Defect]) -> SchemaMismatch:
    return SchemaMismatch(
        "vps_instances has the column backup_frequency by now, and backups are not rated yet.",
        "Run `containerstacks-billing migrate`, which adapts to it; backups are charged from then on.",
    )


def _replication_roles(defects: list[Defect]) -> SchemaMismatch:
    return SchemaMismatch(
        "No trigger of billing fires, so billing does not learn what the host changes: session_replication_role is"
        f" replica for {', '.join(defect.subject for defect in defects)}.",
        "\n".join([*(defect.table for defect in defects), f"-- {_UNNOTICED}"]),
    )


def _sequences(defects: list[Defect]) -> SchemaMismatch:
    return SchemaMismatch(
        "Sequences stand behind their tables, as after a cut-over by logical replication:"
        f" {', '.join(defect.subject for defect in defects)}.",
        "Run `containerstacks-billing migrate`, which sets them to their tables.",
    )


# The one to repair first stands first: without its table no trigger can be made.
_SENTENCES: dict[str, Callable[[list[Defect]], SchemaMismatch]] = {
    "table": _tables,
    "column": _columns,
    "function": _functions,
    "altered function": _altered_functions,
    "trigger": _missing_triggers,
    "disabled trigger": _disabled_triggers,
    "replication role": _replication_roles,
    "sequence": _sequences,
    "index": _indexes,
    "amount": _amounts,
    "backups": _backups,
}
