"""Read what the tables say about billing, from small tables and by index only."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from psycopg.rows import args_row

from containerstacks_billing.billing.status import Daemon, RunRecord, Status
from containerstacks_billing.postgres.connection import Connection, asking
from containerstacks_billing.postgres.queries import ask


def set_aside_reasons(connection: Connection, organization: UUID | None = None) -> dict[str, int]:
    """Return how many instances are quarantined or held, by reason, most frequent first."""
    if organization is None:
        return dict(ask(connection, "set_aside_reasons").fetchall())
    return dict(ask(connection, "set_aside_reasons_of", values={"organization": organization}).fetchall())


def newest_runs(connection: Connection, limit: int) -> list[RunRecord]:
    """Return the last runs, newest first."""
    return ask(connection, "newest_runs", args_row(RunRecord), {"limit": limit}).fetchall()


def last_success(connection: Connection) -> RunRecord | None:
    """Return the last run over the whole fleet that completed."""
    return ask(connection, "last_success", args_row(RunRecord)).fetchone()


def read_status(connection: Connection) -> Status:
    """Read everything that the status shows, as of one instant."""
    with asking(connection):
        now = ask(connection, "database_clock")
        beat = ask(connection, "last_heard_of", args_row(Daemon))
        lease = ask(connection, "lease_holder")
        counts = ask(connection, "last_counts")
        last_run = ask(connection, "last_ended_run", args_row(RunRecord))
        success = ask(connection, "last_success", args_row(RunRecord))
        open_run = ask(connection, "open_run_record", args_row(RunRecord))
        reasons = ask(connection, "set_aside_reasons")
        runways = ask(connection, "runway_levels")
    return Status(
        now=now.fetchall()[0][0],
        daemon=beat.fetchone(),
        holder=_first(lease.fetchone(), None),
        last_run=last_run.fetchone(),
        last_success=success.fetchone(),
        open_run=open_run.fetchone(),
        past_due_instances=_first(counts.fetchone(), 0),
        reasons=dict(reasons.fetchall()),
        runways=dict(runways.fetchall()),
    )


def _first(row: tuple[Any, ...] | None, otherwise: Any) -> Any:
    return row[0] if row else otherwise
