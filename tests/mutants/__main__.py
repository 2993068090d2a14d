"""How many wrong changes of the billing core the tests notice: ./dev mutants [--sample N] [--seed S] [--only python|sql].

One change at a time is made in a copy of src/, and a fixed selection of tests is the judge. A change that none of them
notices has survived: either it changes nothing, and then equivalent.txt says why, or a test is missing. The score is the
share of those that were noticed among those that could be. A change of SQL that is no SQL any more counts for nothing.

Exit 1 when a change survives that equivalent.txt does not know.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.memory import quick_place
from tests.mutants.changes import Change, python_changes, sql_changes
from tests.mutants.judges import judged
from tests.planted.patches import ROOT, copy_of_sources

from containerstacks_billing.sandbox.server import EmbeddedServer

_EQUIVALENT = Path(__file__).parent / "equivalent.txt"
_SETTINGS = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "max_connections": "200"}
# Without the plugins that these tests do not need a start costs a third.
_PYTEST = (
    *("pytest", "-p", "xdist.plugin", "-p", "anyio.pytest_plugin", "-p", "no:cacheprovider"),
    *("-n", "0", "-q", "-x", "--tb", "short"),
)
_SECONDS = 600
# Of these each change is judged by the tests that say its statement (judges.py).
JUDGES_OF_SQL = (
    "tests/charging/test_run.py",
    "tests/charging/test_metering.py",
    "tests/charging/test_catch_up.py",
    "tests/charging/test_worker.py",
    "tests/holds/test_release.py",
    "tests/charging/test_poison.py",
    "tests/pricing/test_versions.py",
    "tests/test_reference.py",
    "tests/planted/test_schedules.py",
)
_JUDGES = {
    "brake": ("test_brake.py", "../process/test_held_runs.py"),
    "failover": ("test_failover.py", "../process/test_built_in.py"),
    "health": (
        "test_health.py",
        "test_standing.py",
        "../process/test_status_command.py",
        "../process/test_serve.py",
    ),
    "run": ("test_run.py", "../process/test_bill.py", "../process/test_worker.py"),
    "standing": ("test_standing.py", "../process/test_status_page.py"),
    "prices": ("test_prices.py", "../postgres/test_prices.py", "../process/test_prices_command.py"),
    "events": ("test_events.py", "../process/test_webhooks.py", "../process/test_runways.py"),
}


@dataclass(frozen=True, slots=True)
class Trial:
    """A change and what the judge said: noticed, survived, no SQL."""

    change: Change
    outcome: str
    seconds: float


def judges(change: Change) -> tuple[str, ...]:
    """Return the tests that have to notice a change of Python."""
    module = Path(change.path).stem
    files = _JUDGES.get(module, (f"test_{module}.py",))
    return tuple(os.path.normpath(f"tests/billing/{file}") for file in files)


def trial(change: Change, server: str) -> Trial:
    """Make the change in a copy and ask the judge."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="containerstacks-mutant-", dir=quick_place()) as place:
        sources = copy_of_sources(Path(place))
        change.apply(sources.parent)
        environment = {name: text for name, text in os.environ.items() if not name.startswith("PG")}
        environment |= {
            "PYTHONPATH": f"{sources}{os.pathsep}{ROOT}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "TEST_DATABASE_URL": server,
        }
        try:
            done = subprocess.run(
                [sys.executable, "-m", *_PYTEST, *judges(change)],
                cwd=ROOT,
                env=environment,
                capture_output=True,
                text=True,
                timeout=_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Trial(change, "noticed", time.monotonic() - began)
    outcome = "noticed" if done.returncode else "survived"
    return Trial(change, outcome, time.monotonic() - began)


def quickly(changes: list[Change]) -> list[Trial]:
    """Ask the tests without a database about the changes of Python; those that survive them go on to the others."""
    python = {change: number for number, change in enumerate(python_changes(ROOT))}
    asked = [change for change in changes if change in python]
    if not asked:
        return []
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "tests.mutants.quick"],
        cwd=ROOT,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        input="".join(f"{python[change]}\n" for change in asked),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    each = (time.monotonic() - began) / len(asked)
    return [Trial(change, outcome, each) for change, outcome in zip(asked, done.stdout.split(), strict=True)]


def equivalents() -> dict[str, str]:
    """Read the changes that change nothing, and why."""
    known: dict[str, str] = {}
    for paragraph in _EQUIVALENT.read_text().split("\n\n"):
        lines = [line for line in paragraph.splitlines() if line and not line.startswith("#")]
        for line in lines[:-1]:
            known[line] = lines[-1].strip()
    return known


