"""Signals as ordinary calls, made by a thread that reads their numbers from a socket.

A handler runs between any two instructions of the main thread, perhaps while that holds the lock of the flag which the
handler sets. So the handlers do nothing: the interpreter writes each signal's number into a socket, and a thread reads
it and acts. Blocking the signals and waiting for them with sigwait(3) was rejected: programs that are started inherit
the blocked signals, a server of PostgreSQL among them.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import termios
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from containerstacks_billing import logs

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def received(numbers: Iterable[signal.Signals], act: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Call `act` with each of these signals, for as long as the block runs; only the main thread may enter it.

    A signal that the parent process had blocked is unblocked: the mask is inherited, and SIGTERM would be lost.
    """
    expected = frozenset(numbers)
    reading, writing = socket.socketpair()
    writing.setblocking(False)

    def take() -> None:
        while number := reading.recv(1):
            if number[0] not in expected:
                continue
            try:
                act(signal.Signals(number[0]))
            except Exception:  # noqa: BLE001  (the next signal has to be received all the same)
                logs.logger().error("A signal could not be handled", signal=number[0], exc_info=True)

    thread = threading.Thread(target=take, name="signals", daemon=True)
    thread.start()
    descriptor_before = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    handlers_before = {number: signal.signal(number, lambda *_: None) for number in expected}
    mask_before = signal.pthread_sigmask(signal.SIG_UNBLOCK, expected)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask_before)
        for number, handler in handlers_before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(descriptor_before)
        writing.close()
        thread.join()
        reading.close()


@dataclass
class Interruption:
    """Whether a signal asked to stop, and which."""

    stopping: threading.Event = field(default_factory=threading.Event)
    signal_number: int | None = None

    @property
    def exit_code(self) -> int | None:
        """130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP, None without a signal."""
        return None if self.signal_number is None else 128 + self.signal_number


@contextmanager
def interruptible(noticed: Callable[[], None] = lambda: None) -> Iterator[Interruption]:
    """Turn Ctrl-C, SIGTERM and a closed terminal into a flag, which a run looks at between batches.

    A batch is all or nothing, so nothing would break if the process simply ended; it stops after the batches under way
    because then it can still close the run's row and say what was done. A second signal means the same. SIGHUP stays
    ignored where it was, as under nohup. `noticed` is called by another thread when the first signal has set the flag.
    """
    asked = Interruption()

    def act(number: signal.Signals) -> None:
        if number == signal.SIGHUP:
            _leave_a_closed_terminal()
        if not asked.stopping.is_set():
            asked.signal_number = number
            asked.stopping.set()
            noticed()

    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    with received([one for one in _SIGNALS if one != signal.SIGHUP or not ignored], act):
        yield asked


@contextmanager
def without_its_terminal() -> Iterator[None]:
    """Let a block end where it writes to a closed terminal: the SIGHUP that comes with that may arrive later."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        _leave_a_closed_terminal()


def _leave_a_closed_terminal() -> None:
    """Redirect output into nothing where the terminal was closed, so that the last words are no error."""
    for descriptor in (1, 2):
        try:
            termios.tcgetattr(descriptor)
        except termios.error as error:
            if error.args[0] == errno.EIO:
                nothing = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nothing, descriptor)
                os.close(nothing)
