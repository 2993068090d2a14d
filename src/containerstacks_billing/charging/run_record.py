"""Open, plan and close a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from containerstacks_billing.charging.lease_model import Lease
from containerstacks_billing.charging.model import Batch, OpenRun, Outcome, RunResult, Terms, terms_parameters
from containerstacks_billing.charging.policies import agree_on_policy
from containerstacks_billing.database.connection import Connection, bounded_transaction, set_timeouts
from containerstacks_billing.database.ids import FIRST_UUID, LAST_UUID
from containerstacks_billing.database.statements import query
from containerstacks_billing.errors import InvariantBroken, LeaseLost, WorkFailed

# To look through a large fleet for those that a run left out takes longer than any batch.
CLOSING_TIMEOUT = "300s"


def database_clock(connection: Connection) -> datetime:
    """Return the instant that the database calls now."""
    return _row(connection, "database_clock", {})[0]  # type: ignore[no-any-return]


def open_run(
    connection: Connection,
    lease: Lease,
    terms: Terms,
    *,
    trigger: str,
    as_of: datetime,
    host_clock: datetime,
    organization: UUID | None = None,
    is_clock_credible: bool = True,
) -> OpenRun:
    """Write the run's row, under the lease, after closing what a dead holder left open.

    Prices and policies whose time has come begin with it; not by a clock that the brake is going to object to, for
    they would go on when it is set right.
    """
    values = {"fencing_token": lease.fencing_token, "nonce": lease.nonce}

    def fence(connection: Connection) -> None:
        if connection.execute(query("fence"), values).fetchone() is None:
            raise LeaseLost("another biller took over the lease before the run began; nothing was charged")

    divides = is_clock_credible and agree_on_policy(connection, terms, as_of, fence)
    with connection.transaction():
        set_timeouts(connection)
        fence(connection)
        if is_clock_credible:
            # First of all, for a clock that stands still inside a transaction would be read too early for prices.
            connection.execute(query("sync_prices"), {"as_of": as_of})
        connection.execute(query("close_abandoned_runs"))
        connection.execute(query("mark_owing_wallets"), {"as_of": as_of, "currency": terms.currency})
        everywhere = {"first_organization": FIRST_UUID, "last_organization": LAST_UUID}
        connection.execute(
            query("adopt_repaired_plans"), everywhere | {"hours_per_month": terms.hours_per_month}
        )
        (has_invoices,) = _row(connection, "host_makes_invoices", {})
        (run_id,) = _row(
            connection,
            "open_run",
            {
                "trigger": trigger,
                "holder": lease.holder,
                "fencing_token": lease.fencing_token,
                "organization_id": organization,
                "as_of": as_of,
                "host_clock": host_clock,
                "hours_per_month": terms.hours_per_month,
            },
        )
    return OpenRun(
        run_id, as_of, terms, lease.fencing_token, lease.nonce, organization, divides, has_invoices
    )


def plan_batches(connection: Connection, run: OpenRun, batch_size: int) -> Iterator[Batch]:
    """Yield the batches, numbered; a large organization in slices if its wallet covers everything it has due."""
    values = run_parameters(run) | {"batch_size": batch_size}
    number = 0
    for first, last, instances, is_ordinary in connection.execute(query("plan_batches"), values).fetchall():
        batch = Batch(number, first, last, instances, is_ordinary=is_ordinary)
        pieces = [batch]
        if first == last and instances > batch_size:
            pieces = _slices(connection, batch, values)
        for piece in pieces:
            yield replace(piece, number=number)
            number += 1


def _slices(connection: Connection, batch: Batch, values: dict[str, Any]) -> list[Batch]:
    values = values | {
        "first_organization": batch.first_organization,
        "last_organization": batch.last_organization,
        "first_instance": FIRST_UUID,
        "last_instance": LAST_UUID,
        "include_pending": True,
    }
    if not _row(connection, "covers_everything", values)[0]:
        return [batch]
    starts = [row[0] for row in connection.execute(query("slice_organization"), values).fetchall()]
    if len(starts) < 2:
        return [batch]
    # Every instance belongs to a slice, also those that appear or become due before it is charged.
    starts[0] = FIRST_UUID
    ends = [UUID(int=start.int - 1) for start in starts[1:]] + [LAST_UUID]
    share = -(-batch.instances // len(starts))
    return [
        replace(batch, first_instance=start, last_instance=end, instances=share)
        for start, end in zip(starts, ends, strict=True)
    ]


def announce_plan(connection: Connection, run: OpenRun, batches: list[Batch]) -> None:
    """Write into the run's row how much there is to do."""
    connection.execute(
        query("announce_plan"),
        {
            "run_id": run.run_id,
            "batches": len(batches),
            "instances": sum(batch.instances for batch in batches),
        },
    )


