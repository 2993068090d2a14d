"""Support matrix: the tests of money and schema on each pair of a Python and a PostgreSQL that this machine has.

    ./dev nightly --only matrix
    python -m tools.matrix [--python 3.12] [--postgres 15] [TEST …]

Each Python gets an environment of its own below build/matrix, from requirements.lock. A pair that cannot be had here is
named, and is no failure; a pair whose tests fail is. PostgreSQL 18 is the embedded one, 15 is Debian's, 16 and 17 are
fetched (matrix_servers.py).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tools.matrix_servers import programs

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
SERVERS = ("15", "16", "17", "18")
BINARIES_SETTING = "CONTAINERSTACKS_BILLING_POSTGRES_BIN"
TESTS = (
    "tests/charging",
    "tests/schema",
    "tests/verification",
    "tests/cli/test_run.py",
    "tests/cli/test_doctor.py",
)


def interpreter(version: str) -> str | None:
    """Return an interpreter of that version, which answers; None where there is none."""
    managed = sorted((Path.home() / ".pyenv/versions").glob(f"{version}.*/bin/python"))
    for candidate in (f"python{version}", f"/usr/bin/python{version}", *map(str, managed)):
        found = shutil.which(candidate)
        if (
            found
            and subprocess.run([found, "-c", "import venv, ssl"], check=False, capture_output=True).returncode
            == 0
        ):
            return found
    return None


def environment(version: str, python: str) -> Path:
    """Make the environment of a Python, once; return its interpreter."""
    place = ROOT / "build" / "matrix" / version
    made = place / "bin" / "python"
    if not (place / "complete").exists():
        shutil.rmtree(place, ignore_errors=True)
        subprocess.run([python, "-m", "venv", str(place)], check=True)
        pip = [str(made), "-m", "pip", "-qq", "install", "--no-deps"]
        subprocess.run([*pip, "--require-hashes", "-r", "requirements.lock"], cwd=ROOT, check=True)
        subprocess.run([*pip, "--no-build-isolation", "-e", "."], cwd=ROOT, check=True)
        (place / "complete").touch()
    return made


def tested(pair: str, python: Path, server: str, binaries: Path | None, tests: Sequence[str]) -> bool:
    """Run the tests on one pair, print the last line of what they say, and more when they fail."""
    command = [str(python), "-m", "pytest", "-q", "-n", "2", f"--postgres={server}", *tests]
    # In CI a test that is skipped for want of a program fails; the archives of 16 and 17 have no pg_dump.
    variables = {name: value for name, value in os.environ.items() if name not in {BINARIES_SETTING, "CI"}}
    if binaries is not None:
        variables[BINARIES_SETTING] = str(binaries)
    done = subprocess.run(command, cwd=ROOT, env=variables, check=False, capture_output=True, text=True)
    print(f"{pair}: {(done.stdout.strip().splitlines() or ['no output'])[-1]}", flush=True)
    if done.returncode:
        print(done.stdout[-4000:] + done.stderr[-2000:], flush=True)
    return done.returncode == 0


def main(words: list[str]) -> int:
    """Run every pair; return 1 when the tests of one failed or its environment could not be made."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", nargs="+", choices=PYTHONS, default=PYTHONS)
    parser.add_argument("--postgres", nargs="+", choices=SERVERS, default=SERVERS)
    parser.add_argument("tests", nargs="*", default=TESTS, metavar="TEST")
    chosen = parser.parse_args(words)
    passed, failed, missing = 0, 0, 0
    for version in chosen.python:
        for server in chosen.postgres:
            python = interpreter(version)
            pair = f"Python {version}, PostgreSQL {server}"
            try:
                binaries = programs(server)
            except LookupError:
                python = None
            if python is None:
                missing += 1
                print(f"{pair}: not to be had here", flush=True)
            elif tested(pair, environment(version, python), server, binaries, chosen.tests):
                passed += 1
            else:
                failed += 1
    print(f"{passed} of {passed + failed} pairs pass, {missing} not to be had here")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
