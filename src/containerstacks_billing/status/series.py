"""The past of billing for charts: runs of the whole fleet summed up by hour or day, with the hours that have none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from psycopg.rows import class_row

from containerstacks_billing.database.connection import Connection
from containerstacks_billing.database.statements import ask

HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Span:
    """A span that ends now, and the width of its bars."""

    name: str
    title: str
    length: timedelta
    step: timedelta


SPANS = {
    span.name: span
    for span in (
        Span("24h", "24 hours", 24 * HOUR, HOUR),
        Span("7d", "7 days", 168 * HOUR, HOUR),
        Span("30d", "30 days", 720 * HOUR, 6 * HOUR),
        Span("12m", "12 months", 8784 * HOUR, 24 * HOUR),
    )
}


@dataclass(frozen=True, slots=True)
class Bucket:
    """What the runs of one hour or day come to; the greatest of what is no sum."""

    starts_at: datetime
    runs: int
    completed: int
    amount: Decimal
    instances: int
    hourly_rate: Decimal
    duration_seconds: float
    since_previous_hours: float | None
    past_due_instances: int
    past_due_amount: Decimal | None
    left_out: int


def read_series(connection: Connection, span: Span) -> Sequence[Bucket]:
    """Return the buckets of a span that have a run, the oldest first."""
    values = {"length": span.length, "step": span.step}
    return ask(connection, "runs_over_time", class_row(Bucket), values).fetchall()
