"""Tell systemd how the daemon is: the protocol of sd_notify(3), one datagram per message.

Without NOTIFY_SOCKET, and where the socket does not answer, nothing happens: supervision must never be a reason to
stop.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping


def notify(*assignments: str, environment: Mapping[str, str] | None = None) -> bool:
    """Send assignments such as READY=1; return whether they were received."""
    address = (os.environ if environment is None else environment).get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):  # an abstract socket: its name begins with a NUL byte
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.settimeout(1)
            sender.connect(address)
            sender.send("\n".join(line.replace("\n", " ") for line in assignments).encode())
    except OSError:
        return False
    return True


def reloading() -> bool:
    """Report that the configuration is being read again, until READY=1; the time identifies the request."""
    return notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def watchdog_seconds(environment: Mapping[str, str] | None = None) -> float | None:
    """Return how often systemd wants to hear from this process, None when it does not."""
    environment = os.environ if environment is None else environment
    microseconds, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not microseconds.isdigit() or int(microseconds) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(microseconds) / 1_000_000
