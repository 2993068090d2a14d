"""Built-in billing: the application side bills for as long as no daemon is alive.

It checks at least once a minute, decides from the tables (status/failover.py) and calls `run_billing`. The decision is
made twice, without the lease and again under it, because another application side may have billed this hour in between,
or the daemon may have returned. An unreadable status is never taken for silence. It does not write
billing_daemon_status, which is the daemon's own; its sign of life has a table of its own (application_side.py).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from containerstacks_billing import logs
from containerstacks_billing.charging.model import OpenRun, Outcome, RunResult
from containerstacks_billing.charging.run import RunOrder, run_billing, terms_of
from containerstacks_billing.clock import Clock
from containerstacks_billing.config.target import target
from containerstacks_billing.daemon import application_side
from containerstacks_billing.daemon.server_watch import ServerWatch
from containerstacks_billing.errors import BillingError, LeaseNotObtained
from containerstacks_billing.hosts.adopted import require_statuses
from containerstacks_billing.identity import process_name
from containerstacks_billing.notifications.run_signal import signal_run
from containerstacks_billing.settings import Settings
from containerstacks_billing.status.failover import (
    CHECK_SECONDS,
    Decision,
    FailoverDecision,
    Reading,
    decide,
    host_bills,
    pause_seconds,
)
from containerstacks_billing.status.read import read_failover
from containerstacks_billing.throttled_log import RecurringError

TRIGGER = "built-in"
# The same sentence is repeated hourly, so that the log of any hour answers who bills.
_REPEAT_SECONDS = 3600.0
_STOP_SECONDS = 60.0


class NoLongerWanted(Exception):
    """Between check and lease another biller has billed, or the daemon has returned."""


@dataclass(frozen=True, slots=True)
class FailoverCheck:
    """One check of who bills: when (host clock), the decision, whether the host's own scheduler is alive."""

    at: datetime
    decision: FailoverDecision
    host_bills: bool | None = None
    result: RunResult | None = None


