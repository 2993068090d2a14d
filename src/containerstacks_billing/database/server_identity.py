"""Identity of a database server: which one of a cluster a connection reaches, and on which timeline it writes.

A connection string may name several servers. A promotion begins a new timeline, so of two writable servers of one
cluster the one on the older timeline is a former primary.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import psycopg

from containerstacks_billing.database.connection import Connection
from containerstacks_billing.database.statements import query


@dataclass(frozen=True, slots=True)
class Server:
    """One server since its start; `system` is the same for a primary and its standbys."""

    system: str
    timeline: int
    started_at: datetime
    place: str

    def is_behind(self, other: Server) -> bool:
        """Whether the other one is of the same cluster and was promoted later."""
        return self.system == other.system and self.timeline < other.timeline


def server_of(connection: Connection) -> Server | None:
    """Return the server of an idle connection; None where it does not say, as a standby or some managed servers."""
    try:
        row = connection.execute(query("server_identity")).fetchone()
    except psycopg.errors.Error:
        if connection.closed:
            raise
        return None
    if row is None or None in row:
        return None
    system, timeline, started_at = row
    return Server(system, timeline, started_at, f"{connection.info.host}:{connection.info.port}")
