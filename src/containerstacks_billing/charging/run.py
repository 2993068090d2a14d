"""One billing run. Daemon, built-in billing and command all call `run_billing`; there is no other way to charge.

The data travels settings → terms → lease → run → batches → batch results → run record, and never back: nothing that
a run remembers is ever charged. Workers only hand batches to the charging transaction and count what it says.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from uuid import UUID

import psycopg

from containerstacks_billing import logs
from containerstacks_billing.charging import lease as leases
from containerstacks_billing.charging import run_record as runs
from containerstacks_billing.charging.charger import Charger, RunCharger
from containerstacks_billing.charging.fleet_reading import brake, is_clock_credible
from containerstacks_billing.charging.lease_model import Lease
from containerstacks_billing.charging.model import (
    Batch,
    BatchResult,
    OpenRun,
    Outcome,
    Progress,
    RunResult,
    Terms,
)
from containerstacks_billing.charging.runways import update_runways
from containerstacks_billing.charging.worker import Work, work
from containerstacks_billing.clock import Clock
from containerstacks_billing.database.connection import Connection, bounded_transaction
from containerstacks_billing.database.errors import translate
from containerstacks_billing.database.run_pool import RunPool
from containerstacks_billing.errors import BillingError, DatabaseUnavailable, LeaseLost, OutcomeUnknown
from containerstacks_billing.schema.diagnose import diagnosed
from containerstacks_billing.schema.drift import expected_schema_problem
from containerstacks_billing.schema.row_security import hidden_rows_problem
from containerstacks_billing.settings import Settings


@dataclass(frozen=True, slots=True)
class RunOrder:
    """The order of one run on one database.

    `as_of` is read from the database where it is not given; only tests give it. `host_clock` reads the time of this
    host, which is recorded with the run to detect a database clock that jumped.
    `reached` is called with a connection before the lease is taken; what it raises ends the order.
    `confirm` is called under the lease, before the run opens; what it raises ends the order and nothing is charged.
    `waiting` is called once, with a sentence, when the lease is not free at once, `opened` when the run's row stands,
    `progressed` with the plan and after each batch, by its worker. `stopping` ends the run after the batches under way.
    """

    conninfo: str
    terms: Terms
    trigger: str
    holder: str
    workers: int = 2
    batch_size: int = 2500
    organization: UUID | None = None
    as_of: datetime | None = None
    host_clock: Callable[[], datetime] = Clock().host_time
    wait_seconds: float = 90
    stopping: threading.Event = field(default_factory=threading.Event)
    reached: Callable[[Connection], None] = lambda _: None
    confirm: Callable[[], None] = lambda: None
    opened: Callable[[OpenRun], None] = lambda _: None
    waiting: Callable[[str], None] = lambda _: None
    progressed: Callable[[Progress], None] = lambda _: None


def terms_of(settings: Settings) -> Terms:
    """Pick from the settings what decides about charges."""
    return Terms(
        billable_statuses=settings.billable_statuses,
        transient_statuses=settings.transient_statuses,
        partial_hour=settings.partial_hour,
        creation_fee=settings.creation_fee,
        hours_per_month=settings.hours_per_month,
        max_catch_up_hours=settings.max_catch_up_hours,
        currency=settings.currency,
        brake_factor=settings.brake_factor,
        shrink_brake=settings.shrink_brake == "on",
    )


def run_billing(order: RunOrder, charger: RunCharger | None = None) -> RunResult:
    """Charge everything that is due, once.

    Raises LeaseNotObtained when another biller keeps the lease, LeaseLost when one took it over, DatabaseUnavailable
    when the database went away and stayed away: nothing is half charged then, and the next run goes on. Otherwise the
    run ends with an outcome: completed, interrupted (asked to stop), failed (something could not be charged) or held.
    `charger` is a fresh RunCharger; tests and benchmarks pass one of their own.
    """
    charger = charger or RunCharger()
    with diagnosed(order.conninfo), RunPool(order.conninfo) as connections:
        with connections.connection() as connection:
            lease = _obtain_lease(connection, order)
        lost = threading.Event()
        with leases.renewed(connections, lease, lost.set):
            order.confirm()
            with connections.connection() as connection:
                run, host_clock = _open(connection, order, lease)
            with _closed_if_it_fails(connections, run):
                with connections.connection() as connection:
                    batches, hold_reason = _plan(connection, order, run, host_clock)
                    if hold_reason:
                        return runs.close_run(connection, run, Outcome.HELD, hold_reason)
                outcome, problem = charge_batches(order, run, batches, lost, connections, charger)
                unseen = _update_runways(order, run, connections)
                with connections.connection() as connection:
                    return runs.close_run(connection, run, outcome, problem or unseen, charger.batches)


def _obtain_lease(connection: Connection, order: RunOrder) -> Lease:
    """Take the lease, on a schema that billing may run on."""
    with bounded_transaction(connection):
        problem = expected_schema_problem(connection) or hidden_rows_problem(connection)
    if problem:
        raise problem
    order.reached(connection)
    return leases.acquire(
        connection,
        order.holder,
        wait_seconds=order.wait_seconds,
        stopping=order.stopping,
        waiting=order.waiting,
    )


@contextmanager
def _closed_if_it_fails(connections: RunPool, run: OpenRun) -> Iterator[None]:
    """On failure, close the run as failed if the database is reachable; re-raise."""
    try:
        yield
    except (LeaseLost, DatabaseUnavailable, OutcomeUnknown):
        raise
    except (BillingError, psycopg.Error) as error:
        reason = translate(error, connections.conninfo) if isinstance(error, psycopg.Error) else error
        with suppress(BillingError, psycopg.Error), connections.connection() as connection:
            runs.close_run(connection, run, Outcome.FAILED, str(reason))
        raise


def _open(connection: Connection, order: RunOrder, lease: Lease) -> tuple[OpenRun, datetime]:
    """Open the run; return it, and what the host's clock said then."""
    host_clock = order.host_clock()
    with bounded_transaction(connection):
        as_of = order.as_of or runs.database_clock(connection)
        credible = is_clock_credible(connection, as_of, host_clock)
    run = runs.open_run(
        connection,
        lease,
        order.terms,
        trigger=order.trigger,
        as_of=as_of,
        host_clock=host_clock,
        organization=order.organization,
        is_clock_credible=credible,
    )
    order.opened(run)
    if run.begins_policy:
        logs.logger().warning(
            "The billing policy changed; hours before this run are charged by the old one",
            run=run.run_id,
            token=run.fencing_token,
            billable_statuses=",".join(run.terms.billable_statuses),
            transient_statuses=",".join(run.terms.policy.transient_statuses) or "none",
            partial_hour=run.terms.partial_hour,
            creation_fee=run.terms.creation_fee,
            since=run.as_of.isoformat(),
        )
    return run, host_clock


