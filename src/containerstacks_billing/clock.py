"""Clock of this host, used for waiting only. What is due and what it costs follows the clock of the database."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime


class Clock:
    """Source of time for daemon threads; tests substitute one that runs faster."""

    def monotonic(self) -> float:
        """Return monotonic seconds."""
        return time.monotonic()

    def patience(self) -> float:
        """Return monotonic seconds for the bounds of a shutdown, which no test runs faster."""
        return time.monotonic()

    def host_time(self) -> datetime:
        """Return the time of this host; runs record it to detect a database clock that jumped."""
        return datetime.now(UTC)

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait until the event is set, at most so many seconds; return whether it is."""
        return event.wait(max(seconds, 0.0))
