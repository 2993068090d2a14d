"""Signals, received by a thread that waits for them.

A handler runs between any two instructions of the main thread, perhaps inside the very lock of the flag that it
wants to set. So there is no handler: the signals are blocked before the first thread starts, every thread inherits
that, and one thread takes them one by one with sigwait(3) and calls ordinary code.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Mapping

from containerstacks_billing import logs

Action = Callable[[], None]


def block(numbers: set[signal.Signals]) -> None:
    """Block signals in this thread and in all that it starts; has to come before the first of them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)


def receive(actions: Mapping[signal.Signals, Action]) -> threading.Thread:
    """Start the thread that takes the blocked signals and does what each one means."""

    def take() -> None:
        while True:
            number = signal.sigwait(actions)
            try:
                actions[signal.Signals(number)]()
            except Exception:  # noqa: BLE001  (the next signal has to be received all the same)
                logs.logger().error("A signal could not be obeyed", signal=number, exc_info=True)

    thread = threading.Thread(target=take, name="signals", daemon=True)
    thread.start()
    return thread
