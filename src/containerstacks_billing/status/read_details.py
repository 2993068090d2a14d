"""Read what the status page shows beside the health: bounded lists, all asked before the first is fetched."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal

from psycopg.rows import args_row, class_row

from containerstacks_billing.database.connection import Connection
from containerstacks_billing.database.statements import ask
from containerstacks_billing.status.details import (
    Details,
    PastDueWallet,
    PriceToCome,
    Runway,
    SetAsideInstance,
)
from containerstacks_billing.status.read import ask_recent_runs

RUNS = 48
ROWS = 8


def ask_details(connection: Connection) -> Callable[[], Details]:
    """Ask for the lists, in the caller's transaction; what is returned fetches the answers."""
    some = {"limit": ROWS}
    runs = ask_recent_runs(connection, RUNS)
    set_aside = ask(connection, "set_aside_first", class_row(SetAsideInstance), some)
    past_due = ask(connection, "past_due_first", args_row(_past_due), some)
    runways = ask(connection, "runways_first", class_row(Runway), some)
    levels = ask(connection, "runways_ending")
    prices = ask(connection, "prices_to_come", class_row(PriceToCome), some)
    return lambda: Details(
        runs=tuple(runs.fetchall()),
        set_aside=tuple(set_aside.fetchall()),
        past_due=tuple(past_due.fetchall()),
        runways=tuple(runways.fetchall()),
        levels=dict(levels.fetchall()),
        prices=tuple(prices.fetchall()),
    )


def _past_due(
    organization: str | None, since: datetime, instances: int, amount: Decimal, labels: list[str]
) -> PastDueWallet:
    return PastDueWallet(organization, since, instances, amount, tuple(labels))
