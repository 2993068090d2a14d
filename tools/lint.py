"""Run every check of the source, show what each one found, and fail when any did."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

BIN = Path(sys.executable).parent
CHECKS = {
    "ruff": [str(BIN / "ruff"), "check", "--quiet", "--output-format=concise"],
    "format": [str(BIN / "ruff"), "format", "--check", "--quiet"],
    "security": [str(BIN / "bandit"), "-q", "-c", "pyproject.toml", "-r", "src", "tools"],
    "types": [str(BIN / "mypy"), "--strict"],
    "imports": [str(BIN / "lint-imports"), "--no-cache"],
    # Slow tests run at night only; that they can still be imported is seen here.
    "tests": [sys.executable, "-m", "pytest", "--collect-only", "--slow", "-qq", "-p", "no:cacheprovider"],
    "tidy": [sys.executable, "-m", "tools.tidy"],
}


def main() -> int:
    """Return 1 when a check failed; all of them run, so that one look shows everything."""
    failed = []
    for name, command in CHECKS.items():
        began = time.monotonic()
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        print(
            f"{'ok  ' if done.returncode == 0 else 'FAIL'} {name} ({time.monotonic() - began:.1f} s)",
            flush=True,
        )
        if done.returncode != 0:
            failed.append(name)
            print(f"{done.stdout}{done.stderr}".rstrip(), flush=True)
    if failed:
        print(f"lint: {', '.join(failed)} failed", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
