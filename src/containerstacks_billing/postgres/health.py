"""Read how billing is: a handful of rows, in one transaction."""

from __future__ import annotations

from typing import TypeVar

from psycopg.rows import args_row, class_row

from containerstacks_billing.billing.failover import HeartbeatClamp, Reading
from containerstacks_billing.billing.health import DaemonRow, Health, Lease
from containerstacks_billing.billing.status import RunRecord
from containerstacks_billing.postgres.connection import Connection
from containerstacks_billing.postgres.queries import query
from containerstacks_billing.postgres.status import set_aside_reasons

Row = TypeVar("Row", DaemonRow, Lease)

# Above every run.
LAST_RUN = 2**63 - 1


def read_health(connection: Connection, clamp: HeartbeatClamp) -> Health:
    """Read everything that is shown, inside the caller's transaction."""
    pending, dead = connection.execute(query("events_waiting"), {}).fetchone() or (0, 0)
    return Health(
        failover=read_reading(connection, clamp),
        daemon=_one(connection, "newest_daemon", DaemonRow),
        last_finished=_run(connection, "last_run_of_fleet"),
        last_successful=_run(connection, "last_success"),
        in_progress=_run(connection, "open_run_record"),
        lease=_one(connection, "lease_holder", Lease) or Lease(),
        set_aside=set_aside_reasons(connection),
        events_pending=pending,
        events_dead=dead,
    )


def read_reading(connection: Connection, clamp: HeartbeatClamp) -> Reading:
    """Read heartbeat, last built-in run and the host's last debit, inside the caller's transaction."""
    now, heartbeat_at, ahead = connection.execute(query("newest_heartbeat"), {}).fetchall()[0]
    last_run = connection.execute(query("last_built_in_run"), {}).fetchone()
    ((host_debit_at,),) = connection.execute(query("newest_debit_of_host"), {}).fetchall()
    started_at, outcome = last_run or (None, None)
    return Reading(now, clamp.clamp(now, heartbeat_at, ahead), started_at, outcome, host_debit_at)


def recent_runs(connection: Connection, limit: int, before: int = LAST_RUN) -> list[RunRecord]:
    """Return the latest runs before a number, newest first."""
    return _runs(connection, "runs_before", {"limit": limit, "before": before})


def billed_lately(connection: Connection) -> tuple[int, ...]:
    """Return runs, hours and amount of the last day, of the last week, and of the last thirty days."""
    return connection.execute(query("billed_lately"), {}).fetchall()[0]


def _one(connection: Connection, name: str, kind: type[Row]) -> Row | None:
    with connection.cursor(row_factory=class_row(kind)) as cursor:
        return cursor.execute(query(name), {}).fetchone()


def _run(connection: Connection, name: str) -> RunRecord | None:
    return next(iter(_runs(connection, name, {})), None)


def _runs(connection: Connection, name: str, values: dict[str, int]) -> list[RunRecord]:
    with connection.cursor(row_factory=args_row(RunRecord)) as cursor:
        return cursor.execute(query(name), values).fetchall()
