"""Runways after a run, and the events about wallets; the argument opens runways.sql."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from containerstacks_billing.charging.model import OpenRun
from containerstacks_billing.charging.run_record import run_parameters
from containerstacks_billing.database.connection import Connection, set_timeouts
from containerstacks_billing.database.statements import query
from containerstacks_billing.errors import LeaseLost
from containerstacks_billing.notifications.outbox import enqueue_past_due_events

# Wallets that are looked at closely, and written, in one transaction. Only a first run, or a change of all prices,
# has more.
WALLETS_AT_ONCE = 50_000
_LONGEST_UPDATE = 10_000
# Room to add up the instances of all organizations in memory. SET LOCAL ends with the transaction.
_ROOM = "select set_config('work_mem', '64MB', true)"


def update_runways(connection: Connection, run: OpenRun, *, wallets_at_once: int = WALLETS_AT_ONCE) -> int:
    """Bring the runways of the run's organizations up to date and announce what was crossed; return how many changed.

    Runs under the lease, after charging. Each transaction is complete by itself: what it keeps, it has announced.
    Raises LeaseLost when another biller took over.
    """
    values = run_parameters(run) | {"limit": wallets_at_once}
    changed = 0
    for _ in range(_LONGEST_UPDATE):
        with connection.transaction():
            set_timeouts(connection)
            connection.execute(_ROOM)
            if connection.execute(query("fence"), values).fetchone() is None:
                raise LeaseLost("another biller took over the lease before the runways were up to date")
            values |= _rates(connection, values)
            rows = connection.execute(query("changed_runways"), values).fetchall()
            different = [row for row in rows if row[4]]
            _keep(connection, values, different)
        changed += len(different)
        if len(rows) < wallets_at_once or rows[-1][0] >= run_parameters(run)["last_organization"]:
            break
        values["first_organization"] = UUID(int=rows[-1][0].int + 1)
    return changed


def _rates(connection: Connection, values: dict[str, Any]) -> dict[str, list[Any]]:
    rows = connection.execute(query("rates_in_force"), values).fetchall()
    return {
        name: [row[column] for row in rows]
        for column, name in enumerate(("plan_names", "rates", "rates_with_backups"))
    }


def _keep(connection: Connection, values: dict[str, Any], rows: list[tuple[Any, ...]]) -> None:
    """Write what changed: first the marks that were changed outside of a batch, then the runways."""
    if any(mark_is_news for _, _, _, mark_is_news, *_ in rows):
        enqueue_past_due_events(connection, values)
    gone = [row for row in rows if row[2]]
    kept = [row for row in rows if not row[2]]
    if gone:
        connection.execute(
            query("forget_runways"),
            {"organizations": [row[0] for row in gone], "wallets": [row[1] for row in gone]},
        )
    if kept:
        organizations, wallets, _, _, _, burns, empties, levels, known_levels, past_due, payloads = map(
            list, zip(*kept, strict=True)
        )
        columns = {
            "organizations": organizations,
            "wallets": wallets,
            "burns": burns,
            "empties": empties,
            "levels": levels,
            "known_levels": known_levels,
            "past_due": past_due,
            "payloads": payloads,
        }
        connection.execute(query("keep_runways"), values | columns)
        connection.execute(query("announce_crossings"), values | columns)
