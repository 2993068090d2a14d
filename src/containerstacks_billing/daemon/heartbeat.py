"""The heartbeat: a thread and a connection of their own, so that no query of a run can delay it.

A beat writes the daemon's whole row, so a status table that was truncated is right again with the next one. A beat that
fails is logged and tried again soon; money does not depend on it. Beats come on a grid as the runs do, and in between
whenever there is news.
"""

from __future__ import annotations

import contextlib
import random
import threading

from containerstacks_billing import logs
from containerstacks_billing.backoff import pause_seconds
from containerstacks_billing.daemon.model import Beat, DaemonStatus, describe
from containerstacks_billing.daemon.schedule import Schedule
from containerstacks_billing.daemon.state import DaemonState
from containerstacks_billing.daemon.status_row import close_rows_of_killed, last_run, write_beat
from containerstacks_billing.daemon.systemd_notify import notify
from containerstacks_billing.database.connection import Connection, bounded_transaction, connect
from containerstacks_billing.errors import BillingError
from containerstacks_billing.schema.diagnose import diagnosed
from containerstacks_billing.throttled_log import RecurringError

LONGEST_PAUSE_SECONDS = 15.0
SECONDS_BETWEEN_LINES = 60.0


class Heartbeat:
    """Beats until it is ended, and once more with the status `stopped`."""

    def __init__(self, state: DaemonState) -> None:
        self._state, self._clock = state, state.clock
        self._ending = threading.Event()
        self._connection: Connection | None = None
        self._connected_to = ""
        self._restored = False
        self._error = RecurringError(
            self._clock, "The heartbeat could not be written", "The heartbeat is written again"
        )
        self._expected_at = self._next_line_at = self._clock.monotonic()
        self._silent = False
        self._thread = threading.Thread(target=self._beat_on_schedule, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def end(self, patience_seconds: float) -> bool:
        """Write the status `stopped` and end; return whether that was written before patience ran out."""
        self._ending.set()
        self._state.heartbeat_news.set()
        self._thread.join(patience_seconds)
        return not self._thread.is_alive()

    def stalled_seconds(self) -> float:
        """Return how long the thread is overdue with its next attempt."""
        return max(0.0, self._clock.monotonic() - self._expected_at)

    def _beat_on_schedule(self) -> None:
        failures = 0
        grid = Schedule(self._clock.monotonic(), float(self._state.settings.heartbeat_seconds))
        while True:
            self._state.heartbeat_news.clear()
            last = self._ending.is_set()
            written = self._beat(last)
            if last and written:
                break
            now = self._clock.monotonic()
            grid = grid.every(float(self._state.settings.heartbeat_seconds), now)
            failures = 0 if written else failures + 1
            if written:
                pause = grid.next_after(now) - now
            else:
                longest = 1.0 if last else min(grid.interval_seconds, LONGEST_PAUSE_SECONDS)
                pause = pause_seconds(failures, longest, random.random())  # noqa: S311  (jitter, not a secret)
            self._expected_at = now + pause
            self._clock.wait(self._state.heartbeat_news, pause)
        self._disconnect()

    def _beat(self, last: bool) -> bool:
        """Write one beat; return whether the database has it."""
        self._state.database_asked()
        try:
            connection = self._connect()
            with diagnosed(self._connected_to):
                beat = self._state.beat(stopped=last)
                write_beat(connection, beat)
        except Exception as error:  # noqa: BLE001  (whatever it is, the next beat has to come)
            self._disconnect()
            self._error.report(error)
            notify(f"STATUS={describe(self._state.beat(stopped=last), unwritten=str(error))}")
            return False
        self._state.database_answered()
        notify(f"STATUS={describe(beat)}")
        self._log(beat)
        if self._error.resolved():
            self._state.retry_now()
        return True

    def _connect(self) -> Connection:
        conninfo = self._state.conninfo
        if self._connection is not None and (
            self._connection.closed or conninfo != self._connected_to or self._state.servers.has_parted()
        ):
            self._disconnect()
        if self._connection is None:
            self._connection = connect(conninfo, purpose="billing")
            self._connected_to = conninfo
            self._state.servers.beats_on(self._connection)
        if not self._restored:
            with contextlib.suppress(BillingError), diagnosed(conninfo):
                self._restore(self._connection)
            self._restored = True
        return self._connection

    def _restore(self, connection: Connection) -> None:
        """Take over what the processes before this one left: the facts of their last run, and rows of killed ones."""
        with bounded_transaction(connection):
            self._state.progress.restore(*last_run(connection))
        with bounded_transaction(connection):
            killed = close_rows_of_killed(connection, self._state.instance_id)
        for daemon, heartbeat_at in killed:
            logs.logger().error(
                "The billing daemon before this one was killed: it ended without stopping",
                daemon=daemon,
                last_heartbeat=heartbeat_at.isoformat(timespec="seconds") if heartbeat_at else "unknown",
            )

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _log(self, beat: Beat) -> None:
        """Log the beat, at most one a minute, and at once that billing makes no progress, or makes it again."""
        silent = beat.silent_seconds > 0
        if silent is not self._silent:
            self._silent = silent
            if silent:
                logs.logger().error(
                    "Billing makes no progress; the heartbeat is set back, so that failover can happen",
                    reason=beat.error_message,
                )
            else:
                logs.logger().info("Billing makes progress again; the heartbeat is back")
        now = self._clock.monotonic()
        if now < self._next_line_at and beat.status is not DaemonStatus.STOPPED:
            return
        self._next_line_at = now + SECONDS_BETWEEN_LINES - 1
        next_run = None if beat.next_seconds is None else round(beat.next_seconds)
        logs.logger().info("Heartbeat", status=beat.status.value, next_run_seconds=next_run)
