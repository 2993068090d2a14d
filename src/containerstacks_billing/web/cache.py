"""Cache of readings of the tables, shared by all requests: within a second all of them get the same answer.

However many pages and programs request it, the database is read once a second. A failure is kept for that second too,
so that a database in trouble is not asked more often than one in health.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Generic, TypeVar

from containerstacks_billing.clock import Clock
from containerstacks_billing.database.pool import PoolExhausted, ReadingPool
from containerstacks_billing.errors import BillingError
from containerstacks_billing.schema.drift import expected_schema_problem
from containerstacks_billing.status.model import Health
from containerstacks_billing.status.read import ask_health
from containerstacks_billing.status.totals import Totals, read_totals
from containerstacks_billing.throttled_log import RecurringError

Value = TypeVar("Value")

HEALTH_SECONDS = 1.0
SCHEMA_SECONDS = 30.0
TOTALS_SECONDS = 10.0


class CachedValue(Generic[Value]):
    """A value that is read anew when requested after `seconds`; concurrent requests wait for the one that reads."""

    def __init__(
        self, read: Callable[[], Value], seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._read = read
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._value: Value | None = None
        self._error: BillingError | None = None
        self._until = float("-inf")

    def get(self) -> Value:
        """Return the value, or raise what reading it raised."""
        with self._lock:
            if self._clock() >= self._until:
                self._value, self._error = None, None
                try:
                    self._value = self._read()
                except BillingError as error:
                    self._error = error
                self._until = self._clock() + self._seconds
            if self._error is not None:
                raise self._error.with_traceback(None)
            assert self._value is not None  # noqa: S101 - one of the two is there
            return self._value


class Readings:
    """What the routes of one application read."""

    def __init__(self, pool: ReadingPool, clock: Clock | None = None) -> None:
        self._pool = pool
        self._clock = clock or Clock()
        self._trouble = RecurringError(
            self._clock,
            "The database cannot be read, so the state of billing is not visible",
            "The database can be read again",
        )
        # Whether the last reading of the health failed: other requests then have nothing new to log.
        self.blind = False
        self._health = CachedValue(self._ask_health, HEALTH_SECONDS)
        self._schema = CachedValue(self._read_schema, SCHEMA_SECONDS)
        self._totals = CachedValue(self._read_totals, TOTALS_SECONDS)

    def health(self) -> Health:
        """Return how billing is; raises BillingError."""
        return self._health.get()[0]

    def clock_difference(self) -> timedelta:
        """Return by how much the database's clock is ahead of this host's."""
        return self._health.get()[1]

    def schema_problem(self) -> str | None:
        """Return why billing must not run on this schema; None when it may."""
        return self._schema.get()[0]

    def totals(self) -> Totals:
        """Return the totals for metrics; raises BillingError."""
        return self._totals.get()

    def _read_totals(self) -> Totals:
        with self._pool.reading() as connection:
            return read_totals(connection)

    def _ask_health(self) -> tuple[Health, timedelta]:
        try:
            with self._pool.reading() as connection:
                before = self._clock.host_time()
                answers = ask_health(connection)
        except PoolExhausted:
            raise
        except BillingError as error:
            self.blind = True
            self._trouble.report(error)
            raise
        self.blind = False
        self._trouble.resolved()
        health = answers()
        return health, health.now - before

    def _read_schema(self) -> tuple[str | None]:
        with self._pool.reading() as connection:
            problem = expected_schema_problem(connection)
            return (str(problem) if problem else None,)
