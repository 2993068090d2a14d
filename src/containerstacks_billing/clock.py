"""The clock of this host: for waiting and for nothing else. What is due and what it costs goes by the database's."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime


class Clock:
    """Time as the daemon sees it. A test that lets a day pass in a minute gives it another one."""

    def monotonic(self) -> float:
        """Return seconds that only ever grow."""
        return time.monotonic()

    def host_time(self) -> datetime:
        """Return what this host calls now; runs record it, to notice a database clock that jumped."""
        return datetime.now(UTC)

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait until the event is set, at most so many seconds; return whether it is."""
        return event.wait(max(seconds, 0.0))
