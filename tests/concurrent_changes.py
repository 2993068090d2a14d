"""A run during which the host goes on: each batch of the product is followed by the same batch of the reference model.

A concurrent change happens between two batches, or in a transaction of the host that is open while a batch is charged and
commits when the batch waits for it, or, if it never has to wait, after it. Either way the model takes the two in the
order in which they were committed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING
from uuid import UUID

from containerstacks_billing.charging.charger import RunCharger
from containerstacks_billing.charging.model import Batch, BatchResult, OpenRun
from containerstacks_billing.database.connection import Connection

if TYPE_CHECKING:
    from tests.histories import History

_LOOK_SECONDS = 0.002
Charge = Callable[[Connection, OpenRun, Batch], BatchResult]


@dataclass(frozen=True)
class ConcurrentChange:
    """Something that happens during a run: before a batch, or in a transaction that is open while it is charged."""

    happens: Callable[[], None]
    while_charging: bool


class _Followed(RunCharger):
    """Charges each batch of the product, and lets the model follow."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run = run

    def begin(self, run: OpenRun, batches: Sequence[Batch]) -> None:
        super().begin(run, batches)
        self._run.open(batches)

    def charge(self, connection: Connection, run: OpenRun, batch: Batch) -> BatchResult:
        return self._run.charge(super().charge, connection, run, batch)


class Run:
    """One run of the product, and the same of the model."""

    def __init__(
        self, history: History, as_of: int, organization: UUID | None, meanwhile: list[ConcurrentChange]
    ) -> None:
        self._history, self._as_of, self._organization, self._meanwhile = (
            history,
            as_of,
            organization,
            meanwhile,
        )
        self._lock = Lock()
        self.amount = Decimal(0)

    def charger(self) -> RunCharger:
        """Return a charger that lets the product's batches pass through here."""
        return _Followed(self)

    def open(self, batches: Sequence[Batch]) -> None:
        """Begin the model's run; an instance in no batch has nothing due, which the comparison would show."""
        history, model = self._history, self._history.model
        model.open_run(history.terms, self._as_of, history.now)
        reach = {self._organization} if self._organization else model.organizations
        left_out = [
            one
            for one in sorted(reach & model.organizations)
            if not any(batch.first_organization <= one <= batch.last_organization for batch in batches)
        ]
        self.amount += model.charge(left_out, history.terms, self._as_of)

    def charge(self, original: Charge, connection: Connection, run: OpenRun, batch: Batch) -> BatchResult:
        """Charge a batch during the concurrent changes, and let the model follow."""
        charge = partial(original, connection, run, batch)
        with self._lock:
            something = self._meanwhile.pop(0) if self._meanwhile else None
        if something is None:
            return self._charged(batch, charge())
        self._history.wait(1)
        self._history.happened["changes amid a run"] += 1
        if not something.while_charging:
            something.happens()
            return self._charged(batch, charge())
        return self._charged_beside(connection, batch, charge, something)

    def _charged(self, batch: Batch, result: BatchResult) -> BatchResult:
        """Let the model charge the batch that was just committed."""
        model = self._history.model
        reach = [
            one
            for one in sorted(model.organizations)
            if batch.first_organization <= one <= batch.last_organization
        ]
        only = (batch.first_instance, batch.last_instance)
        with self._lock:
            self.amount += model.charge(reach, self._history.terms, self._as_of, only)
        return result

    def _charged_beside(
        self,
        connection: Connection,
        batch: Batch,
        charge: Callable[[], BatchResult],
        something: ConcurrentChange,
    ) -> BatchResult:
        history = self._history
        history.postponed = effects = []
        with ThreadPoolExecutor(1) as pool:
            with history.fleet.conn.transaction():
                something.happens()
                charging = pool.submit(charge)
                waited = self._waits(charging, connection.info.backend_pid)
                history.happened["batches that waited for the host"] += waited
            history.postponed = None
            if waited:
                for effect in effects:
                    effect()
            try:
                return self._charged(batch, charging.result())
            finally:
                if not waited:
                    for effect in effects:
                        effect()

    def _waits(self, charging: Future[BatchResult], pid: int) -> bool:
        """Whether the batch came to wait for the host's transaction; False when it was done first."""
        question = "select cardinality(pg_blocking_pids(%s)) > 0"
        while not charging.done():
            if self._history.fleet.conn.execute(question, (pid,)).fetchone() == (True,):
                return True
            wait_for([charging], timeout=_LOOK_SECONDS)
        return False
