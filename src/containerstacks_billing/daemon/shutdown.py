"""How the daemon stops: a short way down, and a bound for each step of it.

    running  --first signal-->  stopping: a run under way is completed, no other begins
    stopping --second signal, more than a second later-->  the run ends after the batches that are under way
    stopping --database silent for 10 s-->  the same, since a run cannot go on without it
    stopping --database silent for 20 s-->  the process ends where it stands

A terminal sends Ctrl-C to a whole process group, and an impatient wrapper sends the signal again: hence the second.
The last step is safe at any moment, as kill -9 is. It exists because systemd would wait for us, and we for a database
that nobody will bring back before the machine is off. While batches are committed systemd is told that the stop takes
longer; as soon as none is, its own patience counts.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from containerstacks_billing import logs
from containerstacks_billing.daemon.systemd_notify import notify

SECOND_SIGNAL_SECONDS = 1.0
AWAY_STOPS_RUN_SECONDS = 10.0
AWAY_GIVEN_UP_SECONDS = 20.0
# Longer than the slowest batch with all its attempts; counted from the last batch that was committed.
EXTENSION_SECONDS = 240


class Shutdown:
    """Whether the daemon was told to stop, and how urgently.

    `run_is_open` tells whether there is a run to complete, `look` makes somebody ask the database soon, and
    `unanswered_seconds` how long it has not answered; `wake` lets the billing loop see that it has to end.
    """

    def __init__(
        self,
        *,
        run_is_open: Callable[[], bool],
        look: Callable[[], None],
        unanswered_seconds: Callable[[], float],
        wake: Callable[[], None],
    ) -> None:
        self._run_is_open, self._look = run_is_open, look
        self._unanswered_seconds, self._wake = unanswered_seconds, wake
        self._since: float | None = None
        self.after_batch = threading.Event()

    @property
    def asked(self) -> bool:
        """Whether somebody asked."""
        return self._since is not None

    def ask(self) -> None:
        """Obey a signal: the first lets a run complete, a later one ends it after its batches."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
            notify("STOPPING=1")
            self.extend()
            if self._run_is_open():
                logs.logger().info(
                    "Stopping: the current billing run is completed first; a second signal ends it after a batch"
                )
            else:
                logs.logger().info("Stopping")
                self.after_batch.set()  # an attempt that still waits for the lease has nothing to complete
            self._wake()
            threading.Thread(target=self._bound, name="stop", daemon=True).start()
        elif now - self._since > SECOND_SIGNAL_SECONDS and not self.after_batch.is_set():
            logs.logger().warning("Stopping after the batches that are under way")
            self.after_batch.set()

    def extend(self) -> None:
        """While stopping, tell systemd that it is worth waiting."""
        if self.asked:
            notify(f"EXTEND_TIMEOUT_USEC={EXTENSION_SECONDS * 1_000_000}")

    def _bound(self) -> None:
        """Give up a database that stays away."""
        never = threading.Event()
        while True:
            self._look()
            never.wait(1)
            away = self._unanswered_seconds()
            if away >= AWAY_STOPS_RUN_SECONDS:
                self.after_batch.set()
            if away >= AWAY_GIVEN_UP_SECONDS:
                logs.logger().error(
                    "Stopped without the database, which does not answer; nothing is half charged"
                )
                os._exit(0)
