"""Write and read the row by which a daemon is known."""

from __future__ import annotations

from psycopg.types.json import Jsonb

from containerstacks_billing.daemon.model import Beat, LastRun
from containerstacks_billing.database.connection import Connection, set_timeouts
from containerstacks_billing.database.statements import query

LONGEST_MESSAGE = 2000


def write_beat(connection: Connection, beat: Beat) -> None:
    """Write a heartbeat into the daemon's row, which is created where it is missing."""
    values = {
        "instance_id": beat.instance_id,
        "status": beat.state.value,
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
