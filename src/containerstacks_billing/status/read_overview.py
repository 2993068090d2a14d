"""Read what the tables say about billing, from small tables and by index only."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

from psycopg.rows import args_row

from containerstacks_billing.database.connection import Connection, read_pipeline
from containerstacks_billing.database.statements import ask
from containerstacks_billing.status.failover import HeartbeatClamp
from containerstacks_billing.status.model import RunRecord, Status
from containerstacks_billing.status.read import ask_health


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
    with read_pipeline(connection):
        answers = ask_health(connection)
        counts = ask(connection, "last_counts")
        last_run = ask(connection, "last_ended_run", args_row(RunRecord))
        runways = ask(connection, "runway_levels")
    health = answers(HeartbeatClamp())
    # One look cannot tell a heartbeat of another age from one of now; the row of the daemon says what counts.
    beat = health.daemon.heartbeat_at if health.daemon else None
    return Status(
        health=replace(health, failover=replace(health.failover, heartbeat_at=beat)),
        last_run=last_run.fetchone(),
        past_due_instances=_first(counts.fetchone(), 0),
        runways=dict(runways.fetchall()),
    )


def _first(row: tuple[Any, ...] | None, otherwise: Any) -> Any:
    return row[0] if row else otherwise
