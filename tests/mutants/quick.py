"""Judge changes of Python by the tests without a database, each in a fork of one warm process: a tenth of a second each.

Reads indices of `python_changes` from standard input, a line each, and answers each with `noticed` or `survived`.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import hypothesis  # noqa: F401  (imported once, for all forks)
import psycopg  # noqa: F401
import pydantic  # noqa: F401
import pytest
from tests.mutants.changes import PACKAGE, python_changes
from tests.planted.patches import ROOT, copy_of_sources

_SECONDS = 60


def judged(test: str, sources: Path) -> bool:
    """Whether the test fails on a copy of the sources, or never ends."""
    child = os.fork()
    if not child:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        sys.path.insert(0, str(sources))
        import signal

        signal.alarm(_SECONDS)
        os._exit(
            int(pytest.main(["-p", "xdist.plugin", "-p", "no:cacheprovider", "-n", "0", "-q", "-x", test]))
        )
    return os.waitpid(child, 0)[1] != 0


def main() -> None:
    """Judge what is asked for."""
    sys.dont_write_bytecode = True
    changes = list(python_changes(ROOT))
    with tempfile.TemporaryDirectory(prefix="containerstacks-mutant-") as place:
        sources = copy_of_sources(Path(place))
        for line in sys.stdin:
            change = changes[int(line)]
            test = f"tests/billing/test_{Path(change.path).stem}.py"
            if not (ROOT / test).exists():
                test = "tests/status/test_verdict.py"
            file = sources.parent / change.path
            assert PACKAGE in str(file)
            before = file.read_text()
            change.apply(sources.parent)
            print("noticed" if judged(test, sources) else "survived", flush=True)
            file.write_text(before)


if __name__ == "__main__":
    main()
