"""Support matrix: the tests of money and schema on each pair of a Python and a PostgreSQL that this machine has.

    ./dev nightly --only matrix
    python -m tools.matrix [--python 3.12] [--postgres 15]

Each Python gets an environment of its own below build/matrix, from requirements.lock. A pair that cannot be had here is
named, and is no failure; a pair whose tests fail is. PostgreSQL 18 is the embedded one.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
SERVERS = ("15", "16", "17", "18")
EMBEDDED = "18"
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


def has_server(version: str) -> bool:
    """Whether that version can be started here."""
    return version == EMBEDDED or Path(f"/usr/lib/postgresql/{version}/bin/initdb").exists()


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


def main(words: list[str]) -> int:
    """Run every pair; return 1 when the tests of one failed or its environment could not be made."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", nargs="+", choices=PYTHONS, default=PYTHONS)
    parser.add_argument("--postgres", nargs="+", choices=SERVERS, default=SERVERS)
    chosen = parser.parse_args(words)
    passed, failed, missing = 0, 0, 0
    for version in chosen.python:
        python = interpreter(version)
        for server in chosen.postgres:
            pair = f"Python {version}, PostgreSQL {server}"
            if python is None or not has_server(server):
                missing += 1
                print(f"{pair}: not to be had here", flush=True)
                continue
            command = [
                str(environment(version, python)),
                "-m",
                "pytest",
                "-q",
                "-n",
                "2",
                f"--postgres={server}",
                *TESTS,
            ]
            done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
            ended = (done.stdout.strip().splitlines() or ["no output"])[-1]
            print(f"{pair}: {ended}", flush=True)
            passed, failed = passed + (done.returncode == 0), failed + (done.returncode != 0)
            if done.returncode:
                print(done.stdout[-4000:] + done.stderr[-2000:], flush=True)
    print(f"{passed} of {passed + failed} pairs pass, {missing} not to be had here")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
