"""Dry run: every batch of a run is charged, read and rolled back, by the workers and the statements of a run.

There is no lease and no run row: a dry run charges under the number 0, which no run has, and neither fences nor is
fenced. Beside a running biller it gives way: it waits one second for a wallet, the biller five, and it holds a wallet
only as long as a batch lasts. What it wrote is dead on arrival and left to autovacuum.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from psycopg.rows import args_row

from containerstacks_billing.charging import run_record as runs
from containerstacks_billing.charging.batch import (
    SliceFellShort,
    charge_and_post,
    compare_everything,
    lock_organizations,
    pin_planner,
    rates_of_run,
)
from containerstacks_billing.charging.dry_run_diff import ChargedInstances
from containerstacks_billing.charging.fleet_reading import brake
from containerstacks_billing.charging.forecast import (
    BatchForecast,
    DryRunResult,
    Forecast,
    Limits,
    OrganizationForecast,
    QuarantineEntry,
)
from containerstacks_billing.charging.model import (
    Batch,
    BatchResult,
    BatchScope,
    Bounds,
    OpenRun,
    Outcome,
    Rates,
    Terms,
)
from containerstacks_billing.charging.policies import (
    begin_change,
    close_segments,
    end_lasting_statuses,
    policy_in_force,
)
from containerstacks_billing.charging.run import RunOrder, charge_batches
from containerstacks_billing.database.connection import Connection, connect, set_timeouts
from containerstacks_billing.database.ids import FIRST_UUID, LAST_UUID
from containerstacks_billing.database.run_pool import RunPool
from containerstacks_billing.database.statements import ask, one_row
from containerstacks_billing.errors import WorkFailed
from containerstacks_billing.schema.diagnose import diagnosed
from containerstacks_billing.schema.drift import expected_schema_problem
from containerstacks_billing.schema.row_security import hidden_rows_problem
from containerstacks_billing.status.read import last_success

_NO_RUN = 0
_EVERY_STATUS = ("*",)
_YIELDING = Bounds(lock="1s")
# The planner is held for the charging statements alone; what is read afterwards is planned as in any other transaction.
_UNPIN_PLANNER = """
    select set_config('enable_nestloop', 'on', true), set_config('enable_mergejoin', 'on', true),
        set_config('enable_seqscan', 'on', true)
