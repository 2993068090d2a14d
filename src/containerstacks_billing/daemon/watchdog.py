"""systemd's watchdog: fed for as long as heartbeat and billing loop both take their steps.

A COMMIT that waits for a synchronous standby is no stall: a restart would bring no standby back, and would leave a
process of the server behind that goes on waiting, one more with each restart until the server has no connection left.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from containerstacks_billing import logs
from containerstacks_billing.daemon.systemd_notify import notify, watchdog_seconds
from containerstacks_billing.database.connection import commits_under_way

# Longer than the slowest step of a daemon that works: a batch with all its attempts, each bounded by its timeouts.
LONGEST_STEP_SECONDS = 300.0


def feed(loops: dict[str, Callable[[], float]], longest_step_seconds: float = LONGEST_STEP_SECONDS) -> None:
    """Start feeding if systemd asked for it; `loops` gives for each loop how many seconds it is overdue."""
    interval = watchdog_seconds()
    if interval is None:
        return

    def watch() -> None:
        said: str | None = None
        hold = threading.Event()  # never set: the thread ends with the process
        while True:
            alive, problem = should_feed(loops, longest_step_seconds)
            if alive:
                notify("WATCHDOG=1")
            if problem is not None and problem != said:
                logs.logger().error(problem)
            said = problem
            hold.wait(interval / 2)

    threading.Thread(target=watch, name="watchdog", daemon=True).start()


def should_feed(
    loops: dict[str, Callable[[], float]], longest_step_seconds: float
) -> tuple[bool, str | None]:
    """Return whether to feed, and what is wrong in a sentence."""
    stalled = next((name for name, late in loops.items() if late() > longest_step_seconds), None)
    if stalled is None:
        return True, None
    if commits_under_way():
        return True, f"The database leaves a COMMIT without an answer, and {stalled} waits for it"
    return (
        False,
        f"The watchdog is not fed any more, so systemd will restart the daemon: {stalled} takes no step",
    )
