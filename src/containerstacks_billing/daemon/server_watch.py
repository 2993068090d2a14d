"""Watch over the servers that one process bills on: heartbeat and charges on one server, and never on a former primary.

Where DATABASE_URL names several servers, a connection that stays open and one that is opened for a run may reach two of
them: after a failover the former primary may come back writable, and it may stand first. The heartbeat on the one would
vouch for what happens on the other.

Two rules. A server on an older timeline than one that was met before is refused, by the heartbeat as by a run. And
where a run reaches another server than the heartbeat, the heartbeat connects anew, by the same connection string.
"""

from __future__ import annotations

import threading

from containerstacks_billing import logs
from containerstacks_billing.database.connection import Connection
from containerstacks_billing.database.server_identity import Server, server_of
from containerstacks_billing.errors import DatabaseUnavailable


class ServerWatch:
    """What was met: the latest server of the cluster, that of the last run, and that of the heartbeat."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latest: Server | None = None
        self._charging: Server | None = None
        self._beating: Server | None = None

    def charges_on(self, connection: Connection) -> None:
        """Note where a run is about to charge; raises DatabaseUnavailable on a former primary."""
        server = server_of(connection)
        with self._lock:
            self._meet(server)
            self._charging = server

    def beats_on(self, connection: Connection) -> None:
        """Note where the heartbeat is about to be written; raises DatabaseUnavailable on a former primary."""
        server = server_of(connection)
        with self._lock:
            charging, self._charging = self._charging, None
            was_moved = self._beating is not None and charging not in (None, self._beating)
            self._meet(server)
            self._beating = server
        if was_moved and charging and server and charging != server:
            logs.logger().error(
                "Heartbeat and charges reach two servers; the heartbeat says nothing of what is charged",
                heartbeat=server.place,
                charges=charging.place,
            )

    def has_parted(self) -> bool:
        """Whether the last run reached another server than the heartbeat stands on."""
        with self._lock:
            return None not in (self._charging, self._beating) and self._charging != self._beating

    def _meet(self, server: Server | None) -> None:
        if server is None:
            return
        latest = self._latest
        if latest is not None and server.is_behind(latest):
            raise DatabaseUnavailable(
                f"The server at {server.place} writes timeline {server.timeline} of the database that was on timeline"
                f" {latest.timeline} at {latest.place}: a former primary that came back writable. Nothing is billed"
                " on it, and no heartbeat is written.",
                "Stop it, or start it as a standby of the new primary. If an older state was restored on purpose,"
                " restart the service.",
            )
        self._latest = server
