"""Watch for top-ups: a customer who owes and can pay again is billed within seconds, not at the next hour.

The watch polls and does not LISTEN: it needs no trigger on the host's tables and works behind every pooler. It only
finds organizations; the billing loop runs each of them as any run of one organization, under the same lease and rules.
So a watch that is late, or sees what is no longer true, costs a run that finds nothing to pay.
"""

from __future__ import annotations

import threading
import time
from uuid import UUID

from containerstacks_billing.daemon.state import DaemonState
from containerstacks_billing.database.connection import Connection, bounded_transaction, connect
from containerstacks_billing.database.statements import query
from containerstacks_billing.errors import BillingError
from containerstacks_billing.schema.diagnose import diagnosed

SECONDS_BETWEEN = 5.0
# Of the time that passes, a look takes this share at most, however many customers owe.
_SHARE = 0.02
_ORGANIZATIONS_AT_ONCE = 100
# An organization that could not be billed (its rows are locked, its run failed) is left to others for so long.
_AGAIN_SECONDS = 60.0


def organizations_that_can_pay(connection: Connection, limit: int = _ORGANIZATIONS_AT_ONCE) -> list[UUID]:
    """Return organizations whose wallet covers the oldest hour that they owe, at most `limit`."""
    with bounded_transaction(connection):
        rows = connection.execute(query("organizations_that_can_pay"), {"limit": limit}).fetchall()
    return [organization for (organization,) in rows]


class TopUpWatch:
    """Looks every few seconds who can pay again, for one daemon; the database being away is not its business."""

    def __init__(self, state: DaemonState) -> None:
        self._state = state
        self._ending = threading.Event()
        self._found_at: dict[UUID, float] = {}
        self._thread = threading.Thread(target=self._look_repeatedly, name="top-ups", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """End; a look under way is not waited for, since it changes nothing."""
        self._ending.set()

    def _look_repeatedly(self) -> None:
        pause = SECONDS_BETWEEN
        while not self._ending.wait(pause):
            began = time.monotonic()
            self._look(began)
            pause = max(SECONDS_BETWEEN, (time.monotonic() - began) / _SHARE)

    def _look(self, now: float) -> None:
        conninfo = self._state.conninfo
        try:
            with diagnosed(conninfo), connect(conninfo, purpose="reading") as connection:
                found = organizations_that_can_pay(connection)
        except BillingError:
            return  # the heartbeat says so
        self._found_at = {one: at for one, at in self._found_at.items() if now - at < _AGAIN_SECONDS}
        new = [one for one in found if one not in self._found_at]
        self._found_at |= dict.fromkeys(new, now)
        self._state.bill_soon(new)
