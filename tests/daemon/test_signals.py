"""Receiving signals of the process in a thread."""

from __future__ import annotations

import os
import signal
import threading

from containerstacks_billing.daemon.signals import received


def test_a_signal_that_the_parent_had_blocked_is_received() -> None:
    """The mask is inherited: a daemon that was started with SIGTERM blocked still stops, and the mask is as before."""
    seen, arrived = list[signal.Signals](), threading.Event()

    def act(number: signal.Signals) -> None:
        seen.append(number)
        arrived.set()

    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        with received([signal.SIGTERM], act):
            os.kill(os.getpid(), signal.SIGTERM)
            assert arrived.wait(180)
        assert signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, set())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert [signal.SIGTERM] == seen
