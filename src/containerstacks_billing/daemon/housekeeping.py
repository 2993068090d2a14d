"""Housekeeping after a run, once an hour at most. It is a courtesy: a failure is a warning, and the next time comes."""

from __future__ import annotations

from collections.abc import Callable

from containerstacks_billing import logs
from containerstacks_billing.clock import Clock
from containerstacks_billing.daemon.housekeeping_statements import remove_old
from containerstacks_billing.database.connection import connect
from containerstacks_billing.errors import BillingError
from containerstacks_billing.schema.diagnose import diagnosed

SECONDS_BETWEEN = 3600.0


class Housekeeping:
    """Removes old rows for one daemon."""

    def __init__(self, clock: Clock, instance_id: str, stopping: Callable[[], bool]) -> None:
        self._clock, self._instance_id, self._stopping = clock, instance_id, stopping
        self._next_at = clock.monotonic()

    def tidy(self, conninfo: str, retention_days: int) -> None:
        """Remove what is older than `retention_days`, unless that was done within the hour."""
        now = self._clock.monotonic()
        if now < self._next_at or self._stopping():
            return
        self._next_at = now + SECONDS_BETWEEN
        try:
            with diagnosed(conninfo), connect(conninfo, purpose="billing") as connection:
                removed = remove_old(
                    connection,
                    retention_days=retention_days,
                    instance_id=self._instance_id,
                    stopping=self._stopping,
                )
        except BillingError as error:
            logs.logger().warning("Old rows could not be removed", reason=str(error), hint=error.hint)
            return
        if removed:
            logs.logger().info("Old rows removed", retention_days=retention_days, **removed)
