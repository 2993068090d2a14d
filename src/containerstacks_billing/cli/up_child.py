"""Child process of `up`, which exits when its parent dies.

Standard input is a pipe that the parent keeps open and never writes to. When the parent dies, by SIGKILL too, the child
reads end of file, on any system.
"""

from __future__ import annotations

import os
import signal
import threading

_STANDARD_INPUT = 0


def hold() -> None:
    """Send this process SIGTERM at the end of file on standard input."""
    # The thread inherits the mask: signals of the process are for the threads that wait for them.
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
