"""Instances and closed segments that are quarantined or held at present."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from psycopg.rows import class_row

from containerstacks_billing.database.connection import Connection, set_timeouts
from containerstacks_billing.database.statements import query


@dataclass(frozen=True, slots=True)
class QuarantineEntry:
    """An instance that the last run left out: a reason of a few words, and a sentence that says what to do.

    `due_hours` is None where its dates do not allow to count them; `segment_id` is 0 for the open segment;
    `organization` is its name.
    """

    reason: str
    detail: str
    first_seen_at: datetime
    due_hours: Decimal | None
    organization_id: UUID
    organization: str | None
    instance_id: UUID
    segment_id: int
    label: str | None


def quarantine_entries(connection: Connection, limit: int) -> list[QuarantineEntry]:
    """Return what is quarantined or held, the longest first."""
    with connection.transaction(), connection.cursor(row_factory=class_row(QuarantineEntry)) as cursor:
        set_timeouts(connection)
        return cursor.execute(query("quarantined_instances"), {"limit": limit}).fetchall()
