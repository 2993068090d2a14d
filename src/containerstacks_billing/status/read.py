"""Read how billing is: a handful of rows, all asked before the first answer is fetched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from psycopg import Cursor
from psycopg.rows import args_row, class_row

from containerstacks_billing.database.connection import Connection
from containerstacks_billing.database.statements import ask
from containerstacks_billing.status.failover import HeartbeatClamp, Reading
from containerstacks_billing.status.model import DaemonRow, Health, Lease, RunRecord

# Above every run.
LAST_RUN = 2**63 - 1


def ask_health(connection: Connection) -> Callable[[HeartbeatClamp], Health]:
    """Ask for everything that is shown, in the caller's transaction; what is returned fetches the answers."""
    reading = _ask_reading(connection)
    daemon = ask(connection, "newest_daemon", class_row(DaemonRow))
    last_finished = ask(connection, "last_run_of_fleet", args_row(RunRecord))
    last_successful = ask(connection, "last_success", args_row(RunRecord))
    in_progress = ask(connection, "open_run_record", args_row(RunRecord))
    lease = ask(connection, "lease_holder", class_row(Lease))
    set_aside = ask(connection, "set_aside_reasons")
    events = ask(connection, "events_waiting")

    def fetch(clamp: HeartbeatClamp) -> Health:
        pending, dead = events.fetchall()[0]
        return Health(
            failover=_reading(reading, clamp),
            daemon=daemon.fetchone(),
            last_finished=last_finished.fetchone(),
            last_successful=last_successful.fetchone(),
            in_progress=in_progress.fetchone(),
            lease=lease.fetchone() or Lease(),
            set_aside=dict(set_aside.fetchall()),
            events_pending=pending,
            events_dead=dead,
        )

    return fetch


def read_reading(connection: Connection, clamp: HeartbeatClamp) -> Reading:
    """Read heartbeat, last built-in run and the host's last debit, inside the caller's transaction."""
    return _reading(_ask_reading(connection), clamp)


def recent_runs(connection: Connection, limit: int, before: int = LAST_RUN) -> list[RunRecord]:
    """Return the latest runs before a number, newest first."""
    return ask_recent_runs(connection, limit, before).fetchall()


def ask_recent_runs(connection: Connection, limit: int, before: int = LAST_RUN) -> Cursor[RunRecord]:
    """Ask for the latest runs before a number, newest first."""
    return ask(connection, "runs_before", args_row(RunRecord), {"limit": limit, "before": before})


def billed_lately(connection: Connection) -> tuple[int, ...]:
    """Return runs, hours and amount of the last day, of the last week, and of the last thirty days."""
    return ask(connection, "billed_lately").fetchall()[0]


def _ask_reading(connection: Connection) -> tuple[Cursor[tuple[Any, ...]], ...]:
    return tuple(
        ask(connection, name) for name in ("newest_heartbeat", "last_built_in_run", "newest_debit_of_host")
    )


def _reading(asked: tuple[Cursor[tuple[Any, ...]], ...], clamp: HeartbeatClamp) -> Reading:
    heartbeat, last_run, debit = asked
    ((now, heartbeat_at, ahead),) = heartbeat.fetchall()
    started_at, outcome = last_run.fetchone() or (None, None)
    ((host_debit_at,),) = debit.fetchall()
    return Reading(now, clamp.clamp(now, heartbeat_at, ahead), started_at, outcome, host_debit_at)
