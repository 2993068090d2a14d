"""Outbox of events: enqueue, claim, record, retry, list. outbox.sql explains how events are claimed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.rows import dict_row

from containerstacks_billing.database.connection import Connection, set_timeouts
from containerstacks_billing.database.statements import query
from containerstacks_billing.notifications.model import ATTEMPTS_IN_ORDER, STALE_HOURS, Event


def enqueue_past_due_events(connection: Connection, values: Mapping[str, Any]) -> None:
    """Enqueue `past_due` and `recovered` events, inside the transaction that changed the marks.

    `values` names the range of organizations, the run, its instant and the currency.
    """
    if connection.execute(query("announce_past_due"), values).rowcount:
        connection.execute(query("note_announced_marks"), values)


def expire_stale(connection: Connection, now: datetime | None) -> int:
    """Give up events without an attempt for three days; return how many."""
    return _execute(connection, "expire_stale_events", {"now": now, "stale_hours": STALE_HOURS})


def claim(connection: Connection, *, now: datetime | None, limit: int, lease_seconds: float) -> list[Event]:
    """Claim up to `limit` due events for `lease_seconds`, oldest first; old failures beside others."""
    values = {
        "now": now,
        "limit": limit,
        "lease_seconds": lease_seconds,
        "attempts_in_order": ATTEMPTS_IN_ORDER,
    }
    with connection.transaction():
        set_timeouts(connection)
        rows = connection.execute(query("claim_events"), values).fetchall()
    return sorted((Event(*row) for row in rows), key=lambda event: event.sequence)


def record_delivered(connection: Connection, event: Event, now: datetime | None) -> None:
    """Record a delivered event."""
    _execute(connection, "record_delivered", {"id": event.sequence, "now": now})


def record_failed(
    connection: Connection, event: Event, error: str, pause: float | None, now: datetime | None
) -> None:
    """Record why an attempt failed; `pause` is the seconds until the next, None gives the event up."""
    values = {
        "id": event.sequence,
        "attempts": event.attempt,
        "error": error,
        "pause_seconds": pause,
        "now": now,
    }
    _execute(connection, "record_failed", values)


def release(connection: Connection, events: Sequence[Event], now: datetime | None) -> None:
    """Release the claim of events that were not attempted."""
    _execute(connection, "release_events", {"ids": [event.sequence for event in events], "now": now})


def waiting(connection: Connection, organization: UUID | None = None) -> tuple[int, datetime | None]:
    """Return how many events wait, of one organization or of all, and when the first of them is due."""
    values = {"organization": organization}
    count, due_at = connection.execute(query("waiting_events"), values).fetchone() or (0, None)
    return count, due_at


def revive(connection: Connection, sequence: int) -> bool:
    """Schedule one event to be sent again now; False when it does not exist."""
    with connection.transaction():
        set_timeouts(connection)
        found = connection.execute(query("revive_event"), {"id": sequence}).fetchone() is not None
        connection.execute(query("notify_events"))
    return found


def revive_dead(connection: Connection) -> int:
    """Schedule all dead events to be sent again now; return how many."""
    with connection.transaction():
        set_timeouts(connection)
        count = connection.execute(query("revive_dead_events")).rowcount
        connection.execute(query("notify_events"))
    return count


def list_events(
    connection: Connection, *, dead: bool, kind: str | None, organization: UUID | None, limit: int
) -> list[dict[str, Any]]:
    """Return the newest events, by column name."""
    values = {"dead": dead, "kind": kind, "organization": organization, "limit": limit}
    return _fetch(connection, "list_events", values)


def list_runways(connection: Connection, *, below_hours: float | None, limit: int) -> list[dict[str, Any]]:
    """Return the wallets by the time that they last, those past due first; by column name."""
    return _fetch(connection, "list_runways", {"below_hours": below_hours, "limit": limit})


def _execute(connection: Connection, name: str, values: dict[str, Any]) -> int:
    with connection.transaction():
        set_timeouts(connection)
        return connection.execute(query(name), values).rowcount


def _fetch(connection: Connection, name: str, values: dict[str, Any]) -> list[dict[str, Any]]:
    with connection.transaction():
        set_timeouts(connection)
        with connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(query(name), values).fetchall()
