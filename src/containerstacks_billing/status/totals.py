"""Totals for metrics: runs since ever, wallets by runway, past-due charges, deliveries and the last verification."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from psycopg.rows import class_row

from containerstacks_billing.database.connection import Connection, set_timeouts
from containerstacks_billing.database.statements import ask

# The upper bounds of `RunTotal.within`, in seconds.
DURATION_BUCKETS = (1, 5, 15, 60, 300, 900, 3600)


@dataclass(frozen=True, slots=True)
class RunTotal:
    """What all runs of a trigger and an outcome add up to; `within` counts those that ended within each bucket."""

    trigger: str
    outcome: str
    runs: int
    hours: Decimal
    amount: Decimal
    duration_seconds: float
    within: list[int]


@dataclass(frozen=True, slots=True)
class Totals:
    """Figures for metrics at one instant; `wallets` counts those empty within 3, 24 and 72 hours, each once."""

    runs: tuple[RunTotal, ...]
    wallets: dict[int, int]
    past_due_amount: Decimal | None
    oldest_waiting_event: datetime | None
    verified_at: datetime | None
    discrepancies: int


def read_totals(connection: Connection) -> Totals:
    """Return the totals, in the caller's transaction."""
    runs = ask(connection, "run_totals", class_row(RunTotal))
    wallets = ask(connection, "runway_levels")
    past_due = ask(connection, "past_due_amount")
    event = ask(connection, "oldest_waiting_event")
    verification = ask(connection, "last_verification_figures")
    verified_at, discrepancies = verification.fetchone() or (None, 0)
    return Totals(
        runs=tuple(runs.fetchall()),
        wallets=dict(wallets.fetchall()),
        past_due_amount=(past_due.fetchone() or (None,))[0],
        oldest_waiting_event=event.fetchall()[0][0],
        verified_at=verified_at,
        discrepancies=discrepancies,
    )


def add_up_runs(connection: Connection) -> None:
    """Add the runs that ended to the totals, in a transaction of its own, so that old ones may be removed."""
    with connection.transaction():
        set_timeouts(connection)
        ask(connection, "lock_run_totals")
        ask(connection, "add_up_runs")