def close_run(
    connection: Connection, run: OpenRun, outcome: Outcome, error_message: str | None, confirmed: int = 0
) -> RunResult:
    """Write the quarantine and end the run's row; `confirmed` is how many batches the server confirmed."""
    values = run_parameters(run)
    with bounded_transaction(connection, CLOSING_TIMEOUT):
        if connection.execute(query("fence"), values).fetchone() is None:
            raise LeaseLost("another biller took over the lease before the run was closed")
        # It may know of more, whose answers were lost; fewer means that commits were lost.
        lost = confirmed - _batches_known(connection, values)
        if lost > 0:
            loss = _loss(lost)
            outcome, error_message = Outcome.FAILED, f"{error_message}; {loss}" if error_message else loss
        if outcome is Outcome.HELD:
            connection.execute(query("announce_hold"), values | {"error_message": error_message})
        elif not _row(connection, "nothing_left_out", values)[0]:
            connection.execute(query("write_quarantine"), values)
            connection.execute(query("announce_quarantine"), values)
        row = _row(
            connection, "close_run", values | {"outcome": outcome.value, "error_message": error_message}
        )
    return RunResult(row[0], Outcome(row[1]), *row[2:])


def _batches_known(connection: Connection, values: dict[str, Any]) -> int:
    row = connection.execute(query("batches_of_run"), values).fetchone()
    if row is None:
        raise WorkFailed(
            "the server has forgotten this run, as after a failover to a replica that lagged;"
            " the next run charges what is due"
        )
    return int(row[0])


def _loss(batches: int) -> str:
    return (
        f"the server lost {batches} {'batch' if batches == 1 else 'batches'} that it had committed, as after a failover"
        " to a replica that lagged; the next run charges them"
    )


def debited_by_run(connection: Connection, run_id: int) -> Decimal:
    """Return what a run debited, in whole cents; the rest of its amount is carried by the wallets."""
    prefix = f"{run_id % 2**32:08x}"
    values = {"run_id": run_id, "first_id": prefix + "0" * 24, "last_id": prefix + "f" * 24}
    return _row(connection, "debited_by_run", values)[0]  # type: ignore[no-any-return]


def organization_exists(connection: Connection, organization: UUID) -> bool:
    """Tell whether the host knows this organization."""
    return bool(_row(connection, "organization_exists", {"organization": organization})[0])


def billable_instances(
    connection: Connection, terms: Terms, organization: UUID | None, most: int = 1_000_000
) -> int:
    """Count the instances that there are to bill, at most so many of them."""
    values = {
        "every_status": terms.billable_statuses == ("*",),
        "billable_statuses": list(terms.billable_statuses),
        "first_organization": organization or FIRST_UUID,
        "last_organization": organization or LAST_UUID,
        "most": most,
    }
    return int(_row(connection, "billable_instances", values)[0])


def run_parameters(run: OpenRun) -> dict[str, Any]:
    """Return what statements about a whole run bind."""
    return terms_parameters(run.terms) | {
        "run_id": run.run_id,
        "as_of": run.as_of,
        "fencing_token": run.fencing_token,
        "nonce": run.nonce,
        "first_organization": run.organization or FIRST_UUID,
        "last_organization": run.organization or LAST_UUID,
    }


def _row(connection: Connection, name: str, values: dict[str, Any]) -> tuple[Any, ...]:
    row = connection.execute(query(name), values).fetchone()
    if row is None:
        raise InvariantBroken(f"the statement {name} returned nothing")
    return row
