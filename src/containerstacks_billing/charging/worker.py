"""Worker thread of a run: one connection, one batch after another, and what is done when a batch fails.

Errors are sorted by what has to be done next. Whatever that is, the batch starts again from the rows, under a number of
its own: after a COMMIT whose answer was lost the first attempt may have charged everything, and then the second finds
nothing due. A batch that is refused, or twice not given a lock, is divided until the organization behind it is alone.
"""

from __future__ import annotations

import queue
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Self
from uuid import UUID

import psycopg

from containerstacks_billing import logs
from containerstacks_billing.charging.batch import (
    ChangedMeanwhile,
    SliceFellShort,
    lock_holders,
    payers_between,
)
from containerstacks_billing.charging.charger import Charger
from containerstacks_billing.charging.model import Batch, BatchResult, OpenRun
from containerstacks_billing.database.connection import Connection
from containerstacks_billing.database.errors import is_transient, translate
from containerstacks_billing.database.ids import FIRST_UUID, LAST_UUID
from containerstacks_billing.database.run_pool import RunPool
from containerstacks_billing.errors import (
    BillingError,
    DatabaseUnavailable,
    LeaseLost,
    OutcomeUnknown,
    WorkFailed,
)

ATTEMPTS = 6
LONGEST_PAUSE_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class Work:
    """What the workers of a run share: the batches that wait, fresh numbers for attempts, the reasons to stop."""

    connections: RunPool
    run: OpenRun
    waiting: queue.SimpleQueue[Batch]
    numbers: Iterator[int]
    stopping: threading.Event
    lost: threading.Event
    charged: Callable[[Batch, BatchResult], None]
    charger: Charger


def work(shared: Work) -> list[str]:
    """Charge batches until none waits or the run is to stop; return what could not be charged, in sentences.

    A batch that fails is left for the next run and the others go on. A lost lease or a database that stays away ends
    the work, and is raised.
    """
    problems: list[str] = []
    with _Hand(shared) as hand, logs.bound(run=shared.run.run_id, token=shared.run.fencing_token):
        while not (shared.stopping.is_set() or shared.lost.is_set()):
            try:
                batch = shared.waiting.get_nowait()
            except queue.Empty:
                break
            try:
                result = hand.charge(batch)
                logs.debug("Batch charged", batch=batch.number, instances=result.instances)
                shared.charged(batch, result)
            except (LeaseLost, DatabaseUnavailable):
                shared.lost.set()
                raise
            except BillingError as problem:
                logs.logger().error("A batch could not be charged", batch=batch.number, reason=str(problem))
                problems.append(str(problem))
    return problems


