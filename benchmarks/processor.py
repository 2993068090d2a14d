"""Processor time of a server, from /proc: on a machine that does other work too, it says more than the clock."""

from __future__ import annotations

import os
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def server_seconds(postmaster: int) -> float:
    """Return what the postmaster and its processes, living and ended, have used so far, in seconds of a core."""
    _, own, ended = _used(postmaster)
    living = 0
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                parent, used, _ = _used(int(process.name))
            except OSError:
                continue
            living += used if parent == postmaster else 0
    return (own + ended + living) / _TICKS


def postmaster_of(directory: Path) -> int:
    """Return the process id of the server that an embedded state directory holds."""
    return int((directory / "data" / "postmaster.pid").read_text(encoding="ascii").split()[0])


def _used(process: int) -> tuple[int, int, int]:
    """Return a process's parent, its own ticks, and the ticks of its children that ended."""
    text = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    fields = text.rpartition(") ")[2].split()
    return int(fields[1]), int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])
