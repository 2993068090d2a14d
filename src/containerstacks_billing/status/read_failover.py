"""Read what failover is decided from."""

from __future__ import annotations

from containerstacks_billing.database.connection import connect, set_timeouts
from containerstacks_billing.schema.diagnose import diagnosed
from containerstacks_billing.status.failover import HeartbeatClamp, Reading
from containerstacks_billing.status.read import read_reading

READ_TIMEOUT = "5s"


def read_failover(conninfo: str, clamp: HeartbeatClamp) -> Reading:
    """Read heartbeat, last built-in run and the host's last debit; raises BillingError when any cannot be read.

    Nothing is guessed: who cannot read the status does not know that the daemon is silent. It reads where writing is
    possible, since a standby would show a heartbeat of the past.
    """
    with diagnosed(conninfo), connect(conninfo, purpose="billing") as connection, connection.transaction():
        set_timeouts(connection, READ_TIMEOUT)
        return read_reading(connection, clamp)
