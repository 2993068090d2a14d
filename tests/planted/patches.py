"""The patches: where they are, how they are applied to a copy of the sources, how they are renewed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

DIRECTORY = Path(__file__).resolve().parent
ROOT = DIRECTORY.parent.parent
PATCHES = {path.stem: path for path in sorted(DIRECTORY.glob("[0-9][0-9]_*.patch"))}


def copy_of_sources(place: Path) -> Path:
    """Copy src/ below a directory and return where it is."""
    shutil.copytree(ROOT / "src", place / "src", ignore=shutil.ignore_patterns("__pycache__"))
    return place / "src"


def does_not_apply(name: str, sources: Path) -> str:
    """Apply a patch to a copy of src/; return why it does not, if it does not.

    A line of context is enough, so that a change beside it does not make every patch stale.
    """
    done = subprocess.run(
        ["git", "apply", "-C1", "--whitespace=nowarn", str(PATCHES[name])],
        cwd=sources.parent,
        env={"GIT_CEILING_DIRECTORIES": str(sources.parent.parent), "PATH": "/usr/local/bin:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return " ".join(done.stderr.split())
    if "/schema/code/" in PATCHES[name].read_text():
        # Or the function with the bug would be taken for one that was altered in the database.
        subprocess.run(
            [sys.executable, "-m", "tools.catalog", "--write", "--fresh"],
            env={**os.environ, "PYTHONPATH": f"{sources}{os.pathsep}{ROOT}"},
            stdout=subprocess.DEVNULL,
            check=True,
        )
    return ""


def write(name: str) -> int:
    """Renew a patch: its first lines, and how src/ differs from the last commit."""
    path = PATCHES.get(name, DIRECTORY / f"{name}.patch")
    opening = (
        path.read_text().split("diff --git", 1)[0].rstrip()
        if path.exists()
        else "Which bug, by whom, what reveals it."
    )
    differs = subprocess.run(
        ["git", "diff", "--no-color", "--no-ext-diff", "HEAD", "--", "src"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    if not differs:
        print("src/ does not differ from the last commit: there is nothing to write", file=sys.stderr)
        return 1
    lines = [line for line in differs.splitlines(keepends=True) if not line.startswith("index ")]
    path.write_text(f"{opening}\n\n{''.join(lines)}")
    return 0
