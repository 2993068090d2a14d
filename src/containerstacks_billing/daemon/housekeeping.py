"""Housekeeping: removal of old rows that are not part of the books, after a run and once an hour at most.

What may go, and why, opens housekeeping.sql. A failure is a warning, and the next hour tries again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from containerstacks_billing import logs
from containerstacks_billing.daemon.state import DaemonState
from containerstacks_billing.database.connection import Connection, bounded_transaction, connect, set_timeouts
from containerstacks_billing.database.statements import query
from containerstacks_billing.errors import BillingError
from containerstacks_billing.schema.diagnose import diagnosed
from containerstacks_billing.status.totals import add_up_runs

SECONDS_BETWEEN = 3600.0
ROWS_AT_ONCE = 500
STATEMENTS_AT_MOST = 40


class Housekeeping:
    """Removes old rows for one daemon."""

    def __init__(self, state: DaemonState) -> None:
        self._state = state
        self._next_at = state.clock.monotonic()

    def tidy(self) -> None:
        """Remove what is older than RETENTION_DAYS, unless that was done within the hour."""
        state, now = self._state, self._state.clock.monotonic()
        if now < self._next_at or state.stop_requested:
            return
        self._next_at = now + SECONDS_BETWEEN
        conninfo, retention_days = state.conninfo, state.settings.retention_days
        try:
            with diagnosed(conninfo), connect(conninfo, purpose="billing") as connection:
                if not is_clock_steady(connection):
                    logs.logger().warning(
                        "Nothing old is removed: the database's clock moved by months within the last runs",
                        hint="Compare the clocks of database and hosts; it goes on after a day of runs.",
                    )
                    return
                removed = remove_old(
                    connection,
                    retention_days=retention_days,
                    instance_id=state.instance_id,
                    stopping=lambda: state.stop_requested,
                )
        except BillingError as error:
            logs.logger().warning("Old rows could not be removed", reason=str(error), hint=error.hint)
            return
        if removed:
            logs.logger().info("Old rows removed", retention_days=retention_days, **removed)


def is_clock_steady(connection: Connection) -> bool:
    """Return whether the database's clock can be believed when it says what is old."""
    with bounded_transaction(connection):
        row = connection.execute(query("is_clock_steady")).fetchone()
    return bool(row and row[0])


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
    add_up_runs(connection)
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
