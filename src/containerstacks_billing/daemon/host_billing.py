"""Warning of a host whose own scheduler bills beside the daemon, after a run and once an hour at most."""

from __future__ import annotations

from containerstacks_billing import logs
from containerstacks_billing.daemon.state import DaemonState
from containerstacks_billing.database.connection import bounded_transaction, connect
from containerstacks_billing.database.statements import query
from containerstacks_billing.errors import BillingError
from containerstacks_billing.manuals import manual
from containerstacks_billing.schema.diagnose import diagnosed

SECONDS_BETWEEN = 3600.0


class HostBilling:
    """Watches the hourly debits that the host writes by itself, for one daemon."""

    def __init__(self, state: DaemonState) -> None:
        self._state = state
        self._next_at = state.clock.monotonic()

    def check(self) -> None:
        """Log the hours that both charged within a day; nothing within the hour after it was done."""
        state, now = self._state, self._state.clock.monotonic()
        if now < self._next_at or state.stop_requested:
            return
        self._next_at = now + SECONDS_BETWEEN
        try:
            with (
                diagnosed(state.conninfo),
                connect(state.conninfo, purpose="reading") as connection,
                bounded_transaction(connection),
            ):
                row = connection.execute(query("host_billing_beside")).fetchone()
        except BillingError as error:
            logs.logger().warning("What the host bills could not be read", reason=str(error))
            return
        if row is not None and row[0]:
            logs.logger().warning(
                "The host application bills too: hours that both charge are charged twice",
                debits=row[0],
                amount=row[1],
                hint=f"Switch its hourly billing off ({manual('hosts')}), and compare: containerstacks-billing verify",
            )
