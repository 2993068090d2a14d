"""Nightly run: every proof that takes longer than a landing may, one after another, each with a seed.

    ./dev nightly                     everything, in some four hours
    ./dev nightly --share 0.1         the same parts with a tenth of their minutes
    ./dev nightly --only kills cuts   these parts
    ./dev nightly --seed 7            the seeds of an earlier run, instead of one that is drawn
    ./dev nightly --write             put the table into docs/reliability.md as well

The output of each part is kept in build/nightly/. A part whose programs are missing is skipped with a sentence; with
the environment variable CI set to anything, that is a failure. Exit code 1: something was found, failed or, in CI,
was skipped.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LOGS = ROOT / "build" / "nightly"
DOCUMENT = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- nightly: begin -->", "<!-- nightly: end -->"
POSTGRESQL_15 = "/usr/lib/postgresql/15/bin/initdb"
NOTHING = "0/0/0"


@dataclass(frozen=True)
class Part:
    """One proof: its command, with {seed} and {minutes} to fill in, and how its output is put into a few words."""

    name: str
    command: str
    done: Callable[[str], str]
    minutes: float = 0.0
    needs: tuple[str, ...] = ()
    clean: str = NOTHING


@dataclass(frozen=True)
class Row:
    """What became of one part: the cells of the table, and whether it counts as a failure."""

    part: str
    command: str
    seed: str
    done: str
    found: str
    failed: bool

    def line(self) -> str:
        """Return the row of a Markdown table."""
        return f"| {self.part} | `{self.command}` | {self.seed} | {self.done} | {self.found} |"


def _document(template: str) -> Callable[[str], str]:
    """Return a function that fills a template with the numbers of the JSON document that a part has printed."""

    def words(output: str) -> str:
        found: dict[str, Any] = json.loads(output[output.index("{") :])
        return template.format_map(
            {key: f"{round(float(value)):,}" for key, value in found.items() if _is_number(value)}
        )

    return words


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) or (isinstance(value, str) and value.replace(".", "", 1).isdigit())


def _line(pattern: str) -> Callable[[str], str]:
    """Return a function that takes what the pattern encloses in parentheses from the output."""

    def words(output: str) -> str:
        found = re.search(pattern, output)
        return " ".join(filter(None, found.groups())) if found else ""

    return words


def _designs(output: str) -> str:
    searched = [line for line in output.splitlines()[1:] if line.strip()]
    return f"{len(searched)} designs searched completely, {output.count(' DIFFERS')} with another verdict"


# One at a time: some of them can only be told by seconds, and need the machine to themselves.
PYTEST = "-m pytest -n 0 -q --slow -m slow --postgres=15"
PARTS = (
    Part("slow tests", PYTEST, _line(r"(\d+ passed)(?:.*?(, \d+ skipped))?"), 0, (POSTGRESQL_15,), "nothing"),
    Part(
        "random faults",
        "-m tests.faultlab --json --minutes {minutes} --seed {seed}",
        _document("{faults} faults, {instanceHours} instance-hours"),
        40,
    ),
    Part(
        "kills",
        "-m tests.faultlab.kills --json --each 500 --minutes {minutes} --seed {seed}",
        _document("{kills} kills at {boundaries} boundaries of {statements} statements"),
        40,
    ),
    Part(
        "cuts",
        "-m tests.faultlab.cuts --each 500 --minutes {minutes} --seed {seed}",
        _document("{cuts} cuts of {commits} kinds of commit"),
        30,
    ),
    Part(
        "orders broken off",
        "-m tests.faultlab.order_attacks --kills 2000 --cuts 500 --minutes {minutes} --seed {seed}",
        _document("{kills} kills and {cuts} cuts in reversals, credits and settlements"),
        40,
    ),
    Part(
        "orders of statements",
        "-m tests.faultlab.interleavings --minutes {minutes} --seed {seed}",
        _document("{schedules} schedules, {statements} statements"),
        30,
    ),
    Part(
        "kills in migrations",
        "-m tests.faultlab.migration_kills --rounds 1 --seed {seed}",
        _document("{kills} kills"),
        0,
        (),
        "nothing",
    ),
    Part(
        "failover", "-m tests.faultlab.failover --promotions 100 --seed {seed}", _line(r"(promotions) +(\d+)")
    ),
    Part(
        "random histories",
        "-m tests.campaign --machines 1000000 --minutes {minutes} --seed {seed}",
        _line(r"(\d+ machines agree)[^:]*: ([\d,]+ runs, [\d,]+ hours billed)"),
        40,
    ),
    Part(
        "matrix",
        "-m tools.matrix",
        _line(r"(\d+ of \d+ pairs pass)(, \d+ not to be had here)?"),
        0,
        (),
        "nothing",
    ),
    Part(
        "first bill",
        "-m tools.first_bill --limit 60",
        _line(r"first bill: ([\d.]+ s; environment: \d+ MiB)"),
        0,
        (),
        "nothing",
    ),
    Part(
        "planted bugs", "-m tests.planted", _line(r"(\d+ of \d+ planted bugs found)"), 0, (), "as they should"
    ),
    Part("protocol model", "-m tools.model", _designs, 0, ("spin", "gcc"), "as expected"),
)


def run(part: Part, seed: int, share: float) -> Row:
    """Run one part, keep its output, and return its row."""
    words = part.command.format(seed=seed, minutes=f"{part.minutes * share:g}").split()
    shown = "python " + " ".join(words)
    seeded = str(seed) if "{seed}" in part.command else ""
    if missing := [program for program in part.needs if shutil.which(program) is None]:
        reason = f"skipped: {', '.join(missing)} is missing"
        return Row(part.name, shown, seeded, reason, "", bool(os.environ.get("CI")))
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"{part.name.replace(' ', '-')}.txt"
    began = time.monotonic()
    with log.open("wb") as errors:
        done = subprocess.run(
            [sys.executable, *words], cwd=ROOT, check=False, stdout=subprocess.PIPE, stderr=errors
        )
        errors.write(done.stdout)
    try:
        figures = part.done(done.stdout.decode())
    except (ValueError, KeyError):
        figures = ""
    minutes = f"{(time.monotonic() - began) / 60:.1f} min"
    failed = done.returncode != 0 or not figures
    found = f"exit code {done.returncode}, {log.relative_to(ROOT)}" if failed else part.clean
    return Row(part.name, shown, seeded, ", ".join(filter(None, (figures, minutes))), found, failed)


def table(rows: list[Row]) -> str:
    """Return what stands between the markers of the document: the rows, then where and when they were made."""
    head = ["| part | command | seed | done | found |", "|---|---|---|---|---|"]
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, check=False, capture_output=True, text=True
    ).stdout.strip()
    machine = f"Python {platform.python_version()}, {os.cpu_count()} processors"
    made = f"{datetime.now(UTC):%Y-%m-%d}, commit {commit}, {machine}."
    return "\n".join([*head, *(row.line() for row in rows), "", made])


def written(document: str, content: str) -> str:
    """Return the document with another content between its markers; raises ValueError where one is missing."""
    before, found, rest = document.partition(BEGIN)
    _, closed, after = rest.partition(END)
    if not (found and closed):
        raise ValueError(
            f"{DOCUMENT.name} has no place for the table: {BEGIN} and {END} on lines of their own"
        )
    return f"{before}{BEGIN}\n{content}\n{END}{after}"


def main(words: list[str]) -> int:
    """Run the parts; return 1 when one of them found something, failed, or was skipped in CI."""
    parser = argparse.ArgumentParser(
        prog="./dev nightly", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [part.name.replace(" ", "-") for part in PARTS]
    parser.add_argument("--only", nargs="+", metavar="PART", choices=names, default=names)
    parser.add_argument("--share", type=float, default=1.0, help="of the minutes of each part (default 1)")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="for every part")
    parser.add_argument("--write", action="store_true", help="put the table into docs/reliability.md")
    chosen = parser.parse_args(words)
    print(f"seed {chosen.seed}", flush=True)
    rows = []
    for part in PARTS:
        if part.name.replace(" ", "-") in chosen.only:
            rows.append(run(part, chosen.seed, chosen.share))
            print(rows[-1].line(), flush=True)
    if chosen.write:
        DOCUMENT.write_text(written(DOCUMENT.read_text(), table(rows)))
    return 1 if any(row.failed for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
