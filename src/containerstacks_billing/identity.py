"""Name of this process on its host."""

from __future__ import annotations

import os
import socket


def process_name() -> str:
    """Return `hostname-pid`, the name of this process in the lease, in runs and in the status table."""
    return f"{socket.gethostname()}-{os.getpid()}"
