"""The heartbeat: a thread and a connection of their own, so that no query of a run can delay it.

A beat writes the daemon's whole row, so a status table that was truncated is right again with the next one. A beat
that fails is complained of and tried again soon; money does not depend on it. Beats come on a grid like the runs
do, and in between whenever there is news.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable

from containerstacks_billing import logs
from containerstacks_billing.backoff import pause_seconds
from containerstacks_billing.clock import Clock
from containerstacks_billing.daemon.model import Beat, DaemonState, describe
from containerstacks_billing.daemon.progress import LoopProgress
from containerstacks_billing.daemon.schedule import Schedule
from containerstacks_billing.daemon.status_row import last_run, write_beat
from containerstacks_billing.daemon.systemd_notify import notify
from containerstacks_billing.database.connection import Connection, bounded_transaction, connect
from containerstacks_billing.errors import BillingError
from containerstacks_billing.schema.diagnose import diagnosed
from containerstacks_billing.throttled_log import RecurringError

LONGEST_PAUSE_SECONDS = 15.0
SECONDS_BETWEEN_LINES = 60.0


class Heartbeat:
    """Beats until it is told to end, and once more to say that it ended.

    `tell(stopped)` puts together a beat, `conninfo` and `interval` give the settings of the moment, `returned` is
    called when the database answers again after it did not.
    """

    def __init__(
        self,
        clock: Clock,
        pulse: LoopProgress,
        *,
        tell: Callable[[bool], Beat],
        conninfo: Callable[[], str],
        interval_seconds: Callable[[], float],
        returned: Callable[[], None],
    ) -> None:
        self._clock, self._pulse = clock, pulse
        self._tell, self._conninfo = tell, conninfo
        self._interval_seconds, self._returned = interval_seconds, returned
        self._wake, self._ending = threading.Event(), threading.Event()
        self._connection: Connection | None = None
        self._connected_to = ""
        self._recalled = False
        self._complaint = RecurringError(
            clock, "The heartbeat could not be written", "The heartbeat is written again"
        )
        self._unanswered_since: float | None = None
        self._expected_at = clock.monotonic()
        self._next_line_at = self._expected_at
        self._silent = False
        self._thread = threading.Thread(target=self._live, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def soon(self) -> None:
        """Beat now, because there is news."""
        self._wake.set()

    def end(self, patience_seconds: float) -> bool:
        """Say 'stopped' and end; return whether that was written before patience ran out."""
        self._ending.set()
        self._wake.set()
        self._thread.join(patience_seconds)
        return not self._thread.is_alive()

    def answered(self) -> None:
        """The database answered somebody else in this process."""
        self._unanswered_since = None

    def unanswered_seconds(self) -> float:
        """Return how long the database has left the heartbeat without an answer."""
        since = self._unanswered_since
        return 0.0 if since is None else time.monotonic() - since

    def stalled_seconds(self) -> float:
        """Return how long the thread is overdue with its next attempt."""
        return max(0.0, self._clock.monotonic() - self._expected_at)

    def _live(self) -> None:
        failures = 0
        grid = Schedule(self._clock.monotonic(), self._interval_seconds())
        while True:
            self._wake.clear()
            last = self._ending.is_set()
            written = self._beat(last)
            if last and written:
                break
            now = self._clock.monotonic()
            grid = grid.every(self._interval_seconds(), now)
            failures = 0 if written else failures + 1
            if written:
                pause = grid.next_after(now) - now
            else:
                longest = 1.0 if last else min(grid.interval_seconds, LONGEST_PAUSE_SECONDS)
                pause = pause_seconds(failures, longest, random.random())  # noqa: S311  (jitter, not a secret)
            self._expected_at = now + pause
            self._clock.wait(self._wake, pause)
        self._disconnect()

    def _beat(self, last: bool) -> bool:
        """Write one beat; return whether the database has it."""
        if self._unanswered_since is None:
            self._unanswered_since = time.monotonic()
        try:
            connection = self._connect()
            with diagnosed(self._connected_to):
                beat = self._tell(last)
                write_beat(connection, beat)
        except Exception as error:  # noqa: BLE001  (whatever it is, the next beat has to come)
            self._disconnect()
            self._complaint.report(error)
            notify(f"STATUS={describe(self._tell(last))}; the heartbeat cannot be written")
            return False
        self._unanswered_since = None
        notify(f"STATUS={describe(beat)}")
        self._say(beat)
        if self._complaint.resolved():
            self._returned()
        return True

    def _connect(self) -> Connection:
        conninfo = self._conninfo()
        if self._connection is not None and (self._connection.closed or conninfo != self._connected_to):
            self._disconnect()
        if self._connection is None:
            self._connection = connect(conninfo, purpose="billing")
            self._connected_to = conninfo
        if not self._recalled:
            with (
                contextlib.suppress(BillingError),
                diagnosed(conninfo),
                bounded_transaction(self._connection),
            ):
                self._pulse.recall(*last_run(self._connection))
            self._recalled = True
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _say(self, beat: Beat) -> None:
        """Log the beat, at most one a minute, and at once that billing went silent or came back."""
        silent = beat.silent_seconds > 0
        if silent is not self._silent:
            self._silent = silent
            if silent:
                logs.logger().error(
                    "Billing makes no progress; the heartbeat is taken back and built-in billing takes over",
                    reason=beat.error_message,
                )
            else:
                logs.logger().info("Billing makes progress again; the heartbeat is back")
        now = self._clock.monotonic()
        if now < self._next_line_at and beat.state is not DaemonState.STOPPED:
            return
        self._next_line_at = now + SECONDS_BETWEEN_LINES - 1
        next_run = None if beat.next_seconds is None else round(beat.next_seconds)
        logs.logger().info("Heartbeat", status=beat.state.value, next_run_seconds=next_run)
