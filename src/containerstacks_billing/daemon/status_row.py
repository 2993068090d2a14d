"""The status row of a daemon: write a heartbeat, restore the last run, close the rows of killed processes."""

from __future__ import annotations

import socket
from datetime import datetime

from psycopg.types.json import Jsonb

from containerstacks_billing.daemon.model import Beat, LastRun
from containerstacks_billing.database.connection import Connection, set_timeouts
from containerstacks_billing.database.statements import query
from containerstacks_billing.identity import is_known_to_be_gone

LONGEST_MESSAGE = 2000
KILLED = "the process was killed: it ended without stopping"


def write_beat(connection: Connection, beat: Beat) -> None:
    """Write a heartbeat into the daemon's row, which is created where it is missing."""
    values = {
        "instance_id": beat.instance_id,
        "status": beat.status.value,
        "last_run_at": beat.last_run.ended_at,
        "last_run_success": beat.last_run_success,
        "instances_billed": beat.last_run.instances_billed,
        "amount": beat.last_run.amount,
        "hours": beat.last_run.hours,
        "error_message": (beat.error_message or "").replace("\0", "")[:LONGEST_MESSAGE] or None,
        "up_seconds": beat.up_seconds,
        "silent_seconds": beat.silent_seconds,
        "next_seconds": beat.next_seconds,
        "metadata": Jsonb(beat.metadata),
    }
    with connection.transaction():
        set_timeouts(connection)
        connection.execute(query("beat"), values)


def last_run(connection: Connection) -> tuple[LastRun, str | None]:
    """Read the facts of the last run that a daemon finished, and its error message."""
    row = connection.execute(query("last_daemon_run")).fetchone()
    if row is None:
        return LastRun(), None
    run_id, ended_at, success, outcome, instances, amount, hours, message = row
    return LastRun(run_id, ended_at, success, outcome, instances, amount, hours), None if success else message


def close_rows_of_killed(connection: Connection, instance_id: str) -> list[tuple[str, datetime | None]]:
    """Mark the rows of daemons of this host whose process is known to be gone; return their ids and last heartbeats."""
    values = {"instance_id": instance_id, "hostname": socket.gethostname()}
    rows = connection.execute(query("rows_of_host"), values).fetchall()
    killed = [(daemon, beat) for daemon, beat, metadata in rows if is_known_to_be_gone(metadata or {})]
    for daemon, _ in killed:
        connection.execute(query("close_row"), {"instance_id": daemon, "message": KILLED})
    return killed
