"""Run every check of the source, show what each one found, and fail when any did."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

BIN = Path(sys.executable).parent
# Slow tests run at night only; that they can still be imported is seen here.
COLLECT = [sys.executable, "-m", "pytest", "--collect-only", "--slow", "-qq", "-p", "no:cacheprovider"]
COLLECT += ["-p", "no:schemathesis"]  # it takes long to load
SLOW = [str(file) for file in sorted(Path("tests").rglob("test_*.py")) if "mark.slow" in file.read_text()]
CHECKS = {
    "ruff": [str(BIN / "ruff"), "check", "--quiet", "--output-format=concise"],
    "format": [str(BIN / "ruff"), "format", "--check", "--quiet"],
    "security": [str(BIN / "bandit"), "-q", "-c", "pyproject.toml", "-r", "src", "tools"],
    "types": [str(BIN / "mypy"), "--strict"],
    "imports": [str(BIN / "lint-imports"), "--no-cache"],
    "slow tests": [*COLLECT, *SLOW],
    "tidy": [sys.executable, "-m", "tools.tidy"],
}


def check(command: list[str]) -> tuple[subprocess.CompletedProcess[str], float]:
    """Run one check to its end; return what it said and how many seconds it took."""
    began = time.monotonic()
    return subprocess.run(command, check=False, capture_output=True, text=True), time.monotonic() - began


def main() -> int:
    """Return 1 when a check failed; all of them run, as many at once as there are processors."""
    failed = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, (done, seconds) in zip(CHECKS, pool.map(check, CHECKS.values()), strict=True):
            print(f"{'ok  ' if done.returncode == 0 else 'FAIL'} {name} ({seconds:.1f} s)", flush=True)
            if done.returncode != 0:
                failed.append(name)
                print(f"{done.stdout}{done.stderr}".rstrip(), flush=True)
    if failed:
        print(f"lint: {', '.join(failed)} failed", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
