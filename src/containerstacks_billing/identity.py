"""Names of this process and its operator, and whether a process that a status row names can still be alive here.

A host name and a number of a process are not enough: numbers are used again, a container has numbers of its own, and
after a restart of the machine all processes are gone. So the row also holds the boot of the machine, the space of
process numbers (PID namespace) and the start of the process in ticks since the boot.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import socket
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

_PROC = Path("/proc")


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


@cache
def process_facts() -> dict[str, Any]:
    """Return host name, number and identity of this process, for its status row; what is not known is left out."""
    found = {
        "hostname": socket.gethostname(),
        "pid": os.getpid(),
        # A confined service sees no boot_id (ProcSubset=pid); the id of the machine is not to be shown as it is.
        "boot_id": _text(_PROC / "sys/kernel/random/boot_id"),
        "machine": _hashed(_text(Path("/etc/machine-id"))),
        "pid_namespace": _pid_namespace(),
        "start_ticks": _start_ticks(os.getpid()),
    }
    return {key: value for key, value in found.items() if value is not None}


def is_known_to_be_gone(facts: Mapping[str, Any]) -> bool:
    """Whether the process of a status row ran on this host and is gone; False where that cannot be known from here."""
    here = process_facts()
    same = {key: facts[key] == here[key] for key in ("machine", "boot_id") if key in facts and key in here}
    on_this_host = facts.get("hostname") == here["hostname"] and same.get(
        "machine", same.get("boot_id", False)
    )
    if not on_this_host or facts.get("pid_namespace") != here.get("pid_namespace"):
        return False
    if not same.get("boot_id", True):
        return True
    pid, ticks = facts.get("pid"), facts.get("start_ticks")
    return isinstance(pid, int) and isinstance(ticks, int) and _start_ticks(pid) != ticks


def _start_ticks(pid: int) -> int | None:
    """Return when a process started, in clock ticks since the boot; None for one that is not there, or a zombie."""
    text = _text(_PROC / str(pid) / "stat")
    if text is None:
        return None
    # The name in parentheses may hold spaces and parentheses; the state is the first field behind it.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in {"Z", "X"} else int(fields[19])


def _hashed(text: str | None) -> str | None:
    return hashlib.sha256(f"containerstacks-billing {text}".encode()).hexdigest()[:16] if text else None


def _pid_namespace() -> str | None:
    try:
        return str((_PROC / "self/ns/pid").readlink())
    except OSError:
        return None


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
