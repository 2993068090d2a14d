"""Shutdown of the daemon: its states, and a bound for each step.

    running  --first signal-->  stopping: a run that has begun is completed, no other begins
    stopping --second signal, more than a second later-->  the run ends after the batches that are under way
    stopping --database silent for 10 s-->  the same, since a run cannot go on without it
    stopping --database silent for 20 s-->  the process ends where it stands

A terminal sends Ctrl-C to a whole process group, and an impatient wrapper sends the signal again; hence the second. The
last step is safe at any moment, as kill -9 is. It exists because systemd would wait for the daemon, and the daemon for
a database that stays away until the machine is off. While batches are committed systemd is notified that the stop
takes longer; as soon as none is, its own patience counts.
"""

from __future__ import annotations

import os
import threading

from containerstacks_billing import logs
from containerstacks_billing.daemon.state import DaemonState, StopRequest
from containerstacks_billing.daemon.systemd_notify import notify

AWAY_STOPS_RUN_SECONDS = 10.0
AWAY_GIVEN_UP_SECONDS = 20.0
# Longer than the slowest batch with all its attempts; counted from the last batch that was committed.
EXTENSION_SECONDS = 240


class Shutdown:
    """Takes stop requests and bounds how long stopping may take."""

    def __init__(self, state: DaemonState) -> None:
        self._state = state

    def request(self) -> None:
        """Take a stop request: the first completes a run, a later one ends it after its batches."""
        log = logs.logger()
        request = self._state.request_stop()
        if request is StopRequest.AFTER_BATCH:
            log.warning("Stopping after the batches that are under way")
        if request not in {StopRequest.COMPLETE_RUN, StopRequest.STOP}:
            return
        notify("STOPPING=1")
        self.extend()
        if request is StopRequest.COMPLETE_RUN:
            log.info(
                "Stopping: the current billing run is completed first; a second signal ends it after a batch"
            )
        else:
            log.info("Stopping")
        self._state.loop_news.set()
        threading.Thread(target=self._bound, name="stop", daemon=True).start()

    def extend(self) -> None:
        """While stopping, tell systemd that the stop takes longer."""
        if self._state.stop_requested:
            notify(f"EXTEND_TIMEOUT_USEC={EXTENSION_SECONDS * 1_000_000}")

    def _bound(self) -> None:
        """End without a database that stays away."""
        never = threading.Event()
        while True:
            self._state.heartbeat_news.set()
            never.wait(1)
            away = self._state.unanswered_seconds()
            if away >= AWAY_STOPS_RUN_SECONDS:
                self._state.after_batch.set()
            if away >= AWAY_GIVEN_UP_SECONDS:
                logs.logger().error(
                    "Stopped without the database, which does not answer; nothing is half charged"
                )
                os._exit(0)