class BuiltInBilling:
    """Bills whenever the daemon is silent; embed it with `start` and `stop`, or call `run` from a thread of yours.

    Any number of processes may hold one: the lease lets one of them bill. `conninfo` is the database, `settings` are
    those of the command. Neither the constructor nor `start` needs the database to be reachable.
    """

    def __init__(
        self,
        settings: Settings,
        conninfo: str | None = None,
        *,
        holder: str | None = None,
        check_seconds: float = CHECK_SECONDS,
        clock: Clock | None = None,
    ) -> None:
        self._settings = settings
        self._conninfo = conninfo or target(settings, embedded_allowed=False).conninfo
        self._holder = holder or f"built-in {process_name()}"
        self._check_seconds = check_seconds
        self._clock = clock or Clock()
        self._log = _ChangeLog(self._clock)
        self._presence_error = RecurringError(
            self._clock,
            "The sign of life could not be written, so this application side is not shown as what takes over",
            "The sign of life is written again",
            level="warning",
        )
        self._servers = ServerWatch()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.last_check: FailoverCheck | None = None

    @classmethod
    def from_environment(cls) -> BuiltInBilling:
        """Make one from the environment and the `.env` of the working directory, as the command reads them."""
        from containerstacks_billing.config import load as configuration

        return cls(configuration.load({}, of_service=False).settings)

    @property
    def is_alive(self) -> bool:
        """Whether the thread that `start` began is alive."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Check and bill in a thread of its own until `stop`; a second call changes nothing."""
        if self.is_alive:
            return
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            target=self.run, args=(self._stopping,), name="built-in-billing", daemon=True
        )
        self._thread.start()

    def stop(self, timeout_seconds: float = _STOP_SECONDS) -> bool:
        """Stop after the batches that are under way; False when that took longer than `timeout_seconds`.

        What an interrupted run leaves is billed by the next application side that checks, or by the daemon.
        """
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout_seconds)
        return not self.is_alive

    def run(self, stopping: threading.Event) -> None:
        """Check and bill until `stopping` is set. Nothing else ends this loop."""
        while not stopping.is_set():
            try:
                self.last_check = self.check(stopping)
                pause = pause_seconds(self.last_check.decision, self._check_seconds)
            except Exception as error:  # noqa: BLE001 - built-in billing is the last resort, and goes on
                self._log.changed("error", "Built-in billing failed unexpectedly", error=error)
                pause = self._check_seconds
            self._clock.wait(stopping, pause)
        with contextlib.suppress(BillingError):
            application_side.withdraw(self._conninfo, self._holder)

    def check(self, stopping: threading.Event | None = None) -> FailoverCheck:
        """Check once, and bill if it is due; what keeps it from billing is a decision and not an error."""
        try:
            reading = read_failover(self._conninfo)
        except BillingError as error:
            return self._cannot_tell(error)
        self._report_presence()
        decision = self._decide(reading)
        checked = FailoverCheck(self._clock.host_time(), decision, host_bills(reading))
        if decision.decision is not Decision.BILL:
            self._log.changed("info", decision.sentence)
            return checked
        return self._bill(checked, stopping or threading.Event())

    def _report_presence(self) -> None:
        try:
            application_side.report(self._conninfo, self._holder, self._settings)
        except BillingError as error:
            self._presence_error.report(error)
        else:
            self._presence_error.resolved()

    def _decide(self, reading: Reading) -> FailoverDecision:
        failover_after = timedelta(minutes=self._settings.failover_after_minutes)
        return decide(reading, failover_after, self._settings.built_in_billing)

    def _cannot_tell(self, error: BillingError) -> FailoverCheck:
        sentence = f"Built-in billing cannot tell who bills and does not bill: {error}"
        self._log.changed("error", sentence, hint=error.hint)
        decision = FailoverDecision(Decision.CANNOT_TELL, sentence, CHECK_SECONDS)
        return FailoverCheck(self._clock.host_time(), decision)

    def _confirm(self) -> None:
        """Decide again under the lease."""
        decision = self._decide(read_failover(self._conninfo))
        if decision.decision is not Decision.BILL:
            raise NoLongerWanted(decision.sentence)
        require_statuses(self._conninfo, self._settings)
        self._log.always("warning", decision.sentence, holder=self._holder)

    def _bill(self, checked: FailoverCheck, stopping: threading.Event) -> FailoverCheck:
        settings = self._settings
        opened: list[OpenRun] = []
        order = RunOrder(
            conninfo=self._conninfo,
            terms=terms_of(settings),
            trigger=TRIGGER,
            holder=self._holder,
            workers=settings.billing_workers,
            batch_size=settings.billing_batch_size,
            host_clock=self._clock.host_time,
            wait_seconds=0,
            stopping=stopping,
            reached=self._servers.charges_on,
            confirm=self._confirm,
            opened=opened.append,
        )
        try:
            result = run_billing(order)
        except NoLongerWanted as reason:
            self._log.changed("info", str(reason))
            return _decided(checked, Decision.NOT_DUE, str(reason))
        except LeaseNotObtained as error:
            self._log.changed("info", "Built-in billing leaves this run to another biller", holder=error)
            return _decided(checked, Decision.NOT_DUE, str(error))
        except BillingError as error:
            which = {"run": opened[-1].run_id, "token": opened[-1].fencing_token} if opened else {}
            self._log.changed("error", f"Built-in billing could not bill: {error}", hint=error.hint, **which)
            return _decided(checked, Decision.CANNOT_TELL, str(error))
        _report(result, opened[-1])
        signal_run(settings, "completed" if result.outcome is Outcome.COMPLETED else "fail")
        return replace(checked, result=result)


def _decided(checked: FailoverCheck, decision: Decision, sentence: str) -> FailoverCheck:
    return replace(checked, decision=FailoverDecision(decision, sentence, CHECK_SECONDS))


def _report(result: RunResult, run: OpenRun) -> None:
    log = logs.logger().info if result.error_message is None else logs.logger().error
    log(
        "Built-in billing run ended",
        run=result.run_id,
        token=run.fencing_token,
        outcome=result.outcome.value,
        instances=result.instances_billed,
        hours=round(result.hours, 2),
        amount=result.amount,
        past_due=result.past_due_instances,
        error=result.error_message,
        seconds=round(result.duration_seconds, 3),
    )


class _ChangeLog:
    """Logs a sentence when it differs from the one before, and once an hour while it stays the same."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last: tuple[str, float] | None = None

    def changed(self, level: str, sentence: str, **facts: object) -> None:
        """Log a sentence unless it was the last one and less than an hour ago."""
        now = self._clock.monotonic()
        if self._last is None or self._last[0] != sentence or now - self._last[1] >= _REPEAT_SECONDS:
            self.always(level, sentence, **facts)

    def always(self, level: str, sentence: str, **facts: object) -> None:
        """Log a sentence; the next one that differs is logged at once."""
        self._last = (sentence, self._clock.monotonic())
        write: Callable[..., object] = getattr(logs.logger(), level)
        write(sentence, **facts)
