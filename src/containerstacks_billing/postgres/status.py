"""Read what the tables say about billing, from small tables and by index only."""

from __future__ import annotations

from uuid import UUID

from psycopg.rows import args_row

from containerstacks_billing.billing.status import Daemon, RunRecord, Status
from containerstacks_billing.postgres.connection import Connection, transaction_bounds
from containerstacks_billing.postgres.queries import query
from containerstacks_billing.postgres.runs import database_clock


def set_aside_reasons(connection: Connection, organization: UUID | None = None) -> dict[str, int]:
    """Return how many instances are quarantined or held, by reason, most frequent first."""
    if organization is None:
        return dict(connection.execute(query("set_aside_reasons")).fetchall())
    return dict(connection.execute(query("set_aside_reasons_of"), {"organization": organization}).fetchall())


def newest_runs(connection: Connection, limit: int) -> list[RunRecord]:
    """Return the last runs, newest first."""
    return _records(connection, "newest_runs", {"limit": limit})


def last_success(connection: Connection) -> RunRecord | None:
    """Return the last run over the whole fleet that completed."""
    return _record(connection, "last_success")


def read_status(connection: Connection) -> Status:
    """Read everything that the status shows, as of one instant."""
    with connection.transaction():
        transaction_bounds(connection)
        beat = connection.execute(query("last_heard_of")).fetchone()
        lease = connection.execute(query("lease_holder")).fetchone()
        counts = connection.execute(query("last_counts")).fetchone()
        return Status(
            now=database_clock(connection),
            daemon=Daemon(*beat) if beat else None,
            holder=lease[0] if lease else None,
            last_run=_record(connection, "last_ended_run"),
            last_success=last_success(connection),
            open_run=_record(connection, "open_run_record"),
            past_due_instances=counts[0] if counts else 0,
            reasons=set_aside_reasons(connection),
            runways=dict(connection.execute(query("runway_levels")).fetchall()),
        )


def _record(connection: Connection, name: str) -> RunRecord | None:
    return next(iter(_records(connection, name, {})), None)


def _records(connection: Connection, name: str, values: dict[str, int]) -> list[RunRecord]:
    with connection.cursor(row_factory=args_row(RunRecord)) as cursor:
        return cursor.execute(query(name), values).fetchall()