class _Hand:
    """A connection that is opened again when it breaks, and what is done with one batch on it."""

    def __init__(self, shared: Work) -> None:
        self._shared = shared
        self._connection: Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection is not None:
            self._shared.connections.release(self._connection)

    def charge(self, batch: Batch) -> BatchResult:
        """Charge a batch, or divide it; raises WorkFailed with the organization that cannot be charged."""
        last: Exception | None = None
        refused: list[psycopg.Error] = []
        for attempt in range(ATTEMPTS):
            if attempt:
                logs.logger().warning("A batch is tried again", batch=batch.number, reason=_reason(last))
                batch = replace(batch, number=next(self._shared.numbers))
                self._pause(attempt if last not in refused else 0)
            try:
                return self._attempt(batch, refused)
            except SliceFellShort:
                self._shared.waiting.put(_whole(batch, next(self._shared.numbers)))
                return BatchResult()
            except (psycopg.DataError, psycopg.IntegrityError, psycopg.errors.RaiseException) as error:
                # What has to be done about it may itself be refused for a moment, so it is part of the next attempt.
                last = error
                refused.append(error)
            except psycopg.errors.LockNotAvailable as error:
                if isinstance(last, psycopg.errors.LockNotAvailable):
                    return self._isolate(batch, error)
                last = error
            except psycopg.Error as error:
                last = self._transient(error)
            except ChangedMeanwhile as error:
                # What changed is no ordinary hour.
                last, batch = error, replace(batch, is_ordinary=False)
            except (DatabaseUnavailable, OutcomeUnknown) as error:
                last = error
        raise self._given_up(batch, last)

    def _pause(self, attempt: int) -> None:
        """Wait before another attempt, longer each time; not where an error was answered by a measure."""
        if attempt:
            pause = min(0.1 * 2**attempt, LONGEST_PAUSE_SECONDS) * random.random()  # noqa: S311
            self._shared.stopping.wait(pause)

    def _attempt(self, batch: Batch, refused: list[psycopg.Error]) -> BatchResult:
        """Charge a batch, after what the errors that refused it call for; the second time it is divided."""
        if self._connection is None or self._connection.closed:
            self._connection = self._shared.connections.acquire()
        if refused and (len(refused) > 1 or not isinstance(refused[0], psycopg.errors.UniqueViolation)):
            return self._divide(self._connection, batch, refused[-1])
        if refused:
            # A second copy of a charge: the rows of the batch are compared with their charges, and go on from there.
            self._shared.charger.compare_batch(self._connection, self._shared.run, batch)
        return self._shared.charger.charge(self._connection, self._shared.run, batch)

    def _transient(self, error: psycopg.Error) -> psycopg.Error:
        """Return an error after which the batch can be tried again, on a new connection if need be; raise any other."""
        if not (is_transient(error) or self._connection is None or self._connection.broken):
            raise translate(error, self._shared.connections.conninfo) from error
        if self._connection is not None and self._connection.broken:
            self._connection.close()
            self._connection = None
        return error

    def _divide(self, connection: Connection, batch: Batch, error: psycopg.Error) -> BatchResult:
        """Put back the halves of a batch, so that one unforeseen row does not stop the others.

        A slice is not divided: it fails alone, and the other slices of its organization are charged.
        """
        organizations = [] if batch.is_slice else payers_between(connection, batch)
        if len(organizations) < 2:
            alone = organizations[0] if organizations else batch.first_organization
            reason = error.diag.message_primary or type(error).__name__
            raise WorkFailed(f"organization {alone} cannot be charged: {reason}") from error
        middle = len(organizations) // 2
        self._put(batch, batch.first_organization, organizations[middle - 1], batch.instances // 2)
        self._put(batch, organizations[middle], batch.last_organization, batch.instances // 2)
        return BatchResult()

    def _isolate(self, batch: Batch, error: psycopg.Error) -> BatchResult:
        """Put back the organizations that another session has locked one by one, and the ranges between them."""
        connection = self._connection
        if connection is None or connection.closed:
            connection = self._connection = self._shared.connections.acquire()
        holders = lock_holders(connection, batch)
        if batch.is_slice or batch.first_organization == batch.last_organization:
            who = holders.get(batch.first_organization, "another session")
            raise WorkFailed(
                f"organization {batch.first_organization} cannot be charged: a row of it is locked by {who}",
                "end that transaction; the next run charges the organization",
            ) from error
        if not holders:
            return self._divide(connection, batch, error)
        begin, share = batch.first_organization.int, batch.instances // (len(holders) + 1)
        for locked in sorted(holders):
            if begin < locked.int:
                self._put(batch, UUID(int=begin), UUID(int=locked.int - 1), share)
            self._put(batch, locked, locked, 0)
            begin = locked.int + 1
        if begin <= batch.last_organization.int:
            self._put(batch, UUID(int=begin), batch.last_organization, share)
        return BatchResult()

    def _put(self, batch: Batch, first: UUID, last: UUID, instances: int) -> None:
        self._shared.waiting.put(
            replace(
                batch,
                number=next(self._shared.numbers),
                first_organization=first,
                last_organization=last,
                instances=instances,
            )
        )

    def _given_up(self, batch: Batch, last: Exception | None) -> BillingError:
        if isinstance(last, (DatabaseUnavailable, OutcomeUnknown)):
            return last
        if isinstance(last, psycopg.Error):
            return translate(last, self._shared.connections.conninfo)
        return WorkFailed(
            f"the instances of {batch.first_organization} to {batch.last_organization} changed"
            f" {ATTEMPTS} times while they were charged; the next run charges them"
        )


def _reason(error: Exception | None) -> str:
    """Say in a line what went wrong, redacted."""
    if isinstance(error, psycopg.Error):
        return str(translate(error))
    return str(error) or type(error).__name__


def _whole(batch: Batch, number: int) -> Batch:
    return replace(batch, number=number, first_instance=FIRST_UUID, last_instance=LAST_UUID)
