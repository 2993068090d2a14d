"""One batch in one transaction; the argument why it is safe opens queries/charging.sql."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from uuid import UUID

from containerstacks_billing.charging.model import Batch, BatchResult, OpenRun
from containerstacks_billing.charging.returned import file_segments, seal_charged
from containerstacks_billing.database.connection import Connection, bounded_transaction
from containerstacks_billing.database.statements import query
from containerstacks_billing.errors import InvariantBroken, LeaseLost
from containerstacks_billing.notifications.outbox import enqueue_past_due_events

# The planner sees tables that this very transaction changes, and statistics of them that are always a little old. It is
# held to hash joins and index ranges, which are right for every batch, or single batches flip to nested loops for
# seconds. SET LOCAL ends with the transaction, so a pooler hands the connection on clean.
_PIN_PLANNER = """
    select set_config('lock_timeout', '5s', true), set_config('statement_timeout', '30s', true),
        set_config('idle_in_transaction_session_timeout', '15s', true),
        set_config('enable_nestloop', 'off', true), set_config('jit', 'off', true),
        set_config('enable_mergejoin', 'off', true), set_config('enable_seqscan', 'off', true),
        set_config('max_parallel_workers_per_gather', '0', true),
        set_config('work_mem', '64MB', true), set_config('containerstacks_billing.advancing', 'on', true)
