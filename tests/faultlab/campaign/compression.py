"""Time, compressed: what a process of the campaign changes in itself before it bills.

Hours pass in fractions of a second, so what is measured in real seconds has to shrink with them, or a killed holder of
the lease would keep everybody waiting for as long as a day takes. Nothing of what is decided changes, only how long it
takes: the lease, the bounds on locks and idle transactions, the pauses between attempts, and by how much two clocks may
differ before the brake holds a run.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

LEASE_SECONDS, RENEW_SECONDS = 0.8, 0.25
LOCK_SECONDS, IDLE_SECONDS = 0.6, 1.5
CLOCK_BOUND = timedelta(hours=12)
SHORTEST_PAUSE = 0.03
_BOUNDS = {
    "lock_timeout": f"{LOCK_SECONDS * 1000:.0f}ms",
    "statement_timeout": "5s",
    "idle_in_transaction_session_timeout": f"{IDLE_SECONDS * 1000:.0f}ms",
}


def compress_product() -> None:
    """Shrink what is real time in the product; to be called before anything else of it is imported."""
    from containerstacks_billing.charging import brake
    from containerstacks_billing.charging import lease_model as lease

    lease.LEASE_SECONDS, lease.RENEW_SECONDS = LEASE_SECONDS, RENEW_SECONDS  # type: ignore[assignment]
    brake.CLOCK_BOUND = CLOCK_BOUND
    from containerstacks_billing.charging import batch as charging
    from containerstacks_billing.charging import worker
    from containerstacks_billing.daemon import cycle
    from containerstacks_billing.database import connection

    connection.LOCK_TIMEOUT = _BOUNDS["lock_timeout"]
    connection.IDLE_IN_TRANSACTION_TIMEOUT = _BOUNDS["idle_in_transaction_session_timeout"]
    charging.BOUNDS = charging.Bounds(
        lock=_BOUNDS["lock_timeout"],
        statement=_BOUNDS["statement_timeout"],
        idle=_BOUNDS["idle_in_transaction_session_timeout"],
    )
    worker.LONGEST_PAUSE_SECONDS = 0.1
    cycle.LEASE_WAIT_SECONDS = 0.8


def host_clock(began: float, at: float, speed: float) -> Callable[[], datetime]:
    """A clock of this host that runs as fast as the database's: it said `at` when this machine's said `began`."""

    def read() -> datetime:
        return datetime.fromtimestamp(at + (time.time() - began) * speed, UTC)

    return read


def host_time_clock(read: Callable[[], datetime]) -> Any:
    """A clock that reads this as the host's time, and waits by the time of this machine."""
    from containerstacks_billing.clock import Clock

    class HostTime(Clock):
        def host_time(self) -> datetime:
            return read()

    return HostTime()


def fast_clock(speed: float, read: Callable[[], datetime]) -> Any:
    """A clock for the daemon, which waits by the compressed time, though never so briefly that it would spin."""
    from containerstacks_billing.clock import Clock

    class FastClock(Clock):
        def monotonic(self) -> float:
            return time.monotonic() * speed

        def host_time(self) -> datetime:
            return read()

        def wait(self, event: threading.Event, seconds: float) -> bool:
            return event.wait(max(seconds / speed, min(max(seconds, 0.0), SHORTEST_PAUSE)))

    return FastClock()
