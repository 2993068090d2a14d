"""Judge changes of SQL by tests with a database, each change in a fork of one warm process, on one server.

Reads orders from standard input, a JSON document a line, and answers each with one:

    {"tests": […]}                                the tests as they are: how long each takes, which statements it says
    {"change": 7, "tests": […], "seconds": {…}}   one of `sql_changes`: noticed by whom, survived, or no SQL any more

The template database is made once; a change of a migration has one of its own, which is dropped after it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import hypothesis  # noqa: F401  (imported once, for all forks)
import psycopg
import pydantic  # noqa: F401
import pytest
from psycopg import sql
from tests.memory import quick_place
from tests.mutants.changes import Change, sql_changes
from tests.planted.patches import ROOT, copy_of_sources

_NO_SQL = re.compile(
    r"errors\.(Syntax|Undefined|Datatype|Grouping|Ambiguous|InvalidColumn|FeatureNot|Windowing|InvalidFunction)"
    r"|syntax error at|operator does not exist|SQLSTATE 42|could not identify an? |is not what this version needs"
)
_ARGUMENTS = (
    "-p",
    "xdist.plugin",
    "-p",
    "anyio.pytest_plugin",
    "-p",
    "no:cacheprovider",
    "-n",
    "0",
    "-q",
    "-x",
)
# What a test may take beside what it took undisturbed: a change may make a statement endless.
_SECONDS, _FACTOR = 30, 15
_CONFTEST = str(ROOT / "tests" / "conftest.py")


class Witness:
    """A plugin that keeps the databases of one session, and notes what the tests do."""

    def __init__(self, session: str, usual: dict[str, float]) -> None:
        self._session, self._usual = session, usual
        self._now = ""
        self.seconds: dict[str, float] = {}
        self.said: dict[str, list[str]] = {}
        self.texts: dict[str, str] = {}
        self.failed: tuple[str, str] | None = None

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        """Work in the session of the warm process, in which the template is there already."""
        self._enter(config, self._session)

    @pytest.hookimpl(tryfirst=True)
    def pytest_unconfigure(self, config: pytest.Config) -> None:
        """Let the session's own clearing find nothing."""
        self._enter(config, f"{self._session}_is_kept")

    def _enter(self, config: pytest.Config, session: str) -> None:
        plugins = config.pluginmanager.get_plugins()
        conftest = next(one for one in plugins if getattr(one, "__file__", None) == _CONFTEST)
        config.stash[conftest.SESSION] = session

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Give a test its time."""
        self._now = nodeid
        signal.alarm(int(_SECONDS + _FACTOR * self._usual.get(nodeid, _SECONDS)))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note how long it took, and the first failure."""
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0) + report.duration
        if report.failed and self.failed is None:
            self.failed = (report.nodeid, str(report.longrepr))

    def listen(self) -> None:
        """Note from now on which statements a test says."""
        from containerstacks_billing.database import statements as queries

        original = queries.query

        def query(name: str) -> Any:
            self.texts[name] = original(name)
            said = self.said.setdefault(self._now, [])
            if name not in said:
                said.append(name)
            return self.texts[name]

        queries.query = query  # type: ignore[assignment]


def _test(sources: Path, order: dict[str, Any], session: str, listening: bool) -> dict[str, Any]:
    """Run the tests on a copy of the sources; to be called in a fork."""
    sys.path.insert(0, str(sources))
    os.environ["PYTHONPATH"] = f"{sources}{os.pathsep}{ROOT}"
    witness = Witness(session, order.get("seconds", {}))
    if listening:
        witness.listen()
    code = pytest.main([*_ARGUMENTS, *order["tests"]], plugins=[witness])
    if listening:
        return {
            "code": int(code),
            "seconds": witness.seconds,
            "said": witness.said,
            "texts": witness.texts,
            "failed": witness.failed,
        }
    if witness.failed is None:
        return {"outcome": "survived" if code == 0 else "no SQL", "by": f"pytest ended with {int(code)}"}
    by, how = witness.failed
    return {"outcome": "no SQL" if _NO_SQL.search(how) else "noticed", "by": by}


def in_a_fork(
    sources: Path, order: dict[str, Any], session: str, answer: Path, listening: bool
) -> dict[str, Any]:
    """Answer an order; a test that never ends has noticed, too."""
    answer.unlink(missing_ok=True)
    child = os.fork()
    if not child:
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nothing, descriptor)
        answer.write_text(json.dumps(_test(sources, order, session, listening)))
        os._exit(0)
    os.waitpid(child, 0)
    if not answer.exists():
        return {"outcome": "noticed", "by": "a test that did not end"}
    document: dict[str, Any] = json.loads(answer.read_text())
    return document


def _databases(server: str, session: str) -> set[str]:
    with psycopg.connect(server, autocommit=True) as conn:
        made = conn.execute("select datname from pg_database where datname like %s", [f"{session}_%"])
        return {name for (name,) in made.fetchall()}


def _drop(server: str, names: set[str]) -> None:
    """Drop what a test that was ended left, and whoever is still at work there."""
    with psycopg.connect(server, autocommit=True) as conn:
        for name in names:
            conn.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def main() -> None:
    """Answer orders until there are no more."""
    sys.dont_write_bytecode = True
    server, session = os.environ["TEST_DATABASE_URL"], f"billing_test_mutants{os.getpid()}"
    changes: list[Change] = list(sql_changes(ROOT))
    kept: set[str] = set()
    with tempfile.TemporaryDirectory(prefix="containerstacks-mutant-", dir=quick_place()) as place:
        sources = copy_of_sources(Path(place))
        for line in sys.stdin:
            order, began = json.loads(line), time.monotonic()
            number = order.get("change")
            if number is None:
                said = in_a_fork(sources, order, session, Path(place) / "answer", listening=True)
                kept = _databases(server, session)
            else:
                file = sources.parent / changes[number].path
                before = file.read_text()
                changes[number].apply(sources.parent)
                said = in_a_fork(sources, order, session, Path(place) / "answer", listening=False)
                file.write_text(before)
                # Only the template of the product as it is stays.
                _drop(server, _databases(server, session) - kept)
            print(json.dumps({**said, "took": time.monotonic() - began}), flush=True)


if __name__ == "__main__":
    main()
