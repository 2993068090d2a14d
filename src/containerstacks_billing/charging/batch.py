"""The charging transaction: one batch, charged and posted as a whole or not at all (README.md has the argument)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any
from uuid import UUID

from containerstacks_billing.charging.model import (
    Batch,
    BatchResult,
    BatchScope,
    Bounds,
    OpenRun,
    Rates,
)
from containerstacks_billing.charging.returned import flush_segments, seal_charged
from containerstacks_billing.database.connection import Connection, bounded_transaction
from containerstacks_billing.database.statements import ask
from containerstacks_billing.errors import InvariantBroken, LeaseLost
from containerstacks_billing.notifications.outbox import enqueue_past_due_events

# The planner sees tables that this very transaction changes, and statistics of them that are always a little old. It is
# held to hash joins and index ranges, which are right for every batch, or single batches flip to nested loops for
# seconds. SET LOCAL ends with the transaction, so a pooler hands the connection on clean.
_PIN_PLANNER = """
    select set_config('lock_timeout', %(lock)s, true), set_config('statement_timeout', %(statement)s, true),
        set_config('idle_in_transaction_session_timeout', %(idle)s, true),
        set_config('enable_nestloop', 'off', true), set_config('jit', 'off', true),
        set_config('enable_mergejoin', 'off', true), set_config('enable_seqscan', 'off', true),
        set_config('max_parallel_workers_per_gather', '0', true),
        set_config('work_mem', '64MB', true), set_config('containerstacks_billing.advancing', 'on', true)
"""

BOUNDS = Bounds()
COMPARISON_TIMEOUT = "300s"


class ChangedMeanwhile(Exception):
    """The host changed an instance since it was read; the batch was rolled back and can be tried again."""


class RatesChanged(ChangedMeanwhile):
    """A price or plan changed since the rates were read: rolled back, to be tried again with rates read anew."""


class SliceFellShort(Exception):
    """The wallet of a large organization does not cover this slice any more; it has to be charged as a whole."""


def charge_batch(
    connection: Connection,
    run: OpenRun,
    batch: Batch,
    rates: Rates | None = None,
    bounds: Bounds | None = None,
) -> BatchResult:
    """Charge one batch and commit it, or leave nothing behind.

    `rates` are those of the run (`rates_of_run`); without them they are read here. Raises LeaseLost, ChangedMeanwhile,
    RatesChanged, SliceFellShort and what the database raises.
    """
    scope = BatchScope(run, batch, rates)
    with connection.transaction():
        pin_planner(connection, bounds)
        if ask(connection, "fence", values=scope.parameters()).fetchone() is None:
            raise LeaseLost("another biller took over the lease; this batch charged nothing")
        lock_organizations(connection, scope)
        scope = replace(scope, rates=rates or rates_of_run(connection, run))
        result = charge_and_post(connection, scope)
        _record(connection, scope, result)
    return result


def pin_planner(connection: Connection, bounds: Bounds | None = None) -> None:
    """Hold the planner, and the time that the open transaction may take, to what is right for every batch."""
    connection.execute(_PIN_PLANNER, asdict(bounds or BOUNDS))


def rates_of_run(connection: Connection, run: OpenRun) -> Rates:
    """Return the rates that the hours of a run can have, as they are in the tables now."""
    values = {"as_of": run.as_of, "hours_per_month": run.terms.hours_per_month}
    return Rates(*_one(connection, "rates_of_run", values))


def lock_organizations(connection: Connection, scope: BatchScope) -> None:
    """Lock the organizations of the batch, in order."""
    ask(connection, "lock_organizations", values=scope.parameters())


def charge_and_post(connection: Connection, scope: BatchScope) -> BatchResult:
    """Lock the wallets, charge, advance and post: what a run commits, and what a dry run rolls back."""
    values = scope.parameters()
    past_due, segments = _one(connection, "lock_wallets", values)
    if scope.batch.is_ordinary and not segments:
        statement = "charge_single_hour"
    else:
        flush_segments(connection, values)
        statement = "charge"
    is_complete, short, unsealed, *billed = _one(connection, statement, values)
    if not is_complete or (unsealed and not seal_charged(connection, values, unsealed)):
        raise ChangedMeanwhile
    if short and scope.batch.is_slice:
        raise SliceFellShort
    result = BatchResult(*billed)
    if short or past_due:
        result += BatchResult(*_one(connection, "pay_past_due", values))
        enqueue_past_due_events(connection, values)
    return result


def _record(connection: Connection, scope: BatchScope, result: BatchResult) -> None:
    """Add the batch to the row of its run, at the end: what is compared here was true for all of the batch."""
    totals = {
        "batch_instances": result.instances,
        "batch_hours": result.hours,
        "batch_amount": result.amount,
    }
    recorded = ask(connection, "record_batch", values=scope.parameters() | totals).fetchone()
    if recorded is None:
        raise LeaseLost("the run was closed, or the clock went back; this batch charged nothing")
    if not recorded[0]:
        raise RatesChanged


def payers_between(connection: Connection, batch: Batch) -> list[UUID]:
    """Return the organizations of a batch that can be charged at all, in order."""
    values = {
        "first_organization": batch.first_organization,
        "last_organization": batch.last_organization,
    }
    with bounded_transaction(connection):
        return [row[0] for row in ask(connection, "payers_between", values=values).fetchall()]


def lock_holders(connection: Connection, batch: Batch) -> dict[UUID, str]:
    """Return the organizations of a batch with a row that another session has locked, each with that session in words.

    Locks that several sessions share on one row do not tell who holds them, and are left out.
    """
    values = {
        "first_organization": batch.first_organization,
        "last_organization": batch.last_organization,
    }
    with bounded_transaction(connection):
        rows = ask(connection, "lock_holders", values=values).fetchall()
    return dict(rows)


def compare_batch(connection: Connection, run: OpenRun, batch: Batch) -> None:
    """After the unique key refused a batch: bring every row of it to where its charges end, for the next attempt."""
    with connection.transaction():
        # It may read all that the organizations of the batch were ever charged.
        pin_planner(connection, replace(BOUNDS, statement=COMPARISON_TIMEOUT))
        compare_everything(connection, BatchScope(run, batch))


def compare_everything(connection: Connection, scope: BatchScope) -> None:
    """Compare every row of a range with what is charged, those that billing wrote itself too."""
    flush_segments(connection, scope.parameters(), everything=True)


def _one(connection: Connection, name: str, values: Mapping[str, Any]) -> tuple[Any, ...]:
    row = ask(connection, name, values=values).fetchone()
    if row is None:
        raise InvariantBroken(f"the statement {name} returned nothing")
    return row
