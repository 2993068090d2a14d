"""Progress of the billing loop, read by the heartbeat and the watchdog.

*Silence* is the time without progress (see model.py); it decides whether the heartbeat goes on. *Stall* is
the time since the loop last took any step at all, failed attempts and their pauses included; it decides whether the
watchdog is fed. A database that is away makes the daemon silent but not stalled, and a restart would not help.
"""

from __future__ import annotations

import threading
from datetime import UTC
from typing import Any

from containerstacks_billing.charging.model import Progress, RunResult
from containerstacks_billing.clock import Clock
from containerstacks_billing.daemon.model import Beat, DaemonStatus, LastRun, facts_of, judge, problem_of


class LoopProgress:
    """Written by the billing loop and its workers, read by heartbeat and watchdog."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._started_at = self._progress_at = self._step_at = clock.monotonic()
        self._waiting_until: float | None = None
        self._next_at: float | None = None
        self._last_run = LastRun()
        self._problem: str | None = None
        self._under_way: dict[str, Any] | None = None

    # Written by the billing loop.

    def restore(self, last_run: LastRun, problem: str | None) -> None:
        """Restore the facts that another process left, unless this one has facts of its own."""
        with self._lock:
            if self._last_run == LastRun() and self._problem is None:
                self._last_run, self._problem = last_run, problem

    def waiting(self, until: float) -> None:
        """The loop waits for a tick, which is progress until the tick is due."""
        with self._lock:
            self._waiting_until = self._next_at = self._step_at = until

    def retrying(self, at: float) -> None:
        """The loop pauses before it tries again, which is a step but no progress."""
        with self._lock:
            self._next_at = self._step_at = at

    def started(self) -> None:
        """The loop attempts a run."""
        now = self._clock.monotonic()
        with self._lock:
            if self._waiting_until is not None:
                self._progress_at = max(self._progress_at, min(now, self._waiting_until))
            self._waiting_until, self._next_at, self._step_at = None, None, now

    def progressed(self, run_id: int | None, progress: Progress) -> None:
        """A batch was committed, or the batches of a run are planned."""
        now = self._clock.monotonic()
        with self._lock:
            self._step_at = now
            if progress.batches:
                self._progress_at = now
            self._under_way = {
                "run_id": run_id,
                "instances": progress.instances,
                "instances_planned": progress.instances_planned,
                "batches": progress.batches,
                "batches_planned": progress.batches_planned,
            }

    def ended(self, result: RunResult) -> None:
        """A run came to its end. One that was held or failed in part counts: the loop works, and says what is wrong."""
        now = self._clock.monotonic()
        with self._lock:
            self._progress_at = self._step_at = now
            self._under_way = None
            self._last_run, self._problem = facts_of(result), problem_of(result)

    def failed(self, problem: str | None) -> None:
        """An attempt ended without a run; `problem` is None where nothing is wrong: another biller is at work."""
        now = self._clock.monotonic()
        with self._lock:
            self._step_at = now
            self._under_way = None
            self._problem = problem or self._problem

    # Read by heartbeat and watchdog.

    def stalled_seconds(self) -> float:
        """Return how long the loop is overdue with its next step."""
        now = self._clock.monotonic()
        with self._lock:
            return max(0.0, now - self._step_at)

    def silent_seconds(self) -> float:
        """Return the time without progress."""
        now = self._clock.monotonic()
        with self._lock:
            return self._silence(now)

    def beat(
        self, instance_id: str, failover_seconds: float, metadata: dict[str, Any], *, stopped: bool
    ) -> Beat:
        """Return the heartbeat of this moment."""
        now = self._clock.monotonic()
        with self._lock:
            status, message, silent = judge(self._problem, self._silence(now), failover_seconds)
            if stopped:
                # The loop has ended, so its silence means nothing; what went wrong before stays readable.
                status, message, silent = DaemonStatus.STOPPED, self._problem, 0.0
            last = self._last_run
            facts = {
                "run_id": last.run_id,
                "outcome": last.outcome,
                "last_run_ended_at": last.ended_at.astimezone(UTC).isoformat() if last.ended_at else None,
                "under_way": self._under_way,
            }
            until_next = None if stopped or self._next_at is None else max(0.0, self._next_at - now)
            success = last.success if self._problem is None else False
            return Beat(
                instance_id=instance_id,
                status=status,
                silent_seconds=silent,
                up_seconds=now - self._started_at,
                next_seconds=until_next,
                last_run=last,
                last_run_success=success if last.ended_at or self._problem else None,
                error_message=message,
                metadata=metadata | facts,
            )

    def _silence(self, now: float) -> float:
        if self._waiting_until is not None:
            return max(0.0, now - self._waiting_until)
        return max(0.0, now - self._progress_at)
