"""Readers of months; each works inside the caller's snapshot."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from psycopg.rows import class_row, dict_row

from containerstacks_billing.database.connection import Connection
from containerstacks_billing.database.statements import ask, one_row
from containerstacks_billing.months.model import (
    KnownMonth,
    LastVerification,
    MonthState,
    MonthStatus,
    MonthSums,
    Waiting,
    status_of,
)
from containerstacks_billing.verification.results import last_verification


def list_months(connection: Connection) -> tuple[datetime, list[MonthStatus]]:
    """Return the instant of the reading, and every month from that of the first charge to the present one."""
    now: datetime = one_row(connection, "database_clock")[0]
    months = ask(connection, "months_of_charges", class_row(MonthSums)).fetchall()
    waiting = _waiting(connection, [one.ends_at for one in months if one.ends_at <= now])
    last = last_verification(connection)
    verified = LastVerification(last["read_at"], last["discrepancies"]) if last else None
    known = {one.month: one for one in known_months(connection)}
    return now, [
        MonthStatus(one, MonthState(row.state), sha256=row.sha256)
        if (row := known.get(one.name))
        else status_of(one, waiting.get(one.ends_at), verified, now)
        for one in months
    ]


def known_months(connection: Connection) -> list[KnownMonth]:
    """Return the months that are closed or being closed, oldest first."""
    return ask(connection, "known_months", class_row(KnownMonth)).fetchall()


def _waiting(connection: Connection, ends: list[datetime]) -> dict[datetime, Waiting]:
    """Return what waits in the months that end at these instants."""
    rows = ask(connection, "waiting_in_months", dict_row, {"ends": ends}).fetchall()
    return {row.pop("ends_at"): Waiting(**row) for row in rows}


def frozen_totals(connection: Connection, month: str) -> list[dict[str, Any]]:
    """Return what is frozen of a month by organization, the largest amount first."""
    return ask(connection, "frozen_totals_of_month", dict_row, {"month": month}).fetchall()
