"""Built-in billing: the same run, by the application side, for as long as no daemon is alive.

It looks at least once a minute, decides from the tables (status/failover.py) and calls `run_billing`.
The decision is made twice: once without the lease, to leave a living daemon alone, and once more under it, because
between looking and obtaining another replica may have billed this hour, or the daemon may have come back. What cannot
be read is never taken for silence. It never writes billing_daemon_status: that table is the daemon's word.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from containerstacks_billing.charging.model import OpenRun, RunResult
from containerstacks_billing.charging.run import RunOrder, run_billing, terms_of
from containerstacks_billing.config.target import target
from containerstacks_billing.errors import BillingError, LeaseNotObtained
from containerstacks_billing.identity import process_name
from containerstacks_billing.logs import logger
from containerstacks_billing.settings import Settings
from containerstacks_billing.status.failover import (
    CHECK_SECONDS,
    Decision,
    HeartbeatClamp,
    Reading,
    Verdict,
    decide,
    host_bills,
    pause_seconds,
)
from containerstacks_billing.status.read_failover import read_failover

TRIGGER = "built-in"
# The same sentence is repeated hourly, so that a log of any hour answers who bills.
_REPEAT_SECONDS = 3600.0
_STOP_SECONDS = 60.0


class NoLongerWanted(Exception):
    """Between looking and obtaining the lease somebody else has billed, or the daemon has come back."""


@dataclass(frozen=True, slots=True)
class Look:
    """One look at who bills: when (host clock), the verdict, whether the host's own built-in billing is alive."""

    at: datetime
    verdict: Verdict
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
    ) -> None:
        self._settings = settings
        self._conninfo = conninfo or target(settings, embedded_allowed=False).conninfo
        self._holder = holder or f"built-in {process_name()}"
        self._check_seconds = check_seconds
        self._clamp = HeartbeatClamp()
        self._log = _OnChange()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.last_look: Look | None = None

    @classmethod
    def from_environment(cls) -> BuiltInBilling:
        """Make one from the environment and the `.env` of the working directory, as the command reads them."""
        from containerstacks_billing.config import load as configuration

        return cls(configuration.load({}, of_service=False).settings)

    @property
    def is_alive(self) -> bool:
        """Whether the thread that `start` began is there."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Look and bill in a thread of its own until `stop`; a second call changes nothing."""
        if self.is_alive:
            return
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            target=self.run, args=(self._stopping,), name="built-in-billing", daemon=True
        )
        self._thread.start()

    def stop(self, timeout_seconds: float = _STOP_SECONDS) -> bool:
        """Stop after the batches that are under way; False when that took longer than `timeout_seconds`.

        What an interrupted run leaves is billed by the next replica that looks, or by the daemon.
        """
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout_seconds)
        return not self.is_alive

    def run(self, stopping: threading.Event) -> None:
        """Look and bill until `stopping` is set. Nothing ends this loop but that."""
        while not stopping.is_set():
            try:
                self.last_look = self.look(stopping)
                pause = pause_seconds(self.last_look.verdict, self._check_seconds)
            except Exception as error:  # noqa: BLE001 - built-in billing is the last resort, and stays
                self._log.say("error", "Built-in billing failed in an unforeseen way", error=error)
                pause = self._check_seconds
            stopping.wait(pause)

    def look(self, stopping: threading.Event | None = None) -> Look:
        """Look once, and bill if it is due; whatever keeps it from billing is an answer and not an error."""
        try:
            reading = self._read()
        except BillingError as error:
            return self._cannot_tell(error)
        verdict = self._decide(reading)
        look = Look(datetime.now(UTC), verdict, host_bills(reading))
        if verdict.decision is not Decision.BILL:
            self._log.say("info", verdict.sentence)
            return look
        return self._bill(look, stopping or threading.Event())

    def _read(self) -> Reading:
        return read_failover(self._conninfo, self._clamp)

    def _decide(self, reading: Reading) -> Verdict:
        failover_after = timedelta(minutes=self._settings.failover_after_minutes)
        return decide(reading, failover_after, self._settings.built_in_billing)

    def _cannot_tell(self, error: BillingError) -> Look:
        sentence = f"Built-in billing cannot tell who bills and does not bill: {error}"
        self._log.say("error", sentence, hint=error.hint)
        return Look(datetime.now(UTC), Verdict(Decision.CANNOT_TELL, sentence, CHECK_SECONDS))

    def _confirm(self) -> None:
        """Look again under the lease."""
        verdict = self._decide(self._read())
        if verdict.decision is not Decision.BILL:
            raise NoLongerWanted(verdict.sentence)
        logger().warning(verdict.sentence, holder=self._holder)

    def _bill(self, look: Look, stopping: threading.Event) -> Look:
        settings = self._settings
        opened: list[OpenRun] = []
        order = RunOrder(
            conninfo=self._conninfo,
            terms=terms_of(settings),
            trigger=TRIGGER,
            holder=self._holder,
            workers=settings.billing_workers,
            batch_size=settings.billing_batch_size,
            wait_seconds=0,
            stopping=stopping,
            confirm=self._confirm,
            opened=opened.append,
        )
        try:
            result = run_billing(order)
        except NoLongerWanted as reason:
            self._log.say("info", str(reason))
            return self._changed(look, Decision.NOT_DUE, str(reason))
        except LeaseNotObtained as error:
            self._log.say("info", "Built-in billing leaves this run to another biller", holder=error)
            return self._changed(look, Decision.NOT_DUE, str(error))
        except BillingError as error:
            which = {"run": opened[-1].run_id, "token": opened[-1].fencing_token} if opened else {}
            self._log.say("error", f"Built-in billing could not bill: {error}", hint=error.hint, **which)
            return self._changed(look, Decision.CANNOT_TELL, str(error))
        _report(result, opened[-1])
        return Look(look.at, look.verdict, look.host_bills, result)

    def _changed(self, look: Look, decision: Decision, sentence: str) -> Look:
        return Look(look.at, Verdict(decision, sentence, CHECK_SECONDS), look.host_bills)


def _report(result: RunResult, run: OpenRun) -> None:
    say = logger().info if result.error_message is None else logger().error
    say(
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


class _OnChange:
    """Logs a sentence when it is a new one, and once an hour while it stays the same."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: tuple[str, float] | None = None

    def say(self, level: str, sentence: str, **facts: object) -> None:
        now = self._clock()
        if self._last and self._last[0] == sentence and now - self._last[1] < _REPEAT_SECONDS:
            return
        self._last = (sentence, now)
        partial(getattr(logger(), level), sentence)(**facts)
