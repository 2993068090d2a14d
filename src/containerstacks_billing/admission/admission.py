"""Admission of new instances, and minimum balances; the decision itself is SQL (schema/code/admission.sql)."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from uuid import UUID

from psycopg.rows import dict_row

from containerstacks_billing.admission.schemas import Admission
from containerstacks_billing.database.connection import Connection, bounded_transaction
from containerstacks_billing.database.statements import query


def may_create(
    connection: Connection, organization: UUID, plan: str, *, hours: Decimal, currency: str
) -> Admission:
    """Return whether an organization may create an instance of a plan and keep it for so many hours."""
    values = {"organization": organization, "plan": plan, "hours": hours, "currency": currency}
    (answer,) = connection.execute(query("may_create"), values).fetchone() or ({},)
    return Admission.model_validate(answer)


def set_minimum(
    connection: Connection, plan_id: UUID | None, amount: Decimal, *, by: str, reason: str
) -> None:
    """Set what has to be available before an instance of a plan, or of any plan (None), may be created."""
    values = {"plan_id": plan_id, "amount": amount, "by": by, "reason": reason}
    with bounded_transaction(connection):
        connection.execute(query("set_minimum"), values)


def remove_minimum(connection: Connection, plan_id: UUID | None) -> bool:
    """Remove a minimum; False when there was none."""
    with bounded_transaction(connection):
        return bool(connection.execute(query("remove_minimum"), {"plan_id": plan_id}).rowcount)


def minimums(connection: Connection) -> list[dict[str, Any]]:
    """Return the minimums that are set, by column name."""
    with bounded_transaction(connection), connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query("list_minimums")).fetchall()
