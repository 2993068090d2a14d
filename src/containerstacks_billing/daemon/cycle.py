"""Billing cycle of the daemon: one attempt at a run, and when to try again, by how it ended."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from uuid import UUID

from containerstacks_billing import logs
from containerstacks_billing.backoff import pause_seconds
from containerstacks_billing.charging.model import Outcome, Progress, RunResult
from containerstacks_billing.charging.run import RunOrder, run_billing, terms_of
from containerstacks_billing.daemon.run_log import RunLog
from containerstacks_billing.daemon.shutdown import Shutdown
from containerstacks_billing.daemon.state import DaemonState, StopRequested
from containerstacks_billing.database.connection import Connection
from containerstacks_billing.errors import (
    BillingError,
    ConfigurationError,
    DatabaseUnavailable,
    LeaseNotObtained,
    LoginRefused,
    RightsMissing,
    SchemaMismatch,
)
from containerstacks_billing.hosts.adopted import require_statuses
from containerstacks_billing.notifications.run_signal import signal_run
from containerstacks_billing.throttled_log import RecurringError

TRIGGER = "daemon"
TOP_UP_TRIGGER = "top-up"
# The daemon tries again by itself, so it waits for the lease briefly, and a stop does not wait for it.
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
    """Attempts runs, and writes how each ended into progress and log."""

    def __init__(self, state: DaemonState, shutdown: Shutdown) -> None:
        self._state, self._shutdown = state, shutdown
        self._failures = 0
        self._error = RecurringError(state.clock, "Billing is not possible", "Billing is possible again")
        self._waiting = RecurringError(
            state.clock,
            "Billing waits for another biller, which holds the lease",
            "Lease acquired; billing resumed",
            level="warning",
        )

    def attempt(self) -> Attempt:
        """Bill once. Whatever happens is logged, written into the progress, and returned; nothing is raised."""
        state, log = self._state, RunLog(self._state.clock)

        def progressed(progress: Progress) -> None:
            state.progress.progressed(log.run_id, progress)
            log.progressed(progress)
            state.database_answered()
            self._shutdown.extend()

        order = self._order(log, progressed)
        settings = state.settings
        signal_run(settings, "start")
        state.progress.started()
        try:
            result = run_billing(order)
        except Exception as error:  # noqa: BLE001  (a daemon outlives every error of a run)
            return self._failed(error)
        finally:
            state.end_run()
        self._failures = 0
        self._error.resolved()
        self._waiting.resolved()
        state.progress.ended(result)
        log.ended(result)
        signal_run(settings, "completed" if result.outcome is Outcome.COMPLETED else "fail")
        return Attempt(result)

    def attempt_organization(self, organization: UUID) -> None:
        """Bill one organization that can pay again, unless another biller is at work, which does it as well.

        It is no tick: neither the progress nor the time of the next run changes. Nothing is raised.
        """
        log = RunLog(self._state.clock)
        order = replace(
            self._order(log, log.progressed),
            trigger=TOP_UP_TRIGGER,
            organization=organization,
            workers=1,
            wait_seconds=0.0,
        )
        try:
            log.ended(run_billing(order))
        except (StopRequested, LeaseNotObtained):
            return
        except Exception as error:  # noqa: BLE001  (a daemon outlives every error of a run)
            logs.logger().warning(
                "An organization that can pay again was not billed; the next run does it",
                organization=organization,
                reason=str(error),
            )
        finally:
            self._state.end_run()

    def _order(self, log: RunLog, progressed: Callable[[Progress], None]) -> RunOrder:
        state = self._state
        settings = state.settings

        def reached(connection: Connection) -> None:
            state.servers.charges_on(connection)
            if state.servers.has_parted():
                state.heartbeat_news.set()

        def confirm() -> None:
            require_statuses(state.conninfo, settings)
            state.begin_run()

        return RunOrder(
            conninfo=state.conninfo,
            terms=terms_of(settings),
            trigger=TRIGGER,
            holder=state.instance_id,
            workers=settings.billing_workers,
            batch_size=settings.billing_batch_size,
            host_clock=state.clock.host_time,
            wait_seconds=LEASE_WAIT_SECONDS,
            stopping=state.after_batch,
            reached=reached,
            confirm=confirm,
            opened=log.opened,
            progressed=progressed,
        )

    def _failed(self, error: Exception) -> Attempt:
        if isinstance(error, StopRequested):
            self._state.progress.failed(None)
            return Attempt()
        if isinstance(error, LeaseNotObtained):
            self._state.progress.failed(None)
            if not self._state.stop_requested:
                self._waiting.report(error)
            return Attempt(retry_seconds=LEASE_RETRY_SECONDS * (0.5 + random.random() / 2))  # noqa: S311
        self._failures += 1
        signal_run(self._state.settings, "fail")
        self._state.progress.failed(
            str(error) if isinstance(error, BillingError) else f"{type(error).__name__}: {error}"
        )
        self._error.report(error)
        if isinstance(error, (SchemaMismatch, RightsMissing, ConfigurationError)):
            return Attempt()
        away = isinstance(error, (DatabaseUnavailable, LoginRefused))
        longest = LONGEST_AWAY_PAUSE_SECONDS if away else LONGEST_PAUSE_SECONDS
        pause = pause_seconds(self._failures, longest, random.random())  # noqa: S311  (jitter, not a secret)
        return Attempt(retry_seconds=pause)
