"""Remove old rows that are no books, a few at a time; what may go and why opens queries/housekeeping.sql."""

from __future__ import annotations

import threading
from collections.abc import Callable

from containerstacks_billing.database.connection import Connection, set_timeouts
from containerstacks_billing.database.statements import query

ROWS_AT_ONCE = 500
STATEMENTS_AT_MOST = 40


def remove_old(
    connection: Connection,
    *,
    retention_days: int,
    instance_id: str,
    stopping: Callable[[], bool] | None = None,
) -> dict[str, int]:
    """Remove what is older than `retention_days`; return how many rows of each table, those with none left out.

    One call removes 20,000 rows of a table at most; what is left goes the next time.
    """
    values = {"retention_days": retention_days, "instance_id": instance_id, "limit": ROWS_AT_ONCE}
    stopping = stopping or threading.Event().is_set
    removed: dict[str, int] = {}
    for table, name in (
        ("billing_daemon_status", "remove_old_statuses"),
        ("billing_runs", "remove_old_runs"),
        ("billing_events", "remove_old_events"),
    ):
        for _ in range(STATEMENTS_AT_MOST):
            if stopping():
                return removed
            with connection.transaction():
                set_timeouts(connection)
                count = connection.execute(query(name), values).rowcount
            if count:
                removed[table] = removed.get(table, 0) + count
            if count < ROWS_AT_ONCE:
                break
    return removed
