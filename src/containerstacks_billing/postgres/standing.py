"""Read what the status page shows beside the health: bounded lists, in one transaction."""

from __future__ import annotations

from typing import Any, TypeVar

from psycopg.rows import class_row

from containerstacks_billing.billing.standing import (
    Details,
    PastDueWallet,
    PriceToCome,
    Runway,
    SetAsideInstance,
)
from containerstacks_billing.postgres.connection import Connection
from containerstacks_billing.postgres.health import recent_runs
from containerstacks_billing.postgres.queries import query

RUNS = 48
ROWS = 8

Row = TypeVar("Row", SetAsideInstance, Runway, PriceToCome)


def read_details(connection: Connection) -> Details:
    """Read the lists, inside the caller's transaction."""
    levels: dict[Any, Any] = dict(connection.execute(query("runways_ending"), {}).fetchall())
    return Details(
        runs=tuple(recent_runs(connection, RUNS)),
        set_aside=_rows(connection, "set_aside_first", SetAsideInstance),
        past_due=_past_due(connection),
        runways=_rows(connection, "runways_first", Runway),
        levels=levels,
        prices=_rows(connection, "prices_to_come", PriceToCome),
    )


def _past_due(connection: Connection) -> tuple[PastDueWallet, ...]:
    rows = connection.execute(query("past_due_first"), {"limit": ROWS}).fetchall()
    return tuple(
        PastDueWallet(organization, since, instances, amount, tuple(labels))
        for organization, since, instances, amount, labels in rows
    )


def _rows(connection: Connection, name: str, kind: type[Row]) -> tuple[Row, ...]:
    with connection.cursor(row_factory=class_row(kind)) as cursor:
        return tuple(cursor.execute(query(name), {"limit": ROWS}).fetchall())
