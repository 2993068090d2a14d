"""Words that were given up for the field's term, and how often each may still stand in a room of the package.

    python -m tools.retired_words --write    lower the allowances to what is there now

tools/retired_words.txt holds a line for each word and room that is not clean yet: count, word, room. The check refuses
more than that, and any retired word where no line allows it. Allowances may only fall: `--write` never raises one.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

PACKAGE = "src/containerstacks_billing"
ALLOWANCES = "tools/retired_words.txt"
HEADING = """\
# Retired words that still stand in the package: count, word, room. Counts may only fall:
# python -m tools.retired_words --write
"""
# A word as the list calls it: its pattern, and what is written instead (GLOSSARY.md).
TERMS = {
    "bill_once": (r"bill_once", "run_billing"),
    "complaint": (r"complaints?", "recurring error, or message"),
    "debt": (r"debts?", "past-due charge"),
    "fitness": (r"(un)?fitness", "schema drift"),
    "objection": (r"objections?", "hold reason"),
    "pulse": (r"pulses?", "loop progress"),
    "rehearsal": (r"rehears\w*", "dry run"),
    "second look": (r"second look", "diagnosis"),
    "set aside": (r"set[_ ]?aside", "quarantined or held"),
    "somebody": (r"somebody", "the person or process that is meant"),
    "spare": (r"spare", "run pool, or idle connection"),
    "standing": (r"standings?", "status view, or verdict"),
    "stretch": (r"stretch(es)?", "usage segment"),
    "tells": (r"tells|(is|are) told", "returns, reports, or writes"),
    "territory": (r"territor(y|ies)", "organization range"),
    "tethered": (r"tethered", "child of up"),
    "whoever": (r"whoever", "the person or process that is meant"),
}
PATTERNS = {
    word: re.compile(rf"(?<![a-z]){pattern}(?![a-z])", re.IGNORECASE) for word, (pattern, _) in TERMS.items()
}
Allowances = Mapping[tuple[str, str], int]


def retired_words(root: Path) -> Iterator[str]:
    """No text of the package uses a word that was given up for the field's term, beyond what is allowed still."""
    allowed, found = allowances(root), _occurrences(root)
    for (word, room), places in sorted(found.items()):
        most = allowed.get((word, room), 0)
        if len(places) <= most:
            continue
        for place in places:
            yield f"{place}: {word} was given up for: {TERMS[word][1]}"
        if most:
            yield f"{ALLOWANCES}:1: {word} stands {len(places)} times in {room}, where {most} may remain"


def allowances(root: Path) -> Allowances:
    """Return how often a word may stand in a room."""
    path = root / ALLOWANCES
    lines = path.read_text().splitlines() if path.exists() else []
    read = (re.fullmatch(r" *(\d+) +(.+\S) +(\S+)", line) for line in lines if not line.startswith("#"))
    return {(line[2], line[3]): int(line[1]) for line in read if line}


def lowered(root: Path) -> str:
    """Return the list with every allowance lowered to what is there, and without those that are no longer needed."""
    found = Counter({key: len(places) for key, places in _occurrences(root).items()})
    left = {key: min(most, found[key]) for key, most in allowances(root).items()}
    return HEADING + "".join(
        f"{count:>3}  {word:<12} {room}\n" for (word, room), count in sorted(left.items()) if count
    )


def _occurrences(root: Path) -> dict[tuple[str, str], list[str]]:
    """Return the places, `path:line`, of each retired word in each room; once for each occurrence."""
    found: dict[tuple[str, str], list[str]] = {}
    for path in sorted((root / PACKAGE).rglob("*")):
        if path.suffix not in {".py", ".sql"}:
            continue
        room = path.relative_to(root / PACKAGE).parts[0]
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            for word, pattern in PATTERNS.items():
                places = [f"{path.relative_to(root)}:{number}" for _ in pattern.finditer(line)]
                if places:
                    found.setdefault((word, room), []).extend(places)
    return found


if __name__ == "__main__":
    here = Path(__file__).resolve().parent.parent
    if sys.argv[1:] != ["--write"]:
        sys.exit(__doc__)
    (here / ALLOWANCES).write_text(lowered(here))
