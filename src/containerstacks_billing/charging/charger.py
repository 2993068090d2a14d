"""Chargers: what a run does with each batch. A dry run brings its own (dry_run.py)."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol

from containerstacks_billing.charging.batch import (
    RatesChanged,
    charge_batch,
    compare_batch,
    rates_of_run,
)
from containerstacks_billing.charging.model import Batch, BatchResult, Bounds, OpenRun, Rates
from containerstacks_billing.database.connection import Connection, bounded_transaction


class Charger(Protocol):
    """What is done with a batch: a run charges it, a dry run charges it and rolls back. Called by several threads."""

    def begin(self, run: OpenRun, batches: Sequence[Batch], /) -> None:
        """Take the plan of the run; called once, before the first batch."""

    def charge(self, connection: Connection, run: OpenRun, batch: Batch, /) -> BatchResult:
        """Charge one batch in one transaction; raises what `charge_batch` raises."""

    def compare_batch(self, connection: Connection, run: OpenRun, batch: Batch, /) -> None:
        """Compare the rows of a batch that the unique key refused with what is charged."""


class RunCharger:
    """Charges the batches of one run for good.

    Counts the batches whose COMMIT was answered: the server must know of as many in the end. Keeps the rates of the run
    until a batch finds that they changed.
    """

    def __init__(self, bounds: Bounds | None = None) -> None:
        self._bounds = bounds
        self._lock = threading.Lock()
        self._rates: Rates | None = None
        self.batches = 0

    def begin(self, _run: OpenRun, _batches: Sequence[Batch]) -> None:
        """Do nothing: the rates are read with the first batch, on its connection."""

    def charge(self, connection: Connection, run: OpenRun, batch: Batch) -> BatchResult:
        """Charge one batch and commit it."""
        rates = self._rates_of(connection, run)
        try:
            result = charge_batch(connection, run, batch, rates, self._bounds)
        except RatesChanged:
            with self._lock:
                self._rates = None
            raise
        with self._lock:
            self.batches += 1
        return result

    def compare_batch(self, connection: Connection, run: OpenRun, batch: Batch) -> None:
        """Bring the rows of a batch to where their charges end."""
        compare_batch(connection, run, batch)

    def _rates_of(self, connection: Connection, run: OpenRun) -> Rates:
        with self._lock:
            if self._rates is None:
                with bounded_transaction(connection):
                    self._rates = rates_of_run(connection, run)
            return self._rates
