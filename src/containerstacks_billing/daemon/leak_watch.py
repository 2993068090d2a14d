"""Leaks, looked for after a run and every six hours at most, so that pages and alerts know them.

Reads one snapshot without the provider's list; a failure is a warning, and the next run tries again.
"""

from __future__ import annotations

from containerstacks_billing import logs
from containerstacks_billing.charging.run import terms_of
from containerstacks_billing.daemon.state import DaemonState
from containerstacks_billing.errors import BillingError
from containerstacks_billing.explain.leak_reports import record_leaks
from containerstacks_billing.explain.leaks import find_leaks
from containerstacks_billing.explain.snapshot import snapshot

SECONDS_BETWEEN = 6 * 3600.0
# Of one statement: a fleet that takes longer is looked at by `leaks` alone.
STATEMENT_TIMEOUT = "60s"


class LeakWatch:
    """Keeps a report of leaks for one daemon."""

    def __init__(self, state: DaemonState) -> None:
        self._state = state
        self._next_at = state.clock.monotonic()

    def look(self) -> None:
        """Find leaks and keep their sums, unless that was done within six hours."""
        state, now = self._state, self._state.clock.monotonic()
        if now < self._next_at or state.stop_requested:
            return
        try:
            with snapshot(state.conninfo, STATEMENT_TIMEOUT) as connection:
                found = find_leaks(connection, terms_of(state.settings))
        except BillingError as error:
            logs.logger().warning("Leaks could not be looked for", reason=str(error), hint=error.hint)
            return
        self._next_at = now + SECONDS_BETWEEN
        record_leaks(state.conninfo, found, state.instance_id)
