"""Time and size from nothing to the first bill: a copy of the checkout, no environment, no database.

    ./dev first-bill               `./dev up --once` in a copy, with what it downloads
    ./dev first-bill --limit 60    exit code 1 where it takes more seconds

The database of the copy is stopped and everything removed at the end. What a package client keeps in its cache is used.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def copied(target: Path) -> None:
    """Copy what git knows of the checkout, changed files as they are now."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    ).stdout
    names = [name for name in listed.split(b"\0") if name and (ROOT / os.fsdecode(name)).is_file()]
    packed = ["tar", "--create", "--null", "--files-from=-"]
    archive = subprocess.run(
        packed, cwd=ROOT, input=b"\0".join(names), check=True, capture_output=True
    ).stdout
    subprocess.run(["tar", "--extract"], cwd=target, input=archive, check=True)


def mebibytes(directory: Path) -> float:
    """Return what a directory takes on disk, links not followed."""
    return sum(path.lstat().st_blocks * 512 for path in directory.rglob("*")) / 1024**2


def main(words: list[str]) -> int:
    """Measure once; return 1 when it failed or took longer than the limit."""
    parser = argparse.ArgumentParser(
        prog="./dev first-bill", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--limit", type=float, default=None, metavar="SECONDS")
    chosen = parser.parse_args(words)
    with tempfile.TemporaryDirectory(prefix="first-bill-", dir="/var/tmp") as name:
        checkout, state = Path(name) / "checkout", Path(name) / "state"
        checkout.mkdir()
        copied(checkout)
        environment = {**os.environ, "CONTAINERSTACKS_BILLING_STATE": str(state)}
        began = time.monotonic()
        done = subprocess.run(["./dev", "up", "--once"], cwd=checkout, env=environment, check=False)
        seconds = time.monotonic() - began
        size = mebibytes(checkout / ".venv")
        subprocess.run(["./dev", "db", "stop"], cwd=checkout, env=environment, check=False)
    print(f"from nothing to the first bill: {seconds:.1f} s; environment: {size:.0f} MiB")
    late = chosen.limit is not None and seconds > chosen.limit
    return 1 if done.returncode or late else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
