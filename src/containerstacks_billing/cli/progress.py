"""Progress displays on standard error: the bar of a run, or lines at growing intervals; the step of a comparison."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn

from containerstacks_billing.charging.model import Progress as RunProgress
from containerstacks_billing.money import display, floor_to_cent

_FIRST_LINE_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 60.0
_BAR_CELLS = 20
_NARROW = 72


@contextmanager
def current_step(console: Console) -> Iterator[Callable[[str], None]]:
    """Show the step that was named last, on a terminal alone; any thread may name one. Nothing of it stays."""
    if not console.is_terminal or console.is_dumb_terminal:
        yield lambda _: None
        return
    with console.status("Reading the books") as status:
        yield status.update


class RunDisplay:
    """Shows one run; `progressed` may be called by any thread. Nothing of the bar stays on the terminal."""

    def __init__(
        self, console: Console, currency: str, stopping: threading.Event, verb: str = "Charging"
    ) -> None:
        self._console = console
        self._currency = currency
        self._stopping = stopping
        self._verb = verb
        self._started: float | None = None
        self._next_line = _FIRST_LINE_SECONDS
        self._bar: Progress | None = None
        self._task = TaskID(0)

    def __enter__(self) -> Self:
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            wide = self._console.width >= _NARROW
            columns = [TextColumn("{task.description}"), *([BarColumn(_BAR_CELLS)] if wide else [])]
            self._bar = Progress(
                SpinnerColumn(),
                *columns,
                TextColumn("{task.fields[facts]}"),
                console=self._console,
                transient=True,
            )
            self._task = self._bar.add_task("Looking for what is due", total=None, facts="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def waiting(self, sentence: str) -> None:
        """Say why nothing happens yet."""
        self._console.print(sentence, soft_wrap=True)

    def progressed(self, progress: RunProgress) -> None:
        """Show how far the run is."""
        now = time.monotonic()
        self._started = self._started or now
        elapsed = now - self._started
        if self._bar is not None:
            self._bar.update(
                self._task,
                description="Stopping" if self._stopping.is_set() else self._verb,
                total=progress.instances_planned or 1,
                completed=min(progress.instances, progress.instances_planned),
                facts=self._facts(progress, elapsed),
            )
        elif elapsed >= self._next_line:
            self._next_line = elapsed + min(elapsed, _LONGEST_PAUSE_SECONDS)
            self._console.print(f"{self._verb}: {self._facts(progress, elapsed)}", soft_wrap=True)

    def _facts(self, progress: RunProgress, elapsed: float) -> str:
        planned = max(progress.instances_planned, progress.instances)
        rate = f" · {progress.instances / elapsed:,.0f}/s" if elapsed >= 1 else ""
        amount = display(floor_to_cent(progress.amount), self._currency)
        done = f"{progress.instances:,}/{planned:,}"
        return f"{done} · batch {progress.batches}/{progress.batches_planned} · {amount}{rate}"
