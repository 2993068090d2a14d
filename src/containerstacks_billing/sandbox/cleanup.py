"""Cleanup of what a killed PostgreSQL server leaves behind.

`postmaster.pid` and the lock file beside the socket name a process id, and an id alone proves nothing: after SIGKILL
the postmaster may linger as a zombie whose parent never waits for it, and after a reboot the id may be another's.
PostgreSQL itself would take either for a living server and refuse to start. Its processes have one mark that no
other process has: their working directory is the data directory. Linux shows it in /proc; elsewhere nothing is cleared
and PostgreSQL's own judgement stands.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

_SECONDS_TO_LEAVE = 10.0


def living_postmaster(data: Path) -> int | None:
    """Return the process id of the live postmaster of a data directory; None without one."""
    pid = _recorded_pid(data / "postmaster.pid")
    return pid if pid is not None and _works_in(data, pid) else None


def programs_are_gone(data: Path) -> bool:
    """Return whether the postmaster of a data directory runs a program that is not there any more."""
    pid = living_postmaster(data)
    try:
        return pid is not None and not Path(f"/proc/{pid}/exe").readlink().exists()
    except OSError:
        return False  # not Linux, or the process of another user


def clear_remains(data: Path, socket: Path) -> None:
    """Stop orphaned server processes and remove stale pid and socket files.

    To be called under the server's lock and without a living postmaster. Backends notice by themselves that their
    postmaster died, but only between two statements; they are terminated, which loses nothing that was committed.
    """
    orphans = [pid for pid in _processes() if _works_in(data, pid)]
    for number in (signal.SIGQUIT, signal.SIGKILL):
        for pid in orphans:
            _send(pid, number)
        orphans = _wait_until_gone(data, orphans)
    for file in (data / "postmaster.pid", socket.with_name(f"{socket.name}.lock")):
        recorded = _recorded_pid(file)
        if recorded is not None and _misleads(data, recorded):
            file.unlink(missing_ok=True)


def _recorded_pid(file: Path) -> int | None:
    try:
        return abs(int(file.read_text().split("\n", 1)[0]))
    except (OSError, ValueError):
        return None


def _works_in(data: Path, pid: int) -> bool:
    """Return whether a process is alive (a zombie is not) and works in this directory."""
    try:
        # A zombie has no working directory any more, and asking for it fails.
        return Path(f"/proc/{pid}/cwd").readlink() == data.resolve()
    except OSError:
        return False


def _misleads(data: Path, pid: int) -> bool:
    """Return whether a process id belongs to a zombie or to a process other than our server."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (OSError, IndexError):
        return False
    if state == "Z":
        return True
    try:
        return Path(f"/proc/{pid}/cwd").readlink() != data.resolve()
    except OSError:
        return False


def _processes() -> list[int]:
    try:
        return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    except OSError:
        return []


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _wait_until_gone(data: Path, pids: list[int]) -> list[int]:
    until = time.monotonic() + _SECONDS_TO_LEAVE
    remaining = pids
    while remaining and time.monotonic() < until:
        time.sleep(0.02)
        remaining = [pid for pid in remaining if _works_in(data, pid)]
    return remaining
