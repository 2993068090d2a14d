"""One batch in one transaction that is rolled back: the steps of a run on the real code path, and what they came to.

There is no lease and no run row: a rehearsal charges under the number 0, which no run has, and neither fences nor is
fenced. Beside a running biller it is the one that gives way, since it waits for a wallet for one second and the biller
for five; it holds a wallet only as long as a batch lasts. What it wrote is dead on arrival and left to autovacuum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from psycopg.rows import args_row

from containerstacks_billing.charging.batch import (
    batch_parameters,
    charge_and_post,
    compare_everything,
    hold_organizations,
    pin_planner,
    read_bills,
)
from containerstacks_billing.charging.forecast import BatchForecast, OrganizationForecast, SetAside
from containerstacks_billing.charging.model import Batch, BatchResult, OpenRun, Terms
from containerstacks_billing.charging.policies import begin_change, close_stretches, policy_in_force
from containerstacks_billing.database.connection import Connection
from containerstacks_billing.database.statements import query

# The planner is held for the steps alone; what is read afterwards is planned like in any other transaction.
_YIELD = "select set_config('lock_timeout', '1s', true)"
_UNPIN = """
    select set_config('enable_nestloop', 'on', true), set_config('enable_mergejoin', 'on', true),
        set_config('enable_seqscan', 'on', true)
"""


@dataclass(frozen=True, slots=True)
class Territory:
    """The organizations that a batch answers for: its own, and those before it that have nothing due."""

    first: UUID
    last: UUID


def bring_changes(connection: Connection, run: OpenRun, territory: Territory) -> None:
    """Let policy and prices change within the open transaction as the run would, for the organizations of a range."""
    _, settled = begin_change(connection, run.terms, run.as_of)
    while not settled:
        settled = not close_stretches(connection, territory.first, territory.last)
    connection.execute(query("sync_prices"), {"as_of": run.as_of})


def announced_changes(connection: Connection, terms: Terms, as_of: object) -> list[str]:
    """Say in sentences which changes of policy and price the next run would bring."""
    statuses, partial_hour = policy_in_force(connection)
    sentences = []
    if set(statuses) != set(terms.billable_statuses):
        sentences.append(
            f"BILLABLE_STATUSES changes from {','.join(statuses)} to {','.join(terms.billable_statuses)}"
            " with the next run; hours before it are charged by the old ones"
        )
    if partial_hour != terms.partial_hour:
        sentences.append(
            f"PARTIAL_HOUR changes from {partial_hour} to {terms.partial_hour} with the next run"
        )
    for name, recorded, shown, announced in connection.execute(
        query("pending_prices"), {"as_of": as_of}
    ).fetchall():
        if announced:
            sentences.append(
                f"the announced price of {name}, {recorded:f} a month, comes into force ({shown:f} before)"
            )
        else:
            sentences.append(
                f"the price of {name}, {shown:f} a month, is recorded and holds from now on ({recorded:f} before)"
            )
    return sentences


def rehearse_batch(
    connection: Connection,
    run: OpenRun,
    batch: Batch,
    territory: Territory,
    *,
    changes: bool = False,
    was_refused: bool = False,
    steps: bool = True,
) -> BatchForecast:
    """Charge one batch, read what came of it, and roll everything back; without `steps` only read.

    Raises what charging raises.
    """
    values = batch_parameters(run, batch)
    with connection.transaction(force_rollback=True):
        pin_planner(connection)
        connection.execute(_YIELD)
        if changes:
            bring_changes(connection, run, territory)
        if was_refused:
            compare_everything(connection, values)
        result = BatchResult()
        values |= {"organizations": [], "amounts": [], "instances": [], "hours": [], "one_instances": []}
        if steps:
            hold_organizations(connection, values)
            result = charge_and_post(connection, batch, values)
            read_bills(connection, values)
        connection.execute(_UNPIN)
        return _read(connection, result, values | _bounds(territory))


def _bounds(territory: Territory) -> dict[str, Any]:
    return {"first_organization": territory.first, "last_organization": territory.last}


def _read(connection: Connection, result: BatchResult, values: dict[str, Any]) -> BatchForecast:
    connection.execute(query("set_aside"), values)
    with connection.cursor(row_factory=args_row(OrganizationForecast)) as cursor:
        organizations = tuple(cursor.execute(query("forecast_organizations"), values))
    with connection.cursor(row_factory=args_row(SetAside)) as cursor:
        set_aside = tuple(cursor.execute(query("forecast_set_aside"), values))
    past_due = connection.execute(query("forecast_past_due"), values).fetchone()
    held = sum(one.reason == "held" for one in set_aside)
    return BatchForecast(
        result, organizations, set_aside, past_due[0] if past_due else 0, len(set_aside) - held, held
    )
