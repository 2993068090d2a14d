"""Ctrl-C, SIGTERM and a closed terminal while a run is under way: a flag, which the run looks at between batches.

A batch is all or nothing, so nothing would break if the process simply ended; it stops after the batches under way
because then it can still close the run's row and say what was done. A second signal means the same.

The flag is an event with a lock of its own, and a handler runs between any two instructions of the main thread, perhaps
while that holds this very lock. So the handler does nothing: the interpreter writes the signal's number into a socket,
and a thread that reads it sets the flag.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass
class Interruption:
    """Whether somebody asked to stop, and by which signal."""

    stopping: threading.Event = field(default_factory=threading.Event)
    signal_number: int | None = None

    @property
    def exit_code(self) -> int | None:
        """130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP, None when nobody asked."""
        return None if self.signal_number is None else 128 + self.signal_number


@contextmanager
def interruptible(noticed: Callable[[], None] = lambda: None) -> Iterator[Interruption]:
    """Turn the signals into a flag for as long as the block runs; only the main thread may.

    SIGHUP stays ignored where whoever started this wanted it so, as nohup does.
    `noticed` is called by another thread when the first signal has set the flag.
    """
    asked = Interruption()
    numbers = [one for one in _SIGNALS if one != signal.SIGHUP or signal.getsignal(one) != signal.SIG_IGN]
    reading, writing = socket.socketpair()
    writing.setblocking(False)

    def take() -> None:
        while number := reading.recv(1):
            if number[0] == signal.SIGHUP:
                leave_a_terminal_that_is_gone()
            if number[0] in numbers and not asked.stopping.is_set():
                asked.signal_number = number[0]
                asked.stopping.set()
                noticed()

    thread = threading.Thread(target=take, name="signals", daemon=True)
    thread.start()
    descriptor_before = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    handlers_before = {number: signal.signal(number, lambda *_: None) for number in numbers}
    try:
        yield asked
    finally:
        for number, handler in handlers_before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(descriptor_before)
        writing.close()
        thread.join()
        reading.close()


@contextmanager
def without_its_terminal() -> Iterator[None]:
    """Let a block end where it writes to a terminal that was closed; the SIGHUP that comes with that says what to do.

    The write can fail before the signal has been received.
    """
    try:
        yield
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        leave_a_terminal_that_is_gone()


def leave_a_terminal_that_is_gone() -> None:
    """Write into nothing where the terminal was closed, so that the last words are no error that hinders the end."""
    for descriptor in (1, 2):
        try:
            termios.tcgetattr(descriptor)
        except termios.error as error:
            if error.args[0] == errno.EIO:
                nothing = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nothing, descriptor)
                os.close(nothing)