def chosen_changes(sample: int | None, seed: int, only: str | None) -> list[Change]:
    """Choose what is tried: everything, or a sample by its seed."""
    everything: Iterable[Change] = [
        *(python_changes(ROOT) if only != "sql" else ()),
        *(sql_changes(ROOT) if only != "python" else ()),
    ]
    changes = list(everything)
    if sample is None or sample >= len(changes):
        return changes
    return random.Random(seed).sample(changes, sample)


def score(trials: list[Trial], known: dict[str, str]) -> dict[str, Any]:
    """Count; a change that is known to change nothing is not held against the tests."""
    document: dict[str, Any] = {}
    for language, suffix in (("python", ".py"), ("sql", ".sql")):
        mine = [trial for trial in trials if trial.change.path.endswith(suffix)]
        counts = Counter(trial.outcome for trial in mine)
        equivalent = sum(trial.outcome == "survived" and trial.change.key in known for trial in mine)
        could_be = counts["noticed"] + counts["survived"] - equivalent
        document[language] = {
            "tried": len(mine),
            "noSql": counts["no SQL"],
            "noticed": counts["noticed"],
            "equivalent": equivalent,
            "survived": counts["survived"] - equivalent,
            "score": round(100 * counts["noticed"] / could_be, 1) if could_be else None,
        }
    return document


def tell(tried: Trial, known: dict[str, str]) -> None:
    """Name a change if it survived."""
    if tried.outcome != "survived":
        return
    word = "equivalent" if tried.change.key in known else "SURVIVED"
    print(f"{word} {tried.change.path}:{tried.change.line}: {tried.change.key}", flush=True)


def thoroughly(
    changes: list[Change], at_once: int, known: dict[str, str], minutes: float | None
) -> list[Trial]:
    """Ask the tests with a database, on a server of their own."""
    if not changes:
        return []
    print(f"{len(changes)} to try with a database", file=sys.stderr, flush=True)
    places = {change: number for number, change in enumerate(sql_changes(ROOT))}
    of_sql = [(places[change], change) for change in changes if change in places]
    trials: list[Trial] = []
    with tempfile.TemporaryDirectory(prefix="containerstacks-mutants-", dir=quick_place()) as place:
        server = EmbeddedServer(Path(place), settings=_SETTINGS)
        try:
            conninfo = server.start()
            with ThreadPoolExecutor(at_once) as pool:
                python = [change for change in changes if change not in places]
                for tried in pool.map(lambda change: trial(change, conninfo), python):
                    trials.append(tried)
                    tell(tried, known)
            files = [file for file in JUDGES_OF_SQL if (ROOT / file).exists()]
            for change, outcome, seconds, by in (
                judged(of_sql, conninfo, files, at_once, minutes) if of_sql else ()
            ):
                trials.append(Trial(change, outcome, seconds))
                tell(trials[-1], known)
                print(f"{len(trials)}: {outcome} in {seconds:.1f} s by {by}", file=sys.stderr, flush=True)
        finally:
            server.stop()
    return trials


def main() -> int:
    """Try the changes and say what survived."""
    parser = argparse.ArgumentParser(
        prog="./dev mutants", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sample", type=int, help="how many changes, chosen by the seed (default: all)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=("python", "sql"))
    parser.add_argument("--minutes", type=float, help="begin no change of SQL after so many (default: all)")
    parser.add_argument("--at-once", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="only Python, only the tests without a database")
    parser.add_argument("--list", action="store_true", help="only list the changes")
    chosen = parser.parse_args()
    only = "python" if chosen.quick else chosen.only
    changes, known = chosen_changes(chosen.sample, chosen.seed, only), equivalents()
    if chosen.list:
        print("\n".join(f"{change.path}:{change.line}: {change.key}" for change in changes))
        return 0
    trials = quickly(changes)
    if not chosen.quick:
        trials = [tried for tried in trials if tried.outcome == "noticed"]
    for tried in trials:
        tell(tried, known)
    asked = {tried.change for tried in trials}
    trials += thoroughly(
        [change for change in changes if change not in asked], chosen.at_once, known, chosen.minutes
    )
    document = score(trials, known)
    print(json.dumps(document))
    return 1 if any(part["survived"] for part in document.values()) else 0


if __name__ == "__main__":
    # Ended by a signal it stops its server too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