def _plan(
    connection: Connection, order: RunOrder, run: OpenRun, host_clock: datetime
) -> tuple[list[Batch], str | None]:
    """Plan the batches, unless there is a reason to hold the run."""
    with bounded_transaction(connection):
        hold_reason = brake(connection, run, host_clock)
        if hold_reason:
            return [], hold_reason
        batches = list(runs.plan_batches(connection, run, order.batch_size))
        runs.announce_plan(connection, run, batches)
    return batches, None


def charge_batches(
    order: RunOrder,
    run: OpenRun,
    batches: list[Batch],
    lost: threading.Event,
    connections: RunPool,
    charger: Charger,
) -> tuple[Outcome, str | None]:
    """Let the workers charge the batches; return the outcome and, if something failed, the first reason."""
    charger.begin(run, batches)
    if not batches:
        return Outcome.COMPLETED, None
    waiting: queue.SimpleQueue[Batch] = queue.SimpleQueue()
    for batch in batches:
        waiting.put(batch)
    shared = Work(
        connections=connections,
        run=run,
        waiting=waiting,
        numbers=itertools.count(len(batches)),
        stopping=order.stopping,
        lost=lost,
        charged=_Tally(batches, order.progressed).add,
        charger=charger,
    )
    count = min(order.workers, len(batches))
    with ThreadPoolExecutor(count, thread_name_prefix="billing-worker") as pool:
        problems = [problem for found in pool.map(work, [shared] * count) for problem in found]
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        return Outcome.FAILED, problems[0] + more
    return (Outcome.COMPLETED if waiting.empty() else Outcome.INTERRUPTED), None


def _update_runways(order: RunOrder, run: OpenRun, connections: RunPool) -> str | None:
    """Bring the runways up to date; return a sentence when that fails; what was charged stays."""
    if order.stopping.is_set():
        return None
    try:
        with connections.connection() as connection:
            update_runways(connection, run)
    except (psycopg.Error, BillingError) as error:
        reason = translate(error, order.conninfo) if isinstance(error, psycopg.Error) else error
        return f"everything was charged, but the runways are not up to date: {reason}"
    return None


class _Tally:
    """Sum of the batches so far, for progress displays; the run's row is the truth."""

    def __init__(self, batches: list[Batch], progressed: Callable[[Progress], None]) -> None:
        self._lock = threading.Lock()
        self._progressed = progressed
        self._progress = Progress(0, sum(batch.instances for batch in batches), 0, len(batches), Decimal(0))
        progressed(self._progress)

    def add(self, _: Batch, result: BatchResult) -> None:
        with self._lock:
            self._progress = replace(
                self._progress,
                instances=self._progress.instances + result.instances,
                batches=self._progress.batches + 1,
                amount=self._progress.amount + result.amount,
            )
            self._progressed(self._progress)