"""


@dataclass(frozen=True, slots=True)
class OrganizationRange:
    """The organizations that a batch reports: its own, and those before it that have nothing due."""

    first: UUID
    last: UUID


@dataclass(frozen=True, slots=True)
class Supposition:
    """What a dry run supposes, and what it notes beside its forecast.

    `prices` writes supposed prices in a transaction that is rolled back; the rates are read in it and charged by all
    batches. Writing them in each batch would hold the rows of the plans while it charges. `charged` collects instances.
    """

    prices: Callable[[Connection], None] | None = None
    charged: ChargedInstances | None = None


def dry_run(order: RunOrder, limits: Limits, supposed: Supposition = Supposition()) -> DryRunResult:
    """Return what a run would do now; nothing is changed.

    An outcome of held says that a run would be held, and the figures what it would charge once it is released. Raises
    what `run_billing` raises, except for the lease, which is not taken.
    """
    started = time.monotonic()
    with diagnosed(order.conninfo):
        with connect(order.conninfo, purpose="billing") as connection:
            if problem := expected_schema_problem(connection) or hidden_rows_problem(connection):
                raise problem
            run, batches, known, rates = _plan(connection, order, supposed.prices)
            charger = DryRunCharger(
                Forecast(limits), changes=bool(known.changes), rates=rates, charged=supposed.charged
            )
            if not batches:
                charger.read(connection, run)
        with RunPool(order.conninfo) as connections:
            outcome, failure = charge_batches(order, run, batches, threading.Event(), connections, charger)
    if outcome is not Outcome.COMPLETED:
        known = replace(known, outcome=outcome, error_message=failure)
    return charger.forecast.completed(replace(known, duration_seconds=time.monotonic() - started))


def _plan(
    connection: Connection, order: RunOrder, prices: Callable[[Connection], None] | None
) -> tuple[OpenRun, list[Batch], DryRunResult, str | None]:
    """Plan the run in a transaction that is rolled back, with the changes of policy and price that it would bring.

    The result is what a run without a batch would come to: held, or completed. The document of rates is that of
    supposed prices, None where none are.
    """
    rates = None
    as_of = order.as_of or runs.database_clock(connection)
    run = OpenRun(_NO_RUN, as_of, order.terms, 0, UUID(int=0), order.organization)
    with connection.transaction(force_rollback=True):
        set_timeouts(connection)
        changes = tuple(_changes(connection, order.terms, as_of))
        planned = run
        if changes:
            # Segments are closed batch by batch; here it is enough to look wherever anything is unrated.
            _bring_changes(connection, run, OrganizationRange(FIRST_UUID, FIRST_UUID))
            planned = replace(run, terms=replace(run.terms, billable_statuses=_EVERY_STATUS))
        if prices is not None:
            prices(connection)
            rates = rates_of_run(connection, run).document
        hold_reason = brake(connection, run, order.host_clock())
        batches = list(runs.plan_batches(connection, planned, order.batch_size))
        # A run of one organization is compared with nothing: the last run was one of the whole fleet.
        last = last_success(connection) if order.organization is None else None
        billable = runs.billable_instances(connection, order.terms, order.organization)
    outcome = Outcome.HELD if hold_reason else Outcome.COMPLETED
    return run, batches, DryRunResult(outcome, as_of, hold_reason, changes, last, billable), rates


def _bring_changes(connection: Connection, run: OpenRun, reported: OrganizationRange) -> None:
    """Let policy and prices change within the open transaction as the run would, for the organizations of a range."""
    _, settled = begin_change(connection, run.terms, run.as_of)
    while not settled:
        settled = not close_segments(connection, reported.first, reported.last)
    end_lasting_statuses(connection, reported.first, reported.last)
    ask(connection, "sync_prices", values={"as_of": run.as_of})


def _changes(connection: Connection, terms: Terms, as_of: datetime) -> Iterator[str]:
    """Yield a sentence for each change of policy and price that the next run would bring."""
    before, after = policy_in_force(connection), terms.policy
    old = "new" if before != after and one_row(connection, "never_billed")[0] else "old"
    if before.billable_statuses != after.billable_statuses:
        yield (
            f"BILLABLE_STATUSES changes from {','.join(before.billable_statuses)} to"
            f" {','.join(after.billable_statuses)} with the next run; hours before it are charged by the {old} ones"
        )
    if before.transient_statuses != after.transient_statuses:
        yield (
            f"TRANSIENT_STATUSES changes from {','.join(before.transient_statuses) or 'none'} to"
            f" {','.join(after.transient_statuses) or 'none'} with the next run"
        )
    if before.partial_hour != after.partial_hour:
        yield f"PARTIAL_HOUR changes from {before.partial_hour} to {after.partial_hour} with the next run"
    if before.creation_fee != after.creation_fee:
        yield f"CREATION_FEE changes from {before.creation_fee} to {after.creation_fee} with the next run"
    for name, recorded, shown, announced in ask(connection, "pending_prices", values={"as_of": as_of}):
        if announced:
            yield f"the announced price of {name}, {recorded:f} a month, comes into force ({shown:f} before)"
        else:
            yield (
                f"the price of {name}, {shown:f} a month, is recorded and holds from now on ({recorded:f} before)"
            )


class DryRunCharger:
    """Charges batches, reads what they came to and rolls them back; any worker may call it."""

    def __init__(
        self,
        forecast: Forecast,
        *,
        changes: bool,
        rates: str | None = None,
        charged: ChargedInstances | None = None,
    ) -> None:
        self.forecast = forecast
        self._changes = changes
        self._rates = rates
        self._charged = charged
        self._refused: set[OrganizationRange] = set()
        self._reported: dict[OrganizationRange, OrganizationRange] = {}

    def begin(self, run: OpenRun, batches: Sequence[Batch]) -> None:
        """Assign all organizations to the batches that report them."""
        self._reported = dict(_reported_ranges(run, batches))

    def charge(self, connection: Connection, run: OpenRun, batch: Batch) -> BatchResult:
        """Charge one batch and roll it back."""
        charged = OrganizationRange(batch.first_organization, batch.last_organization)
        try:
            found = self._forecast(connection, run, batch, self._reported.get(charged, charged))
        except SliceFellShort:
            raise WorkFailed(
                f"the wallet of organization {charged.first} changed while its charges were added up; try again"
            ) from None
        self.forecast.add(batch, found)
        return found.result

    def compare_batch(self, _connection: Connection, _run: OpenRun, batch: Batch) -> None:
        """Remember that the unique key refused a batch; the next attempt compares its rows first."""
        self._refused.add(OrganizationRange(batch.first_organization, batch.last_organization))

    def read(self, connection: Connection, run: OpenRun) -> None:
        """Read what is past due, quarantined and held where nothing is due."""
        ends = (run.organization or FIRST_UUID, run.organization or LAST_UUID)
        nothing = Batch(0, *ends, 0)
        found = self._forecast(connection, run, nothing, OrganizationRange(*ends), charges=False)
        self.forecast.add(nothing, found)

    def _forecast(
        self,
        connection: Connection,
        run: OpenRun,
        batch: Batch,
        reported: OrganizationRange,
        *,
        charges: bool = True,
    ) -> BatchForecast:
        scope = BatchScope(run, batch)
        result = BatchResult()
        with connection.transaction(force_rollback=True):
            pin_planner(connection, _YIELDING)
            if self._changes:
                _bring_changes(connection, run, reported)
            if any(
                refused.first <= batch.first_organization and batch.last_organization <= refused.last
                for refused in self._refused
            ):
                compare_everything(connection, scope)
            if charges:
                lock_organizations(connection, scope)
                scope = replace(scope, rates=self._rates_of(connection, run))
                result = charge_and_post(connection, scope)
                if self._charged is not None:
                    self._charged.note(connection, scope)
            connection.execute(_UNPIN_PLANNER)
            return _read(connection, result, scope, reported)

    def _rates_of(self, connection: Connection, run: OpenRun) -> Rates:
        """Return the rates of the tables, or the supposed ones with the fingerprint that the batch compares."""
        rates = rates_of_run(connection, run)
        return rates if self._rates is None else replace(rates, document=self._rates)


def _read(
    connection: Connection, result: BatchResult, scope: BatchScope, reported: OrganizationRange
) -> BatchForecast:
    values = scope.parameters() | {
        "first_organization": reported.first,
        "last_organization": reported.last,
    }
    ask(connection, "write_quarantine", values=values)
    organizations = ask(connection, "forecast_organizations", args_row(OrganizationForecast), values)
    quarantine = tuple(ask(connection, "forecast_quarantine", args_row(QuarantineEntry), values))
    past_due = ask(connection, "forecast_past_due", values=values).fetchone()
    return BatchForecast(result, tuple(organizations), quarantine, past_due[0] if past_due else 0)


def _reported_ranges(
    run: OpenRun, batches: Sequence[Batch]
) -> Iterator[tuple[OrganizationRange, OrganizationRange]]:
    """Divide all organizations: a range of the plan gets those between it and the one before, the last the rest."""
    planned = list(
        dict.fromkeys(
            OrganizationRange(batch.first_organization, batch.last_organization) for batch in batches
        )
    )
    begin = run.organization or FIRST_UUID
    for number, charged in enumerate(planned, start=1):
        end = charged.last if number < len(planned) else run.organization or LAST_UUID
        yield charged, OrganizationRange(begin, end)
        begin = UUID(int=min(charged.last.int + 1, LAST_UUID.int))
