"""A verb as a child of `up`: it ends when its parent is gone, however the parent ended.

Standard input is a pipe that the parent holds and never writes to. Who is killed closes it all the same, on any system.
"""

from __future__ import annotations

import os
import signal
import threading

_STANDARD_INPUT = 0


def hold() -> None:
    """Send this process SIGTERM as soon as nobody holds the other end of standard input."""
    # The thread inherits the mask: a signal of this process is for those that wait for it, and must not end it here.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    threading.Thread(target=_wait, name="tether", daemon=True).start()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _wait() -> None:
    while os.read(_STANDARD_INPUT, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    hold()
    from containerstacks_billing.cli import main

    main()
