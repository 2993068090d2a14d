"""The daemon: one process that bills at its start and at every tick, until it is told to stop.

**Threads.** The main thread is the billing loop. Beside it live the heartbeat, the receiver of signals, and, where
somebody wants them, the watchdog and the delivery of events. They talk through flags and through the pulse, which
says when billing last made progress. No thread decides about money: that is the transaction's
(queries/charging.sql), so each of them may be late, stuck or dead, and the worst that follows is that somebody else
bills.

**Starting.** A configuration or a schema that is wrong ends the process with 78, for no attempt will do better. A
database that is away does not: the daemon is then ready, says what it waits for, and recovers by itself, at start
as at any time later. What turns wrong later (a migration, a right that is taken) is an error status and another
attempt at each tick.

**Stopping** has an essay of its own (stop.py).
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import threading
from collections.abc import Callable

from containerstacks_billing import logs
from containerstacks_billing.clock import Clock
from containerstacks_billing.config.load import Configuration
from containerstacks_billing.config.target import target
from containerstacks_billing.daemon import signals, watchdog
from containerstacks_billing.daemon.cycle import Attempt, Cycle
from containerstacks_billing.daemon.heartbeat import Heartbeat
from containerstacks_billing.daemon.housekeeping import Housekeeping
from containerstacks_billing.daemon.model import Beat
from containerstacks_billing.daemon.preflight import preflight
from containerstacks_billing.daemon.progress import LoopProgress
from containerstacks_billing.daemon.schedule import Agenda
from containerstacks_billing.daemon.shutdown import AWAY_GIVEN_UP_SECONDS, Shutdown
from containerstacks_billing.daemon.systemd_notify import notify, reloading
from containerstacks_billing.errors import BillingError
from containerstacks_billing.notifications.delivery import DeliveryThread
from containerstacks_billing.settings import Settings
from containerstacks_billing.version import __version__

_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
_TOLD_SETTINGS = (
    "BILLING_INTERVAL_MINUTES", "HEARTBEAT_SECONDS", "FAILOVER_AFTER_MINUTES", "BILLING_WORKERS", "BILLING_BATCH_SIZE",
    "BILLABLE_STATUSES", "HOURS_PER_MONTH", "PARTIAL_HOUR", "CURRENCY", "MAX_CATCH_UP_HOURS", "BRAKE_FACTOR",
    "RETENTION_DAYS",
)  # fmt: skip


def name_of_this_process() -> str:
    """Return host name, pid and some random digits: in containers every daemon is pid 1, and host names are reused."""
    return f"{socket.gethostname()[:200]}-{os.getpid()}-{secrets.token_hex(3)}"


class Daemon:
    """One life of the daemon. `load` reads the configuration again; `run` returns the exit code."""

    def __init__(
        self, configuration: Configuration, load: Callable[[], Configuration], clock: Clock | None = None
    ) -> None:
        self.instance_id = name_of_this_process()
        self._configuration, self._load = configuration, load
        self._clock = clock or Clock()
        self._wake, self._retry_now = threading.Event(), threading.Event()
        self._pulse = LoopProgress(self._clock)
        self._heartbeat = Heartbeat(
            self._clock,
            self._pulse,
            tell=self._tell,
            conninfo=self._conninfo,
            interval_seconds=lambda: float(self._settings.heartbeat_seconds),
            returned=self._retry,
        )
        self._stop = Shutdown(
            run_is_open=lambda: self._cycle.is_open,
            look=self._heartbeat.soon,
            unanswered_seconds=self._heartbeat.unanswered_seconds,
            wake=self._wake.set,
        )
        self._cycle = Cycle(
            self._clock, self._pulse, self.instance_id, self._stop.after_batch, self._progressed
        )
        self._housekeeping = Housekeeping(self._clock, self.instance_id, lambda: self._stop.asked)
        self._delivery = DeliveryThread()

    def run(self) -> int:
        """Live: start, bill until told to stop, stop."""
        signals.block(_SIGNALS)
        self._start()
        self._main_loop()
        self._end()
        return 0

    # Starting.

    def _start(self) -> None:
        log = logs.logger()
        log.info("Billing daemon starts", daemon=self.instance_id, version=__version__)
        conninfo = self._conninfo()
        preflight(conninfo)
        signals.receive(
            {
                signal.SIGTERM: self._stop.ask,
                signal.SIGINT: self._stop.ask,
                signal.SIGHUP: self._reload,
            }
        )
        self._heartbeat.start()
        self._delivery.configure(conninfo, self._settings)
        watchdog.feed({"billing": self._pulse.stalled_seconds, "heartbeat": self._heartbeat.stalled_seconds})
        notify("READY=1")
        minutes = self._settings.billing_interval_minutes
        log.info("Billing daemon is ready", billing_interval_minutes=minutes)

    # Billing.

    def _main_loop(self) -> None:
        agenda = Agenda.beginning(self._clock.monotonic(), self._interval_seconds())
        while True:
            self._wake.clear()
            if self._stop.asked:
                return
            now = self._clock.monotonic()
            agenda = self._reconsidered(agenda, now)
            if agenda.at > now:
                self._clock.wait(self._wake, agenda.at - now)
                continue
            attempt = self._cycle.attempt(self._settings, self._conninfo())
            agenda = self._planned(agenda, attempt)
            self._heartbeat.soon()
            if attempt.completed:
                self._housekeeping.tidy(self._conninfo(), self._settings.retention_days)

    def _reconsidered(self, agenda: Agenda, now: float) -> Agenda:
        """Look at what was changed while the loop waited: the interval, or a reason to try again at once."""
        changed = agenda.every(self._interval_seconds(), now)
        if self._retry_now.is_set():
            self._retry_now.clear()
            changed = changed.at_once(now)
        if changed is not agenda:
            self._tell_pulse(changed)
            self._heartbeat.soon()
        return changed

    def _planned(self, agenda: Agenda, attempt: Attempt) -> Agenda:
        """Return what comes after an attempt."""
        now = self._clock.monotonic()
        if attempt.result is None:
            agenda = agenda.failed(now, attempt.retry_seconds)
        else:
            if skipped := agenda.schedule.skipped(agenda.due, now):
                logs.logger().warning(
                    "A billing run took longer than the interval; ticks were skipped", ticks=skipped
                )
            agenda = agenda.ran(now)
        self._tell_pulse(agenda)
        return agenda

    def _tell_pulse(self, agenda: Agenda) -> None:
        if agenda.retrying:
            self._pulse.retries(agenda.at)
        else:
            self._pulse.waits(agenda.at)

    def _progressed(self) -> None:
        """A batch was committed, by whichever worker."""
        self._heartbeat.answered()
        self._stop.extend()

    def _retry(self) -> None:
        """Something changed for the better: repeat an attempt that failed now. A run that is not due is not begun."""
        self._retry_now.set()
        self._wake.set()

    # Signals, each taken by the signals' own thread.

    def _reload(self) -> None:
        """Read the configuration again; whatever is wrong with it, the old one stays."""
        reloading()
        try:
            found = self._load()
            target(found.settings, embedded_allowed=False)
        except BillingError as error:
            logs.logger().error(
                "The configuration was not re-read, the old one stays", reason=str(error), hint=error.hint
            )
        else:
            before, self._configuration = self._configuration, found
            logs.configure(found.settings.log_level, found.settings.log_format, found.secrets())
            changed = [key for key in found.origins if _value(before, key) != _value(found, key)]
            logs.logger().info("The configuration was re-read", changed=",".join(changed) or "nothing")
            for warning in found.warnings:
                logs.logger().warning(warning)
            self._delivery.configure(self._conninfo(), found.settings)
            self._retry()
            self._heartbeat.soon()
        finally:
            notify("READY=1")

    # Stopping.

    def _end(self) -> None:
        self._delivery.stop()
        written = self._heartbeat.end(AWAY_GIVEN_UP_SECONDS)
        if not written:
            logs.logger().error("The status 'stopped' could not be written")
        notify("STATUS=stopped")
        logs.logger().info("Billing daemon stopped", daemon=self.instance_id)

    # What the other threads ask.

    @property
    def _settings(self) -> Settings:
        return self._configuration.settings

    def _conninfo(self) -> str:
        return target(self._settings, embedded_allowed=False).conninfo

    def _interval_seconds(self) -> float:
        return self._settings.billing_interval_minutes * 60.0

    def _tell(self, stopped: bool) -> Beat:
        told = {key.lower(): self._configuration.shown(key) for key in _TOLD_SETTINGS}
        metadata = {
            "version": __version__,
            "hostname": socket.gethostname(),
            "pid": os.getpid(),
            "interval_minutes": self._settings.billing_interval_minutes,
            "configuration": told,
        }
        failover_seconds = self._settings.failover_after_minutes * 60.0
        return self._pulse.beat(self.instance_id, failover_seconds, metadata, stopped=stopped)


def _value(configuration: Configuration, key: str) -> object:
    return getattr(configuration.settings, key.lower())
