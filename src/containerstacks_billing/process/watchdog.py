"""Feed systemd's watchdog, for as long as heartbeat and billing loop both take their steps."""

from __future__ import annotations

import threading
from collections.abc import Callable

from containerstacks_billing.process import logs
from containerstacks_billing.process.notify import notify, watchdog_seconds

# Longer than the slowest step of a daemon that works: a batch with all its attempts, each bounded by its timeouts.
LONGEST_STEP_SECONDS = 300.0


def feed(loops: dict[str, Callable[[], float]], longest_step_seconds: float = LONGEST_STEP_SECONDS) -> None:
    """Start feeding, if systemd asked for it; `loops` tells for each loop how many seconds it is overdue."""
    interval = watchdog_seconds()
    if interval is None:
        return

    def watch() -> None:
        said: str | None = None
        hold = threading.Event()  # nobody sets it: the thread ends with the process
        while True:
            stalled = next(
                (name for name, late_seconds in loops.items() if late_seconds() > longest_step_seconds), None
            )
            if stalled is None:
                notify("WATCHDOG=1")
            elif stalled != said:
                logs.logger().error(
                    "The watchdog is not fed any more, so systemd will restart the daemon", stalled=stalled
                )
            said = stalled
            hold.wait(interval / 2)

    threading.Thread(target=watch, name="watchdog", daemon=True).start()
