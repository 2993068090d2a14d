"""Ctrl-C and SIGTERM while a run is under way: a flag, which the run looks at between batches.

A batch is all or nothing, so nothing would break if the process simply ended; it stops after the batches under way
because then it can still close the run's row and say what was done. A handler only sets the flag, and a second signal
sets it again.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class Interruption:
    """Whether somebody asked to stop, and by which signal."""

    stopping: threading.Event = field(default_factory=threading.Event)
    signal_number: int | None = None

    @property
    def exit_code(self) -> int | None:
        """130 after Ctrl-C, 143 after SIGTERM, None when nobody asked."""
        return None if self.signal_number is None else 128 + self.signal_number


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Turn the two signals into a flag for as long as the block runs; only the main thread may."""
    asked = Interruption()

    def note(number: int, _frame: FrameType | None) -> None:
        asked.signal_number = number
        asked.stopping.set()

    before = {number: signal.signal(number, note) for number in _SIGNALS}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
