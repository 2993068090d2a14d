"""Who judges a change of SQL, and in which order: only tests that say the changed statement, the likeliest and fastest first."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.mutants.changes import Change
from tests.planted.patches import ROOT


class Warm:
    """One warm process; an order goes in, its answer comes out."""

    def __init__(self, server: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.mutants.warm"],
            cwd=ROOT,
            env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "TEST_DATABASE_URL": server},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **order: Any) -> dict[str, Any]:
        """Give an order and wait for its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def end(self) -> None:
        """Let it go."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


@dataclass
class Bench:
    """What is known of the tests: how long each takes undisturbed, what it says, how many changes it noticed so far."""

    seconds: dict[str, float] = field(default_factory=dict)
    said: dict[str, list[str]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    noticed: Counter[str] = field(default_factory=Counter)

    def take(self, answer: dict[str, Any]) -> None:
        """Take in what the tests do when nothing is changed; they have to pass."""
        if answer.get("code") != 0:
            raise SystemExit(f"the tests fail where nothing is changed: {answer.get('failed') or answer}")
        self.seconds = {**answer["seconds"], **self.seconds}
        self.said |= answer["said"]
        self.texts |= answer["texts"]

    @classmethod
    def remembered(cls, files: Sequence[str]) -> Bench:
        """Return what is known since the last time, if nothing has changed since."""
        with contextlib.suppress(OSError):
            known = json.loads(_memory(files).read_text())
            return cls(known["seconds"], known["said"], known["texts"])
        return cls()

    def remember(self, files: Sequence[str]) -> None:
        """Keep it for the next time: on a busy machine it takes minutes to find out."""
        _memory(files).parent.mkdir(exist_ok=True)
        known = {"seconds": self.seconds, "said": self.said, "texts": self.texts}
        _memory(files).write_text(json.dumps(known))

    def judges(self, change: Change) -> list[str]:
        """Return the tests that say the line in question; a function of the triggers is everybody's."""
        names = {name for name, text in self.texts.items() if change.around in text}
        everybody = "migrations" in change.path
        asked = [test for test in self.seconds if everybody or names & set(self.said.get(test, ()))]
        return sorted(asked, key=lambda test: -(self.noticed[test] + 0.2) / (self.seconds[test] + 0.05))


def _memory(files: Sequence[str]) -> Path:
    content = hashlib.sha256()
    sources = [path for kind in ("*.py", "*.sql") for path in (ROOT / "src").rglob(kind)]
    for path in sorted([*sources, ROOT / "tests" / "fleet.py", *(ROOT / file for file in files)]):
        content.update(path.read_bytes())
    return ROOT / ".pytest_cache" / f"judges-{content.hexdigest()[:16]}.json"


def judged(
    orders: Sequence[tuple[int, Change]],
    server: str,
    files: Sequence[str],
    at_once: int,
    minutes: float | None,
) -> Iterator[tuple[Change, str, float, str]]:
    """Yield each change with what was said of it, in how many seconds, and by whom; begin none after so many minutes."""
    bench, until = Bench.remembered(files), None if minutes is None else time.monotonic() + minutes * 60
    warm = [Warm(server) for _ in range(at_once)]
    waiting: queue.SimpleQueue[tuple[int, Change]] = queue.SimpleQueue()
    answers: queue.SimpleQueue[tuple[Change, str, float, str] | None] = queue.SimpleQueue()
    for order in orders:
        waiting.put(order)

    def work(place: int) -> None:
        while until is None or time.monotonic() < until:
            try:
                number, change = waiting.get_nowait()
            except queue.Empty:
                break
            tests = bench.judges(change)
            answer = warm[place].ask(change=number, tests=tests, seconds=bench.seconds) if tests else None
            outcome, by, took = (
                (answer["outcome"], answer["by"], answer["took"]) if answer else ("survived", "nobody", 0.0)
            )
            if outcome == "noticed":
                bench.noticed[by] += 1
            answers.put((change, outcome, took, by))
        answers.put(None)

    try:
        with ThreadPoolExecutor(at_once) as pool:
            # Where all is known, one test is enough to have the template made.
            shares = [
                [next(iter(bench.seconds))] if bench.seconds else list(files[place::at_once])
                for place in range(at_once)
            ]
            for answer in pool.map(lambda one, share: one.ask(tests=share), warm, shares):
                bench.take(answer)
        bench.remember(files)
        threads = [threading.Thread(target=work, args=(place,)) for place in range(at_once)]
        for thread in threads:
            thread.start()
        for _ in threads:
            yield from iter(answers.get, None)
    finally:
        for process in warm:
            process.end()
