"""Names of this process and of its operator, on this host."""

from __future__ import annotations

import getpass
import os
import socket


def process_name() -> str:
    """Return `hostname-pid`, the name of this process in the lease, in runs and in the status table."""
    return f"{socket.gethostname()}-{os.getpid()}"


def operator_name() -> str:
    """Return `user@hostname`, recorded with every decision of a person."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
