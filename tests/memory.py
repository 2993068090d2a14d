"""Where servers that are thrown away work fastest."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

MEMORY = Path("/dev/shm")
_ROOM = 4 * 2**30


def quick_place() -> Path | None:
    """Return where to put a server that is thrown away: in memory if there is ample room; else None, wherever files go.

    A thousand databases are made there in a fourth of the time, and on a disk that others use in a hundredth. Containers
    often have little memory of this kind.
    """
    ours = os.access(MEMORY, os.W_OK | os.X_OK)
    return MEMORY if ours and shutil.disk_usage(MEMORY).free > _ROOM else None
