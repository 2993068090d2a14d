"""The billing daemon: one process that bills at its start and at every tick, until a signal stops it.

**Threads.** The main thread is the billing loop. Beside it run the heartbeat, the receiver of signals, and where they
are wanted the watchdog and the delivery of events. They share one value (state.py). No thread decides about money: the
charging transaction does (charging/README.md), so each of them may be late, stuck or dead, and the worst that follows
is that another biller bills.

**Starting.** A wrong configuration or schema ends the process with 78, because no attempt would do better. A database
that is away does not: the daemon is then ready, logs what it waits for, and recovers by itself, at the start as at any
time later. What turns wrong later (a migration, a revoked right) is an error status and another attempt at each tick.

**Stopping** has an essay of its own (shutdown.py). Signals are received before anything else is done.
"""

from __future__ import annotations

import signal
from collections.abc import Callable

from containerstacks_billing import logs
from containerstacks_billing.clock import Clock
from containerstacks_billing.config.load import Configuration
from containerstacks_billing.config.target import target
from containerstacks_billing.daemon import signals, watchdog
from containerstacks_billing.daemon.cycle import Attempt, Cycle
from containerstacks_billing.daemon.heartbeat import Heartbeat
from containerstacks_billing.daemon.host_billing import HostBilling
from containerstacks_billing.daemon.housekeeping import Housekeeping
from containerstacks_billing.daemon.leak_watch import LeakWatch
from containerstacks_billing.daemon.preflight import preflight
from containerstacks_billing.daemon.schedule import Agenda
from containerstacks_billing.daemon.shutdown import AWAY_GIVEN_UP_SECONDS, Shutdown
from containerstacks_billing.daemon.state import DaemonState
from containerstacks_billing.daemon.systemd_notify import notify, reloading
from containerstacks_billing.daemon.top_ups import TopUpWatch
from containerstacks_billing.errors import BillingError
from containerstacks_billing.notifications.delivery import DeliveryThread
from containerstacks_billing.version import __version__

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Daemon:
    """One life of the daemon. `load` reads the configuration again; `run` returns the exit code."""

    def __init__(
        self, configuration: Configuration, load: Callable[[], Configuration], clock: Clock | None = None
    ) -> None:
        self._load = load
        self._clock = clock or Clock()
        self._state = DaemonState(configuration, self._clock)
        self._heartbeat = Heartbeat(self._state)
        self._shutdown = Shutdown(self._state)
        self._cycle = Cycle(self._state, self._shutdown)
        self._rival = HostBilling(self._state)
        self._housekeeping = Housekeeping(self._state)
        self._leaks = LeakWatch(self._state)
        self._delivery = DeliveryThread()
        self._top_ups = TopUpWatch(self._state)

    def run(self) -> int:
        """Start, bill until a signal stops the daemon, stop; return 0."""
        with signals.received(_SIGNALS, self._signalled):
            self.bill_until_stopped()
        return 0

    def bill_until_stopped(self) -> None:
        """Start, bill until `request_stop`, stop: `run` for a process that receives its signals itself."""
        self._start()
        self._bill_on_schedule()
        self._end()

    def request_stop(self) -> None:
        """Complete the run that is under way and stop; a second request ends the run after its batches."""
        self._shutdown.request()

    def _signalled(self, number: signal.Signals) -> None:
        if number == signal.SIGHUP:
            self._reload()
        else:
            self.request_stop()

    # Starting.

    def _start(self) -> None:
        state, log = self._state, logs.logger()
        log.info("Billing daemon starts", daemon=state.instance_id, version=__version__)
        preflight(state.conninfo, state.settings)
        self._heartbeat.start()
        self._delivery.configure(state.conninfo, state.settings)
        self._top_ups.start()
        watchdog.feed(
            {"billing": state.progress.stalled_seconds, "heartbeat": self._heartbeat.stalled_seconds}
        )
        notify("READY=1")
        log.info("Billing daemon is ready", billing_interval_minutes=state.settings.billing_interval_minutes)

    # Billing.

    def _bill_on_schedule(self) -> None:
        state = self._state
        agenda = Agenda.beginning(self._clock.monotonic(), state.interval_seconds)
        while True:
            state.loop_news.clear()
            if state.stop_requested:
                return
            now = self._clock.monotonic()
            agenda = self._reconsidered(agenda, now)
            if agenda.at > now:
                if organization := state.take_organization():
                    self._cycle.attempt_organization(organization)
                    continue
                self._clock.wait(state.loop_news, agenda.at - now)
                continue
            attempt = self._cycle.attempt()
            agenda = self._planned(agenda, attempt)
            state.heartbeat_news.set()
            if attempt.completed:
                self._housekeeping.tidy()
                self._rival.check()
                self._leaks.look()

    def _reconsidered(self, agenda: Agenda, now: float) -> Agenda:
        """Return the agenda after what changed while the loop waited: the interval, or a reason to retry at once."""
        changed = agenda.every(self._state.interval_seconds, now)
        if self._state.take_retry():
            changed = changed.at_once(now)
        if changed is not agenda:
            self._note(changed)
            self._state.heartbeat_news.set()
        return changed

    def _planned(self, agenda: Agenda, attempt: Attempt) -> Agenda:
        """Return the agenda after an attempt."""
        now = self._clock.monotonic()
        if attempt.result is None:
            agenda = agenda.failed(now, attempt.retry_seconds)
        else:
            if skipped := agenda.schedule.skipped(agenda.due, now):
                logs.logger().warning(
                    "A billing run took longer than the interval; ticks were skipped", ticks=skipped
                )
            agenda = agenda.ran(now)
        self._note(agenda)
        return agenda

    def _note(self, agenda: Agenda) -> None:
        if agenda.retrying:
            self._state.progress.retrying(agenda.at)
        else:
            self._state.progress.waiting(agenda.at)

    # Reloading and stopping.

    def _reload(self) -> None:
        """Read the configuration again; if it is wrong, the old one stays."""
        reloading()
        try:
            found = self._load()
            target(found.settings, embedded_allowed=False)
        except BillingError as error:
            logs.logger().error(
                "The configuration was not re-read, the old one stays", reason=str(error), hint=error.hint
            )
        else:
            former = self._state.reconfigure(found)
            logs.configure(found.settings.log_level, found.settings.log_format, found.secrets())
            changed = [key for key in found.origins if _value(former, key) != _value(found, key)]
            logs.logger().info("The configuration was re-read", changed=",".join(changed) or "nothing")
            if found.is_copy_of_start:
                logs.logger().error(
                    "Nothing can change by a reload: systemd hands over a copy of .env at a start only",
                    hint="systemctl restart containerstacks-billing.service",
                )
            for warning in found.warnings:
                logs.logger().warning(warning)
            self._delivery.configure(self._state.conninfo, found.settings)
        finally:
            notify("READY=1")

    def _end(self) -> None:
        self._top_ups.stop()
        self._delivery.stop()
        written = self._heartbeat.end(AWAY_GIVEN_UP_SECONDS)
        if not written:
            logs.logger().error("The status 'stopped' could not be written")
        notify("STATUS=stopped")
        logs.logger().info("Billing daemon stopped", daemon=self._state.instance_id)


def _value(configuration: Configuration, key: str) -> object:
    return getattr(configuration.settings, key.lower())
