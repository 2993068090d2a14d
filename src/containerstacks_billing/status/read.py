"""Read the state of billing: a handful of rows, all asked before the first answer is fetched."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

from psycopg import Cursor
from psycopg.rows import args_row, class_row

from containerstacks_billing.database.connection import Connection, connect, read_pipeline, set_timeouts
from containerstacks_billing.database.statements import ask
from containerstacks_billing.schema.diagnose import diagnosed
from containerstacks_billing.status.failover import ApplicationSide, Reading
from containerstacks_billing.status.model import (
    AnnouncedPrice,
    DaemonRow,
    Details,
    Health,
    LeakSums,
    Lease,
    PastDueWallet,
    QuarantineEntry,
    RunRecord,
    Runway,
    Status,
)

# Above the number of every run.
LAST_RUN = 2**63 - 1
READ_TIMEOUT = "5s"
RUNS_OF_THE_PAGE = 48
ROWS_OF_A_LIST = 8


def read_failover(conninfo: str) -> Reading:
    """Read what failover is decided from; raises BillingError when any part cannot be read.

    Nothing is assumed: an unreadable status is not a silent daemon. It reads where writing is possible, since a standby
    would show a heartbeat of the past.
    """
    with diagnosed(conninfo), connect(conninfo, purpose="billing") as connection, connection.transaction():
        set_timeouts(connection, READ_TIMEOUT)
        return _ask_reading(connection)()


def read_status(connection: Connection) -> Status:
    """Read what `status` and `doctor` show, as of one instant."""
    with read_pipeline(connection):
        health = ask_health(connection)
        counts = ask(connection, "last_counts")
        last_run = ask(connection, "last_ended_run", args_row(RunRecord))
        runways = ask(connection, "runway_levels")
    past_due = counts.fetchone()
    return Status(
        health=health(),
        last_run=last_run.fetchone(),
        past_due_instances=past_due[0] if past_due else 0,
        runways=dict(runways.fetchall()),
    )


def ask_health(connection: Connection) -> Callable[[], Health]:
    """Ask for the health, in the caller's transaction; what is returned fetches the answers."""
    reading = _ask_reading(connection)
    daemon = ask(connection, "newest_daemon", class_row(DaemonRow))
    last_finished = ask(connection, "last_run_of_fleet", args_row(RunRecord))
    last_successful = ask(connection, "last_success", args_row(RunRecord))
    in_progress = ask(connection, "open_run_record", args_row(RunRecord))
    lease = ask(connection, "lease_holder", class_row(Lease))
    quarantine = ask(connection, "quarantine_reasons")
    events = ask(connection, "events_waiting")

    def fetch() -> Health:
        pending, dead = events.fetchall()[0]
        return Health(
            failover=reading(),
            daemon=daemon.fetchone(),
            last_finished=last_finished.fetchone(),
            last_successful=last_successful.fetchone(),
            in_progress=in_progress.fetchone(),
            lease=lease.fetchone() or Lease(),
            quarantine=dict(quarantine.fetchall()),
            events_pending=pending,
            events_dead=dead,
        )

    return fetch


def ask_details(connection: Connection) -> Callable[[], Details]:
    """Ask for the lists of the page, in the caller's transaction; what is returned fetches the answers."""
    some = {"limit": ROWS_OF_A_LIST}
    runs = _ask_runs(connection, RUNS_OF_THE_PAGE, LAST_RUN)
    quarantine = ask(connection, "quarantine_first", class_row(QuarantineEntry), some)
    past_due = ask(connection, "past_due_first", class_row(PastDueWallet), some)
    runways = ask(connection, "runways_first", class_row(Runway), some)
    levels = ask(connection, "runway_levels")
    prices = ask(connection, "announced_prices", class_row(AnnouncedPrice), some)
    leaks = ask(connection, "last_leak_report", class_row(LeakSums))
    return lambda: Details(
        runs=tuple(runs.fetchall()),
        quarantine=tuple(quarantine.fetchall()),
        past_due=tuple(past_due.fetchall()),
        runways=tuple(runways.fetchall()),
        levels=dict(levels.fetchall()),
        prices=tuple(prices.fetchall()),
        leaks=leaks.fetchone(),
    )


def recent_runs(connection: Connection, limit: int, before: int = LAST_RUN) -> list[RunRecord]:
    """Return the latest runs before a number, newest first."""
    return _ask_runs(connection, limit, before).fetchall()


def last_success(connection: Connection) -> RunRecord | None:
    """Return the last run over the whole fleet that completed."""
    return ask(connection, "last_success", args_row(RunRecord)).fetchone()


def quarantine_reasons(connection: Connection, organization: UUID | None = None) -> dict[str, int]:
    """Return how many instances are quarantined or held, by reason, most frequent first."""
    if organization is None:
        return dict(ask(connection, "quarantine_reasons").fetchall())
    return dict(ask(connection, "quarantine_reasons_of", values={"organization": organization}).fetchall())


def last_leaks(connection: Connection) -> LeakSums | None:
    """Return what the last look for leaks found; None before the first."""
    return ask(connection, "last_leak_report", class_row(LeakSums)).fetchone()


def billed_lately(connection: Connection) -> tuple[int, ...]:
    """Return runs, hours and amount of the last day, of the last week, and of the last thirty days."""
    return ask(connection, "billed_lately").fetchall()[0]


def _ask_runs(connection: Connection, limit: int, before: int) -> Cursor[RunRecord]:
    return ask(connection, "runs_before", args_row(RunRecord), {"limit": limit, "before": before})


def _ask_reading(connection: Connection) -> Callable[[], Reading]:
    heartbeat = ask(connection, "newest_heartbeat")
    built_in_run = ask(connection, "last_built_in_run")
    debit = ask(connection, "newest_debit_of_host")
    sides = ask(connection, "application_sides", args_row(_application_side))

    def fetch() -> Reading:
        ((now, heartbeat_at),) = heartbeat.fetchall()
        started_at, outcome = built_in_run.fetchone() or (None, None)
        ((host_debit_at,),) = debit.fetchall()
        return Reading(now, heartbeat_at, started_at, outcome, host_debit_at, tuple(sides.fetchall()))

    return fetch


def _application_side(holder: str, setting: Any, failover_seconds: float, looked_at: Any) -> ApplicationSide:
    return ApplicationSide(holder, setting, timedelta(seconds=failover_seconds), looked_at)
