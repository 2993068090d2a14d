"""Explore the billing protocol with Spin (tests/model/billing.pml): the design as built, and rejected designs.

Each design is compiled and searched exhaustively. The built one has to hold in every reachable state; each of the
others has to break the rule that its row names, or has to hold, where the rest makes up for what it leaves out.

    python -m tools.model                   every design, as a table; exit 1 when one ends otherwise
    python -m tools.model --only NAME …     some of them
    python -m tools.model --tell NAME       the shortest story in which a design breaks its rule
"""

from __future__ import annotations

import argparse
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

MODEL = Path(__file__).resolve().parent.parent / "tests" / "model" / "billing.pml"
MEMORY_MEGABYTES = 8000
HOLDS = "holds"
# What a violated assertion says, by a name in it; the first that is found counts.
RULES = {
    "under_nonce": "charges under a lost lease",
    "hours[": "charges an hour twice",
    "balance[": "books do not agree",
    "as_of": "leaves an hour uncharged",
    "watermark[": "loses an hour",
    "invalid end state": "waits for ever",
}
LEASE, TWICE, BOOKS, UNCHARGED, LOST, _ = RULES.values()


@dataclass(frozen=True, slots=True)
class Design:
    """A design, the definitions that make it, what has to come out, and how much may happen in it."""

    name: str
    defines: tuple[str, ...]
    expected: str
    leases: int = 1
    faults: int = 1
    failovers: int = 0
    least_states: int = 0

    def definitions(self) -> list[str]:
        """Return them as options of spin."""
        bounds = {"LEASES": self.leases, "FAULTS": self.faults, "FAILOVERS": self.failovers}
        return [
            *(f"-D{define}" for define in self.defines),
            *(f"-D{name}={number}" for name, number in bounds.items()),
        ]


@dataclass(frozen=True, slots=True)
class Finding:
    """How a search ended: what it found, how many states, how many seconds of a processor, compiling included."""

    verdict: str
    states: int
    seconds: float


DESIGNS = (
    Design("as built", (), HOLDS, leases=2, faults=1, failovers=1, least_states=10_000_000),
    Design("as built, more takeovers", (), HOLDS, leases=3, faults=2, least_states=3_000_000),
    # Each protection of an hour is enough for the hours that another would have kept; all of them gone are too few.
    Design("money without a fence", ("NO_FENCE", "MONEY"), HOLDS, leases=2),
    Design("no lock", ("NO_LOCK",), HOLDS, leases=2),
    Design("no unique key", ("NO_KEY",), HOLDS, leases=2),
    Design("no lock, no key", ("NO_LOCK", "NO_KEY"), HOLDS, leases=2),
    Design("remembered plan", ("REMEMBERED",), HOLDS, leases=2),
    Design("no compare", ("NO_COMPARE",), UNCHARGED, faults=0),
    Design("no lock, key, compare", ("NO_LOCK", "NO_KEY", "NO_COMPARE"), TWICE),
    Design("remembered, no key, compare", ("REMEMBERED", "NO_KEY", "NO_COMPARE"), TWICE),
    # The lease.
    Design("no fence", ("NO_FENCE",), LEASE, leases=2, faults=0),
    Design("lease looked at before", ("FENCE_BEFORE",), LEASE, leases=2, faults=0),
    Design("fence not held", ("FENCE_NOT_HELD",), LEASE, leases=2, faults=0),
    Design("token without nonce", ("NO_NONCE",), LEASE, leases=2, faults=0, failovers=1),
    # One transaction.
    Design("absolute balance", ("ABSOLUTE_BALANCE",), BOOKS, faults=0),
    Design("debit in its own", ("DEBIT_APART",), BOOKS),
    Design("watermark first", ("WATERMARK_FIRST",), UNCHARGED),
    Design("watermark last", ("WATERMARK_LAST",), UNCHARGED),
    Design("watermark last, no key", ("WATERMARK_LAST", "NO_KEY"), TWICE),
)


def search(design: Design, directory: Path) -> Finding:
    """Compile and run one search; a story is left in `directory` when a rule is broken."""
    began = _children_seconds()
    shutil.copy(MODEL, directory)
    _run(["spin", *design.definitions(), "-a", MODEL.name], directory)
    # A short story is found breadth first; compiling well pays for long searches only.
    depth_first = design.expected == HOLDS
    options = [
        "-O2" if depth_first else "-O1",
        *([] if depth_first else ["-DBFS"]),
        "-w",
        "-DSAFETY",
        "-DCOLLAPSE",
        f"-DMEMLIM={MEMORY_MEGABYTES}",
    ]
    _run(["gcc", *options, "-o", "pan", "pan.c"], directory)
    size = "-w26" if design.least_states else "-w22"
    output = _run(["./pan", "-m1000000", size], directory)
    states = re.search(r"(\d+(?:\.\d+e\+\d+)?) states, stored", output)
    return Finding(
        verdict_of(output), int(float(states[1])) if states else 0, round(_children_seconds() - began, 1)
    )


def verdict_of(output: str) -> str:
    """Read a verdict out of what a search printed; a search that was cut short has none."""
    broken = re.search(r"^pan:\d+: (assertion violated .*|invalid end state.*)", output, re.MULTILINE)
    if broken:
        return next((rule for sign, rule in RULES.items() if sign in broken[1]), broken[1])
    if "errors: 0" in output and "Search not completed" not in output and "max search depth" not in output:
        return HOLDS
    return "not searched completely"


def story(design: Design) -> str:
    """Return the shortest trace in which a design breaks its rule; empty when it does not."""
    with tempfile.TemporaryDirectory() as name:
        search(design, Path(name))
        if not Path(name, f"{MODEL.name}.trail").exists():
            return ""
        told = _run(["spin", "-t", "-T", *design.definitions(), MODEL.name], Path(name))
    return "\n".join(
        line for line in told.split("#processes")[0].splitlines() if not line.startswith("spin:")
    )


def main(arguments: list[str]) -> int:
    """Search the designs, print what came out beside what was expected, return 1 at any difference."""
    for program in ("spin", "gcc"):
        if shutil.which(program) is None:
            print(f"error: {program} is missing", file=sys.stderr)
            print("hint: on Debian and Ubuntu: apt-get install spin gcc libc6-dev", file=sys.stderr)
            return 1
    names = [design.name for design in DESIGNS]
    parser = argparse.ArgumentParser(
        prog="./dev model", description="Explore the protocol of billing with Spin."
    )
    parser.add_argument("--only", metavar="NAME", choices=names, action="append", help="search this design")
    parser.add_argument("--tell", metavar="NAME", choices=names, help="tell how this design breaks its rule")
    chosen = parser.parse_args(arguments)
    if chosen.tell:
        print(story(next(design for design in DESIGNS if design.name == chosen.tell)) or "It holds.")
        return 0
    print(f"{'design':28} {'expected':27} {'found':27} {'states':>11} {'seconds':>8}")
    differences = 0
    for design in DESIGNS:
        if chosen.only and design.name not in chosen.only:
            continue
        with tempfile.TemporaryDirectory() as directory:
            found = search(design, Path(directory))
        differs = found.verdict != design.expected or found.states < design.least_states
        differences += differs
        print(
            f"{design.name:28} {design.expected:27} {found.verdict:27} {found.states:11,} {found.seconds:8.1f}"
            + (" DIFFERS" if differs else ""),
            flush=True,
        )
    return 1 if differences else 0


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _run(command: list[str], directory: Path) -> str:
    done = subprocess.run(command, cwd=directory, check=False, capture_output=True, text=True)
    if done.returncode != 0 and command[0] != "./pan":
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
