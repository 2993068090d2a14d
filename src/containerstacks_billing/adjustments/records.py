"""Orders as they were recorded: reversals, credits and repayments, and what each moved."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from psycopg.rows import class_row

from containerstacks_billing.adjustments.model import OrderKind
from containerstacks_billing.database.connection import Connection
from containerstacks_billing.database.statements import ask


@dataclass(frozen=True, slots=True)
class RecordedOrder:
    """An order with what it moved so far; a negative amount went to customers. `undone_by` is its undo."""

    id: int
    kind: str
    mode: str
    scope: dict[str, Any]
    undoes: int | None
    undone_by: int | None
    decided_at: datetime
    decided_by: str
    reason: str
    last_posted_at: datetime | None
    unposted_charges: int | None
    unposted_amount: Decimal | None
    organizations: int
    charges: int
    amount: Decimal


@dataclass(frozen=True, slots=True)
class MovedOrganization:
    """What an order moved for one organization so far."""

    organization_id: UUID
    name: str
    charges: int
    instances: int
    hours: Decimal
    amount: Decimal
    entries: int


def recorded_orders(
    connection: Connection, kind: OrderKind | None, *, order_id: int | None = None, limit: int = 100
) -> list[RecordedOrder]:
    """Return orders, the newest first: of a kind, or the one with this number."""
    values = {"kind": kind, "order_id": order_id, "limit": limit}
    return ask(connection, "list_orders", class_row(RecordedOrder), values).fetchall()


def moved_organizations(connection: Connection, order_id: int, limit: int = 1000) -> list[MovedOrganization]:
    """Return what an order moved, the largest amounts first."""
    values = {"order_id": order_id, "limit": limit}
    return ask(connection, "order_by_organization", class_row(MovedOrganization), values).fetchall()
