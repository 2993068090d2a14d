"""Bugs that are planted on purpose, and whether the faults find them: ./dev planted [NAME…] [--seconds S] [--json].

A suite that finds nothing has proved nothing until it is known what it would find. Each patch in this directory breaks
the product in one tempting way. It is applied to a copy of src/; a plain run on the copy must still be right; then the
attackers go at it, at most three minutes, and the first of them that finds something ends the attack. The product as it is
goes through the same, and nothing may be found in it. Exit 1 when a bug is missed or something is found without one.

To renew a patch that no longer applies: do by hand in src/ what its first lines say, run
`./dev planted --write NAME`, which keeps those lines and takes the difference to the last commit, and put src/ back.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier
from tests.memory import quick_place
from tests.planted.patches import (
    PATCHES,
    ROOT,
    copy_of_sources,
    does_not_apply,
    write,
)

from containerstacks_billing.sandbox.server import EmbeddedServer

NOTHING = "nothing planted"
_SETTINGS = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "max_connections": "200"}
_PYTEST = ("pytest", "-n", "0", "-q", "-x", "-p", "no:cacheprovider", "--tb", "short")
_FOUND, _NOT_FOUND = 1, 0
_LONGEST = 160

# The schedules meet each bug at the same statement every time; the campaign, a dozen processes, takes what they leave of the
# machine, or it would keep them from coming to theirs in time.
_PATIENT = ("nice", "-n", "15")

# Each ends with 1 when it has found something, and with 0 when not; what it found is on its standard output.
ATTACKERS: dict[str, tuple[str, ...]] = {
    "schedules": (*_PYTEST, "tests/planted/test_schedules.py"),
    "adjustments": (*_PYTEST, "tests/adjustments"),
    "campaign": ("tests.faultlab", "--until-found", "--json", "--minutes", "{minutes}", "--seconds", "8"),
}


@dataclass(frozen=True, slots=True)
class Attempt:
    """What became of one bug: found by whom, after how long; or what is wrong with the patch itself."""

    name: str
    found_by: str | None
    seconds: float
    what: str = ""
    broken: str | None = None

    @property
    def as_it_should(self) -> bool:
        """Whether a bug was found, or none where there is none."""
        return self.broken is None and (self.found_by is None) == (self.name == NOTHING)

    def line(self) -> str:
        """Say it in a line."""
        if self.broken:
            return f"BROKEN  {self.name}: {self.broken}"
        if self.found_by is None:
            return f"{'right ' if self.as_it_should else 'MISSED'}  {self.name}: nothing found in {self.seconds:.0f} s"
        verb = "found " if self.as_it_should else "WRONG "
        return f"{verb}  {self.name}: by {self.found_by} after {self.seconds:.1f} s: {self.what}"


def attack(name: str, server: str, seconds: float, attackers: Sequence[str]) -> Attempt:
    """Plant one bug in a copy, see that a plain run is right, and let the attackers loose.

    `server` is the conninfo of a throw-away server; those who restart theirs start their own.
    """
    with tempfile.TemporaryDirectory(prefix="containerstacks-planted-", dir=quick_place()) as place:
        sources = copy_of_sources(Path(place))
        if name != NOTHING and (reason := does_not_apply(name, sources)):
            hint = "python -m tests.planted --help says how to renew it"
            return Attempt(name, None, 0, broken=f"does not apply any more ({reason}); {hint}")
        environment = {
            variable: text
            for variable, text in os.environ.items()
            if not (variable.startswith("PG") or variable == "DATABASE_URL")
        }
        environment |= {
            "PYTHONPATH": f"{sources}{os.pathsep}{ROOT}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "TEST_DATABASE_URL": server,
        }
        if wrong := plain_run(name, server, Path(place), environment):
            return Attempt(name, None, 0, broken=f"a plain run is wrong without any fault: {wrong}")
        return let_loose(name, Path(place), environment, seconds, fitting(name, attackers))


def fitting(name: str, attackers: Sequence[str]) -> Sequence[str]:
    """Return the attackers that a bug is meant for: those of adjustments touch no run, and no run touches them."""
    if name == NOTHING:
        return attackers
    is_about_adjustments = "/adjustments/" in PATCHES[name].read_text()
    return [one for one in attackers if (one == "adjustments") == is_about_adjustments]


def plain_run(name: str, server: str, place: Path, environment: dict[str, str]) -> str:
    """Bill a day without faults on a database of its own; return what is wrong, if anything."""
    database = f"plain_{os.getpid()}_{name[:2]}"
    conninfo = make_conninfo(server, dbname=database)
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(SQL("create database {} template template0").format(Identifier(database)))
    for module in (("containerstacks_billing", "migrate"), ("tests.planted.control_run", conninfo)):
        done = subprocess.run(
            [sys.executable, "-m", *module],
            cwd=place,
            env={**environment, "DATABASE_URL": conninfo},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if done.returncode:
            return (done.stdout + done.stderr).strip()[-500:]
    return ""


def let_loose(
    name: str, place: Path, environment: dict[str, str], seconds: float, attackers: Sequence[str]
) -> Attempt:
    """Start all attackers at once; the first that finds something ends the others."""
    began = time.monotonic()
    with started(place, environment, seconds, attackers) as running:
        while running and (passed := time.monotonic() - began) < seconds:
            for attacker, process in list(running.items()):
                try:
                    code = process.wait(0.1)
                except subprocess.TimeoutExpired:
                    continue
                said = (place / f"{attacker}.out").read_text(errors="replace")
                if code == _FOUND and (what := finding(said)):
                    return Attempt(name, attacker, passed, what)
                if code != _NOT_FOUND:
                    said += (place / f"{attacker}.err").read_text(errors="replace")
                    reason = f"{attacker} ended with {code}: {said.strip()[-400:]}"
                    return Attempt(name, None, passed, broken=reason)
                del running[attacker]
    return Attempt(name, None, time.monotonic() - began)


@contextmanager
def started(
    place: Path, environment: dict[str, str], seconds: float, attackers: Sequence[str]
) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Start attackers, each with a log file; at the end they are asked to end, and the campaign stops its server."""
    running: dict[str, subprocess.Popen[bytes]] = {}
    everybody: list[subprocess.Popen[bytes]] = []
    try:
        for attacker in attackers:
            words = [word.format(minutes=seconds / 60) for word in ATTACKERS[attacker]]
            with (place / f"{attacker}.out").open("wb") as out, (place / f"{attacker}.err").open("wb") as err:
                process = subprocess.Popen(
                    [*(_PATIENT if attacker == "campaign" else ()), sys.executable, "-m", *words],
                    cwd=ROOT,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                )
            running[attacker] = process
            everybody.append(process)
        yield running
    finally:
        for process in everybody:
            if process.poll() is None:
                process.terminate()
        for process in everybody:
            try:
                process.wait(180)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def finding(said: str) -> str:
    """Pick the line that says what was found; empty when this is no finding but an attacker that fell over."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    failed = [line.split("::")[-1].split(" - ")[0] for line in lines if line.startswith("FAILED ")]
    if failed:
        differing = [line.removeprefix("E ").strip() for line in lines if line.startswith("E ")]
        return f"{failed[0]}: {differing[0] if differing else ''}"[:_LONGEST]
    if lines and lines[-1].startswith("{"):
        findings = json.loads(lines[-1])["findings"]
        return str(findings[0]["lines"][0])[:_LONGEST] if findings else ""
    return ""


def main() -> int:
    """Attack what is named, or everything; say how each ended."""
    parser = argparse.ArgumentParser(
        prog="./dev planted", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="patches, or the beginnings of their names")
    parser.add_argument("--seconds", type=float, default=180, help="for one bug (default 180)")
    parser.add_argument("--at-once", type=int, default=1, help="bugs at the same time (default 1)")
    parser.add_argument(
        "--attacker", action="append", choices=list(ATTACKERS), help="only this one (default: all)"
    )
    parser.add_argument(
        "--short", action="store_true", help="only those that meet each bug at the same statement every time"
    )
    parser.add_argument("--json", action="store_true", help="write one JSON document")
    parser.add_argument("--write", metavar="NAME", help="renew a patch from the difference in src/")
    chosen = parser.parse_args()
    if chosen.write:
        return write(chosen.write)
    names = [name for name in PATCHES if not chosen.names or name.startswith(tuple(chosen.names))]
    attackers = ["schedules", "adjustments"] if chosen.short else chosen.attacker or list(ATTACKERS)
    began, attempts = time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="containerstacks-planted-", dir=quick_place()) as place:
        server = EmbeddedServer(Path(place), settings=_SETTINGS)
        try:
            conninfo = server.start()
            with ThreadPoolExecutor(chosen.at_once) as pool:
                for attempt in pool.map(
                    lambda name: attack(name, conninfo, chosen.seconds, attackers),
                    names if chosen.names else [NOTHING, *names],
                ):
                    attempts.append(attempt)
                    print(attempt.line(), file=sys.stderr if chosen.json else sys.stdout, flush=True)
        finally:
            server.stop()
    if chosen.json:
        print(json.dumps([asdict(attempt) for attempt in attempts], indent=2))
    bad = [attempt for attempt in attempts if not attempt.as_it_should]
    found = sum(attempt.found_by is not None for attempt in attempts if attempt.name != NOTHING)
    print(
        f"{found} of {len(names)} planted bugs found in {time.monotonic() - began:.0f} s"
        + (f"; not as it should be: {', '.join(attempt.name for attempt in bad)}" if bad else ""),
        file=sys.stderr if chosen.json else sys.stdout,
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
