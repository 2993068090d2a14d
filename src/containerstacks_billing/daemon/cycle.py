"""One billing cycle of the daemon: an attempt at a run, and what has to happen next, sorted by how it ended."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass

from containerstacks_billing.backoff import pause_seconds
from containerstacks_billing.charging.model import OpenRun, Outcome, Progress, RunResult
from containerstacks_billing.charging.run import RunOrder, run_billing, terms_of
from containerstacks_billing.clock import Clock
from containerstacks_billing.daemon.progress import LoopProgress
from containerstacks_billing.daemon.run_log import RunLog
from containerstacks_billing.errors import (
    BillingError,
    ConfigurationError,
    DatabaseUnavailable,
    LeaseNotObtained,
    LoginRefused,
    RightsMissing,
    SchemaMismatch,
)
from containerstacks_billing.settings import Settings
from containerstacks_billing.throttled_log import RecurringError

TRIGGER = "daemon"
# The daemon looks again by itself, so it does not stand in the queue for long; a stop is not kept waiting either.
LEASE_WAIT_SECONDS = 10.0
LEASE_RETRY_SECONDS = 30.0
LONGEST_AWAY_PAUSE_SECONDS = 60.0
LONGEST_PAUSE_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Attempt:
    """How an attempt ended: with a result, or after how many seconds to try again; None for the next tick."""

    result: RunResult | None = None
    retry_seconds: float | None = None

    @property
    def completed(self) -> bool:
        """Whether everything that was due is charged."""
        return self.result is not None and self.result.outcome is Outcome.COMPLETED


class Cycle:
    """Bills, tells the pulse, and logs. `progressed` is called after each batch, `after_batch` ends a run early."""

    def __init__(
        self,
        clock: Clock,
        pulse: LoopProgress,
        holder: str,
        after_batch: threading.Event,
        progressed: Callable[[], None],
    ) -> None:
        self._clock, self._pulse, self._holder = clock, pulse, holder
        self._after_batch, self._progressed = after_batch, progressed
        self._failures = 0
        self._complaint = RecurringError(clock, "Billing is not possible", "Billing is possible again")
        self._waiting = RecurringError(
            clock, "Billing waits for another biller", "Billing waits for nobody any more", level="warning"
        )
        self.is_open = False

    def attempt(self, settings: Settings, conninfo: str) -> Attempt:
        """Bill once. Whatever happens is logged, told to the pulse, and returned; nothing is raised."""
        log = RunLog(self._clock)

        def opened(run: OpenRun) -> None:
            self.is_open = True
            log.opened(run)

        def progressed(progress: Progress) -> None:
            self._pulse.progressed(log.run_id, progress)
            log.progressed(progress)
            self._progressed()

        order = RunOrder(
            conninfo=conninfo,
            terms=terms_of(settings),
            trigger=TRIGGER,
            holder=self._holder,
            workers=settings.billing_workers,
            batch_size=settings.billing_batch_size,
            host_clock=self._clock.host_time(),
            wait_seconds=LEASE_WAIT_SECONDS,
            stopping=self._after_batch,
            opened=opened,
            progressed=progressed,
        )
        self._pulse.begins()
        try:
            result = run_billing(order)
        except Exception as error:  # noqa: BLE001  (a daemon outlives every error of a run)
            return self._failed(error)
        finally:
            self.is_open = False
        self._failures = 0
        self._complaint.resolved()
        self._waiting.resolved()
        self._pulse.ended(result)
        log.ended(result)
        return Attempt(result)

    def _failed(self, error: Exception) -> Attempt:
        if isinstance(error, LeaseNotObtained):
            self._pulse.failed(None)
            if not self._after_batch.is_set():
                self._waiting.report(error)
            return Attempt(retry_seconds=LEASE_RETRY_SECONDS * (0.5 + random.random() / 2))  # noqa: S311
        self._failures += 1
        self._pulse.failed(
            str(error) if isinstance(error, BillingError) else f"{type(error).__name__}: {error}"
        )
        self._complaint.report(error)
        if isinstance(error, (SchemaMismatch, RightsMissing, ConfigurationError)):
            return Attempt()
        away = isinstance(error, (DatabaseUnavailable, LoginRefused))
        longest = LONGEST_AWAY_PAUSE_SECONDS if away else LONGEST_PAUSE_SECONDS
        pause = pause_seconds(self._failures, longest, random.random())  # noqa: S311  (jitter, not a secret)
        return Attempt(retry_seconds=pause)
