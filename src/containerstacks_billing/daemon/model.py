"""What a daemon says about itself: the facts of its last run, and whether it makes progress.

A heartbeat is a promise that billing works, so it is not the process that has to live but the billing loop.
Progress is a batch that was committed, a run that came to an end, or waiting for a tick that is not due yet. A
daemon without progress keeps its heartbeat for as long as a reader would believe a silent one, and then takes it
back: the heartbeat is set to the instant of the last progress, and whoever reads it takes over at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any

from containerstacks_billing.charging.model import Outcome, RunResult


class DaemonState(StrEnum):
    """The status column of billing_daemon_status."""

    RUNNING = "running"
    STOPPED = "stopped"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class LastRun:
    """The facts of the last run that came to an end, whatever its outcome."""

    run_id: int | None = None
    ended_at: datetime | None = None
    success: bool | None = None
    outcome: str | None = None
    instances_billed: int = 0
    amount: Decimal = Decimal(0)
    hours: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class Beat:
    """One heartbeat: what is written into the daemon's row.

    `silent_seconds` is how far the heartbeat lies in the past, `up_seconds` the age of the process, `next_seconds`
    the time until the next run, None while one is under way. `last_run_success` is false also where the last
    attempt never became a run.
    """

    instance_id: str
    state: DaemonState
    silent_seconds: float
    up_seconds: float
    next_seconds: float | None
    last_run: LastRun
    last_run_success: bool | None
    error_message: str | None
    metadata: dict[str, Any] = field(default_factory=dict)


def facts_of(result: RunResult) -> LastRun:
    """Return what the status row keeps of a run."""
    return LastRun(
        run_id=result.run_id,
        ended_at=result.as_of + timedelta(seconds=max(result.duration_seconds, 0)),
        success=result.outcome is Outcome.COMPLETED,
        outcome=result.outcome.value,
        instances_billed=result.instances_billed,
        amount=result.amount,
        hours=result.hours,
    )


def problem_of(result: RunResult) -> str | None:
    """Return in a sentence why a run was no success; None when it was one."""
    if result.outcome is Outcome.COMPLETED:
        return None
    if result.outcome is Outcome.INTERRUPTED:
        return f"run {result.run_id} was interrupted; the next run charges what is left"
    reason = result.error_message or "no reason was recorded"
    return reason if reason.startswith("run ") else f"run {result.run_id} {_was(result.outcome)}: {reason}"


def describe(beat: Beat) -> str:
    """Return the line that `systemctl status` shows."""
    last = beat.last_run
    if last.ended_at is None:
        told = "no run yet"
    else:
        instances = "1 instance" if last.instances_billed == 1 else f"{last.instances_billed:,} instances"
        told = f"last run {last.ended_at:%Y-%m-%d %H:%M %Z} {last.outcome}, {instances}, {last.amount:,.2f}"
    if beat.error_message:
        told = f"{beat.error_message.rstrip('.')}; {told}"
    if beat.state is DaemonState.STOPPED:
        return f"stopped; {told}"
    under_way = beat.metadata.get("under_way")
    if under_way:
        return f"billing, {under_way['instances']:,} of {under_way['instances_planned']:,} instances; {told}"
    if beat.next_seconds is None:
        return f"billing; {told}"
    soon = beat.next_seconds < 60
    return (
        f"{told}; next run in {f'{beat.next_seconds:.0f} s' if soon else f'{beat.next_seconds / 60:.0f} min'}"
    )


def _was(outcome: Outcome) -> str:
    return "was held" if outcome is Outcome.HELD else outcome.value


def judge(
    problem: str | None, silent_seconds: float, failover_seconds: float
) -> tuple[DaemonState, str | None, float]:
    """Return the state to show, the message to keep, and how many seconds to set the heartbeat back.

    `silent_seconds` is the time without progress, `failover_seconds` the silence after which readers take over.
    """
    if silent_seconds >= failover_seconds:
        message = f"billing has made no progress for {silent_seconds / 60:,.0f} minutes"
        return DaemonState.ERROR, f"{message}; {problem}" if problem else message, silent_seconds
    return (DaemonState.ERROR if problem else DaemonState.RUNNING), problem, 0.0
