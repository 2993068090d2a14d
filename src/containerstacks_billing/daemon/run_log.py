"""Log lines of a run: its begin, progress at growing intervals, a summary; no line per batch."""

from __future__ import annotations

import threading

from containerstacks_billing import logs
from containerstacks_billing.charging.model import OpenRun, Outcome, Progress, RunResult
from containerstacks_billing.clock import Clock

FIRST_LINE_SECONDS = 10.0
LONGEST_PAUSE_SECONDS = 300.0


class RunLog:
    """Logs one run; `progressed` may be called by any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._run: OpenRun | None = None
        self._began = clock.monotonic()
        self._next_line = FIRST_LINE_SECONDS

    @property
    def run_id(self) -> int | None:
        """The run's number, None before it was opened."""
        return self._run.run_id if self._run else None

    def opened(self, run: OpenRun) -> None:
        """Note which run it is."""
        self._run = run

    def progressed(self, progress: Progress) -> None:
        """Log the plan, and then how far the run is whenever twice as much time has passed."""
        elapsed = self._clock.monotonic() - self._began
        with self._lock:
            if progress.batches == 0:
                self._line("Billing run started", progress, elapsed)
            elif elapsed >= self._next_line:
                self._next_line = elapsed + min(elapsed, LONGEST_PAUSE_SECONDS)
                self._line("Billing run in progress", progress, elapsed)

    def ended(self, result: RunResult) -> None:
        """Log the summary."""
        log = logs.logger()
        says = {
            Outcome.COMPLETED: log.info,
            Outcome.INTERRUPTED: log.warning,
            Outcome.FAILED: log.error,
            Outcome.HELD: log.error,
        }[result.outcome]
        says(
            f"Billing run {result.outcome.value}",
            run=result.run_id,
            token=self._run.fencing_token if self._run else None,
            instances=result.instances_billed,
            hours=round(result.hours, 2),
            amount=result.amount,
            past_due=result.past_due_instances or None,
            quarantined=result.quarantined_instances or None,
            held=result.held_instances or None,
            batches=result.batches,
            seconds=round(result.duration_seconds, 3),
            reason=result.error_message,
        )

    def _line(self, sentence: str, progress: Progress, elapsed: float) -> None:
        logs.logger().info(
            sentence,
            run=self.run_id,
            token=self._run.fencing_token if self._run else None,
            as_of=self._run.as_of.isoformat(timespec="seconds")
            if self._run and not progress.batches
            else None,
            instances=progress.instances if progress.batches else None,
            instances_planned=progress.instances_planned,
            batches=progress.batches or None,
            batches_planned=progress.batches_planned,
            amount=progress.amount if progress.batches else None,
            seconds=round(elapsed, 1) if progress.batches else None,
        )
