"""A dry run: every batch of a run is charged, read and rolled back, by the workers and the statements of a run.

The data goes terms → plan → batches → forecasts → rehearsal. Only so much of the forecasts is kept as is shown, so
memory does not grow with the fleet.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from uuid import UUID

from containerstacks_billing.charging import run_record as runs
from containerstacks_billing.charging.batch import SliceFellShort
from containerstacks_billing.charging.dry_run_batch import (
    Territory,
    announced_changes,
    bring_changes,
    rehearse_batch,
)
from containerstacks_billing.charging.fleet_reading import brake
from containerstacks_billing.charging.forecast import Rehearsal
from containerstacks_billing.charging.forecasts import Forecasts, Limits
from containerstacks_billing.charging.model import Batch, BatchResult, OpenRun, Outcome
from containerstacks_billing.charging.run import RunOrder, charge_batches
from containerstacks_billing.database.connection import Connection, connect, set_timeouts
from containerstacks_billing.database.ids import FIRST_UUID, LAST_UUID
from containerstacks_billing.database.run_pool import RunPool
from containerstacks_billing.errors import WorkFailed
from containerstacks_billing.schema.diagnose import diagnosed
from containerstacks_billing.schema.drift import expected_schema_problem
from containerstacks_billing.schema.row_security import hidden_rows_problem
from containerstacks_billing.status.model import RunRecord
from containerstacks_billing.status.read import last_success

_NO_RUN = 0
_EVERY_STATUS = ("*",)


@dataclass(frozen=True, slots=True)
class _Plan:
    run: OpenRun
    batches: list[Batch]
    changes: tuple[str, ...]
    hold_reason: str | None
    last: RunRecord | None
    billable_instances: int


def rehearse(order: RunOrder, limits: Limits) -> Rehearsal:
    """Find out what a run would do now; nothing is changed.

    An outcome of held says that a run would be held, and the figures what it would charge once it is released. Raises
    what bill raises, except for the lease, which is not taken.
    """
    started = time.monotonic()
    with diagnosed(order.conninfo):
        with connect(order.conninfo, purpose="billing") as connection:
            if unfit := expected_schema_problem(connection) or hidden_rows_problem(connection):
                raise unfit
            plan = _plan(connection, order)
            stage = _Stage(plan, Forecasts(limits))
            if not plan.batches:
                stage.look(connection)
        with RunPool(order.conninfo) as connections:
            outcome, problem = charge_batches(
                order,
                plan.run,
                plan.batches,
                threading.Event(),
                connections,
                charge=stage.charge,
                compare_batch=stage.compare_batch,
            )
    if plan.hold_reason and outcome is Outcome.COMPLETED:
        outcome, problem = Outcome.HELD, plan.hold_reason
    return stage.forecasts.total(
        outcome,
        plan.run.as_of,
        error_message=problem,
        changes=plan.changes,
        last=plan.last,
        billable_instances=plan.billable_instances,
        duration_seconds=time.monotonic() - started,
    )


def _plan(connection: Connection, order: RunOrder) -> _Plan:
    """Plan the run in a transaction that is rolled back, with the changes that it would bring."""
    host_clock = order.host_clock or datetime.now(UTC)
    as_of = order.as_of or runs.database_clock(connection)
    run = OpenRun(_NO_RUN, as_of, order.terms, 0, UUID(int=0), order.organization)
    with connection.transaction(force_rollback=True):
        set_timeouts(connection)
        changes = tuple(announced_changes(connection, order.terms, as_of))
        where_to_look = run
        if changes:
            # Stretches are closed batch by batch; here it is enough to look wherever anything is unrated.
            bring_changes(connection, run, Territory(FIRST_UUID, FIRST_UUID))
            where_to_look = replace(run, terms=replace(run.terms, billable_statuses=_EVERY_STATUS))
        hold_reason = brake(connection, run, host_clock)
        batches = list(runs.plan_batches(connection, where_to_look, order.batch_size))
        # A run of one organization is not like one of the whole fleet, and there is no difference to tell.
        last = last_success(connection) if order.organization is None else None
        billable = runs.billable_instances(connection, order.terms, order.organization)
    return _Plan(run, batches, changes, hold_reason, last, billable)


class _Stage:
    """Rehearses batches and keeps what they found; any worker may call it."""

    def __init__(self, plan: _Plan, forecasts: Forecasts) -> None:
        self.forecasts = forecasts
        self._run = plan.run
        self._changes = bool(plan.changes)
        self._refused: set[tuple[UUID, UUID]] = set()
        self._territories = dict(_territories(plan))

    def charge(self, connection: Connection, run: OpenRun, batch: Batch) -> BatchResult:
        """Rehearse one batch."""
        span = (batch.first_organization, batch.last_organization)
        try:
            forecast = rehearse_batch(
                connection,
                run,
                batch,
                self._territories.get(span, Territory(*span)),
                changes=self._changes,
                was_refused=any(first <= span[0] and span[1] <= last for first, last in self._refused),
            )
        except SliceFellShort:
            raise WorkFailed(
                f"the wallet of organization {span[0]} changed while its charges were added up; look again"
            ) from None
        self.forecasts.add(batch, forecast)
        return forecast.result

    def compare_batch(self, _connection: Connection, _run: OpenRun, batch: Batch) -> None:
        """Remember that the unique key refused a batch; the next attempt compares its rows first."""
        self._refused.add((batch.first_organization, batch.last_organization))

    def look(self, connection: Connection) -> None:
        """Read what is owed and set aside where nothing is due."""
        ends = (self._run.organization or FIRST_UUID, self._run.organization or LAST_UUID)
        nothing = Batch(0, *ends, 0)
        found = rehearse_batch(
            connection, self._run, nothing, Territory(*ends), changes=self._changes, steps=False
        )
        self.forecasts.add(nothing, found)


def _territories(plan: _Plan) -> Iterator[tuple[tuple[UUID, UUID], Territory]]:
    """Share out all organizations: a range of the plan gets those between it and the one before, the last the rest."""
    spans = list(dict.fromkeys((batch.first_organization, batch.last_organization) for batch in plan.batches))
    begin = plan.run.organization or FIRST_UUID
    for number, (first, last) in enumerate(spans, start=1):
        end = last if number < len(spans) else plan.run.organization or LAST_UUID
        yield (first, last), Territory(begin, end)
        begin = UUID(int=min(last.int + 1, LAST_UUID.int))
