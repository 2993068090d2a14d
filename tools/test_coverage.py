"""Line and branch coverage of a test run, in every process that the tests start, compared with an allowance per file.

    python -m tools.test_coverage [pytest …]    run the tests and compare; ./dev coverage does this
    python -m tools.test_coverage --write       the same, and write the allowances anew

tests/uncovered.txt holds a line for each file that is not covered completely: how many lines and branches may be
missed, and why. A file that is not in the list is covered completely. What a race or a signal reaches differs from run
to run, so a count fails the run, with the lines, only where it is more than three above its allowance.

Processes are measured wherever they are started, with whatever environment: a file in site-packages starts the
measurement in each interpreter of .venv for as long as the run lives. A process that is killed leaves no data.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / "build" / "coverage"
SETTINGS = PLACE / "coverage.ini"
ALLOWANCES = ROOT / "tests" / "uncovered.txt"
HOOK = Path(sysconfig.get_path("purelib")) / "containerstacks_test_coverage.pth"
# One worker more than processors: many tests wait for a process or a server.
WORKERS = min((os.cpu_count() or 1) + 1, 8)
# How many lines and branches of one file may differ from run to run.
SLACK = 3
PYTEST = [sys.executable, "-m", "pytest", "-n", str(WORKERS), "--dist", "worksteal"]
HEADING = """\
# What the tests may leave uncovered: file, lines, branches, and why. Written by python -m tools.test_coverage --write,
# which keeps the reasons. Counts may only go down; a file that is not listed is covered completely. Three more lines or
# branches are borne, for what a race or a signal reaches differs from run to run.
"""
_SETTINGS = """\
[run]
branch = true
parallel = true
data_file = {place}/data
source = {source}
patch = _exit, fork
disable_warnings = no-data-collected, module-not-imported, module-not-measured, module-not-python
[report]
exclude_also =
    if TYPE_CHECKING:
    if __name__ == .__main__.:
"""
# The measurement ends with the process that asked for it, even if that was killed and could not remove the file.
_HOOK = (
    "import os; os.path.exists('/proc/{pid}') and os.access({settings!r}, os.R_OK) and"
    " (os.environ.setdefault('COVERAGE_PROCESS_START', {settings!r}), __import__('coverage').process_startup())\n"
)


@dataclass(frozen=True)
class Missed:
    """What the tests did not reach in one file."""

    lines: tuple[int, ...]
    branches: tuple[tuple[int, int], ...]

    @property
    def counts(self) -> tuple[int, int]:
        """How many lines and branches."""
        return len(self.lines), len(self.branches)


@dataclass(frozen=True)
class Allowance:
    """How much of one file may be missed, and why."""

    lines: int
    branches: int
    reason: str = ""


def read_allowances(text: str) -> dict[str, Allowance]:
    """Parse the list; raises ValueError with the line that is none."""
    found = {}
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            words = line.split(maxsplit=3)
            if len(words) < 3 or not (words[1].isdigit() and words[2].isdigit()):
                raise ValueError(f"tests/uncovered.txt: not FILE LINES BRANCHES REASON: {line}")
            found[words[0]] = Allowance(int(words[1]), int(words[2]), words[3] if len(words) > 3 else "")
    return found


def write_allowances(missed: Mapping[str, Missed], before: Mapping[str, Allowance]) -> str:
    """Return the list for what was missed, with the reasons that were given before."""
    rows = [
        f"{file} {len(one.lines)} {len(one.branches)} {before[file].reason if file in before else ''}".rstrip()
        for file, one in sorted(missed.items())
        if any(one.counts)
    ]
    return HEADING + "".join(f"{row}\n" for row in rows)


def complaints(missed: Mapping[str, Missed], allowed: Mapping[str, Allowance]) -> Iterator[str]:
    """Yield a line for each file that misses more than it may."""
    for file, one in sorted(missed.items()):
        allowance = allowed.get(file, Allowance(0, 0))
        if len(one.lines) > allowance.lines + SLACK or len(one.branches) > allowance.branches + SLACK:
            lines = ", ".join(map(str, one.lines)) or "none"
            branches = ", ".join(f"{start} to {end}" for start, end in one.branches) or "none"
            yield (
                f"{file}: {len(one.lines)} lines and {len(one.branches)} branches are not covered,"
                f" allowed are {allowance.lines} and {allowance.branches}; lines {lines}; branches {branches}"
            )


def missed_in(document: Mapping[str, Any]) -> dict[str, Missed]:
    """Return what a JSON report of coverage.py says of each file of the package."""
    return {
        str(Path(file).resolve().relative_to(ROOT)): Missed(
            tuple(one["missing_lines"]), tuple((start, end) for start, end in one["missing_branches"])
        )
        for file, one in document["files"].items()
        if Path(file).resolve().is_relative_to(ROOT / "src")
    }


@contextmanager
def measured() -> Iterator[None]:
    """Measure every Python process of this environment that starts within the block."""
    shutil.rmtree(PLACE, ignore_errors=True)
    PLACE.mkdir(parents=True)
    PLACE.chmod(0o1777)  # some tests start processes of other users
    SETTINGS.write_text(_SETTINGS.format(place=PLACE, source=ROOT / "src"))
    HOOK.write_text(_HOOK.format(pid=os.getpid(), settings=str(SETTINGS)))
    try:
        yield
    finally:
        HOOK.unlink(missing_ok=True)


def report() -> dict[str, Any]:
    """Put the data of all processes together; return coverage.py's JSON document and leave a table for people."""
    coverage = [sys.executable, "-m", "coverage"]
    settings = [f"--rcfile={SETTINGS}"]
    subprocess.run([*coverage, "combine", "-q", *settings], cwd=ROOT, check=True)
    with (PLACE / "report.txt").open("w") as table:
        subprocess.run([*coverage, "report", "-m", "-i", *settings], cwd=ROOT, check=True, stdout=table)
    document = PLACE / "report.json"
    subprocess.run([*coverage, "json", "-q", "-i", *settings, "-o", str(document)], cwd=ROOT, check=True)
    loaded: dict[str, Any] = json.loads(document.read_text())
    return loaded


def main(words: list[str]) -> int:
    """Run the tests; return their exit code, or 1 when they pass and leave more uncovered than they may."""
    write = "--write" in words
    with measured():
        done = subprocess.run(
            [*PYTEST, *(word for word in words if word != "--write")], cwd=ROOT, check=False
        )
    if done.returncode != 0 and not write:
        return done.returncode
    document = report()
    missed = missed_in(document)
    allowed = read_allowances(ALLOWANCES.read_text()) if ALLOWANCES.exists() else {}
    if write:
        ALLOWANCES.write_text(write_allowances(missed, allowed))
        return done.returncode
    totals = document["totals"]
    lines = totals["covered_lines"] / totals["num_statements"]
    branches = totals["covered_branches"] / totals["num_branches"]
    print(
        f"coverage: {lines:.1%} of lines, {branches:.1%} of branches; each file in build/coverage/report.txt"
    )
    if not ALLOWANCES.exists():
        print(
            "coverage: nothing to compare with: python -m tools.test_coverage --write makes tests/uncovered.txt"
        )
        return 0
    found = list(complaints(missed, allowed))
    print("\n".join(found), end="\n" if found else "", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