"""

COMPARISON_TIMEOUT = "300s"


class ChangedMeanwhile(Exception):
    """The host changed an instance or a price since it was read; the batch was rolled back and can be tried again."""


class SliceFellShort(Exception):
    """The wallet of a large organization does not cover this slice any more; it has to be charged as a whole."""


def batch_parameters(run: OpenRun, batch: Batch) -> dict[str, Any]:
    """Return the values that the statements of queries/charging.sql bind."""
    key = f"{run.run_id % 2**32:08x}{batch.number >> 12:04x}8{batch.number % 2**12:03x}"
    return {
        "run_id": run.run_id,
        "batch": batch.number,
        "as_of": run.as_of,
        "fencing_token": run.fencing_token,
        "nonce": run.nonce,
        "first_organization": batch.first_organization,
        "last_organization": batch.last_organization,
        "first_instance": batch.first_instance,
        "last_instance": batch.last_instance,
        "batch_key": key,
        "first_id": f"{key}8{0:015x}",
        "last_id": f"{key}8{2**60 - 1:015x}",
        "every_status": run.terms.billable_statuses == ("*",),
        "billable_statuses": list(run.terms.billable_statuses),
        "hours_per_month": run.terms.hours_per_month,
        "max_catch_up_hours": run.terms.max_catch_up_hours,
        "currency": run.terms.currency,
        "debts": False,
        "kept": False,
        "segments": True,
        "decisions": True,
    }


def charge_batch(connection: Connection, run: OpenRun, batch: Batch) -> BatchResult:
    """Charge one batch and commit it, or leave nothing behind."""
    values = batch_parameters(run, batch)
    with connection.transaction():
        connection.execute(_PIN_PLANNER)
        if connection.execute(query("fence"), values).fetchone() is None:
            raise LeaseLost("another biller took over the lease; this batch charged nothing")
        hold_organizations(connection, values)
        result = charge_and_post(connection, batch, values)
        values.update(batch_instances=result.instances, batch_hours=result.hours, batch_amount=result.amount)
        recorded = connection.execute(query("record_batch"), values).fetchone()
        if recorded is None:
            raise LeaseLost("the run was closed, or the clock went back; this batch charged nothing")
        if not recorded[0]:
            raise ChangedMeanwhile
    return result


def hold_organizations(connection: Connection, values: dict[str, Any]) -> None:
    """Hold the organizations of the batch, and note which prices there are."""
    values["prices"], _ = _one(connection, "hold_organizations", values)


def charge_and_post(connection: Connection, batch: Batch, values: dict[str, Any]) -> BatchResult:
    """Lock, charge, advance and post: what a run commits, and what a rehearsal rolls back."""
    short: bool | None = None
    values["debts"], values["segments"], values["decisions"] = _one(connection, "lock_wallets", values)
    if batch.is_ordinary and not values["segments"]:
        written, short, amount, unsealed = _one(connection, "charge_ordinary_hour", values)
        if unsealed and not seal_charged(connection, values, unsealed):
            raise ChangedMeanwhile
        if not (short or values["debts"]):
            return BatchResult(written, Decimal(written), amount)
        moved = written
    else:
        file_segments(connection, values)
        written, moved = connection.execute(query("charge"), values).rowcount, 0
    if values["debts"]:
        written += connection.execute(query("grow_debts"), values).rowcount
        written += connection.execute(query("record_debts"), values).rowcount
    _advance(connection, values, written, moved)
    if short is None:
        short = read_bills(connection, values)
    if short and batch.is_slice:
        raise SliceFellShort
    if short or values["debts"]:
        values["debts"] = True
        connection.execute(query("mark_past_due"), values)
        connection.execute(query("pay_debts"), values)
        read_bills(connection, values)
    return _post(connection, values)


def read_bills(connection: Connection, values: dict[str, Any]) -> bool:
    """Read what the batch billed into `values`, a list for each column; return whether a wallet fell short."""
    bills = connection.execute(query("billed"), values).fetchall()
    billed = [bill for bill in bills if bill[2]]
    names = ("organizations", "amounts", "instances", "hours", "one_instances")
    values.update(zip(names, ([bill[column] for bill in billed] for column in range(5)), strict=True))
    return any(not_covered for *_, not_covered in bills)


def pin_planner(connection: Connection) -> None:
    """Hold the planner, and the time that the open transaction may take, to what is right for every batch."""
    connection.execute(_PIN_PLANNER)


def _post(connection: Connection, values: dict[str, Any]) -> BatchResult:
    """Write ledger entries and debits, both from the charges, and clear the wallets that owe nothing any more."""
    if values["organizations"]:
        connection.execute(query("post"), values)
    if values["debts"]:
        connection.execute(query("clear_past_due"), values)
        enqueue_past_due_events(connection, values)
    return BatchResult(
        sum(values["instances"]), sum(values["hours"], Decimal(0)), sum(values["amounts"], Decimal(0))
    )


def _advance(connection: Connection, values: dict[str, Any], written: int, moved: int) -> None:
    """Move the other watermarks and settle the segments; exactly what was written must move and be settled."""
    while moved < written:
        round_moved = connection.execute(query("advance_watermarks"), values).rowcount
        if values["debts"]:
            round_moved += connection.execute(query("advance_over_grown_debts"), values).rowcount
        if not round_moved:
            break
        moved += round_moved
    if moved == written:
        return
    settled = connection.execute(query("settle_segments"), values).rowcount
    if (moved, settled) != _one(connection, "expected_advances", values):
        raise ChangedMeanwhile


def _one(connection: Connection, name: str, values: dict[str, Any]) -> tuple[Any, ...]:
    row = connection.execute(query(name), values).fetchone()
    if row is None:
        raise InvariantBroken(f"the statement {name} returned nothing")
    return row


def payers_between(connection: Connection, batch: Batch) -> list[UUID]:
    """Return the organizations of a batch that can be charged at all, in order."""
    values = {
        "first_organization": batch.first_organization,
        "last_organization": batch.last_organization,
    }
    with bounded_transaction(connection):
        return [row[0] for row in connection.execute(query("payers_between"), values).fetchall()]


def compare_batch(connection: Connection, run: OpenRun, batch: Batch) -> None:
    """After the unique key refused a batch: bring every row of it to where its charges end, for the next attempt."""
    with connection.transaction():
        pin_planner(connection)
        # It may read all that the organizations of the batch were ever charged.
        connection.execute("select set_config('statement_timeout', %s, true)", (COMPARISON_TIMEOUT,))
        compare_everything(connection, batch_parameters(run, batch))


def compare_everything(connection: Connection, values: dict[str, Any]) -> None:
    """Compare every row of a range with what is charged, those that billing wrote itself too."""
    file_segments(connection, values, everything=True)
