"""Values of a daemon's status row: the facts of its last run, and whether it makes progress.

A heartbeat promises that billing works, so the billing loop has to be alive and not only the process. Progress is a
batch that was committed, a run that ended, or waiting for a tick that is not due yet. A daemon without progress keeps
its heartbeat for as long as readers would wait for a silent one, and then sets it back to the instant of the last
progress, so that failover happens at once and not that long again later.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any

from containerstacks_billing.charging.model import Outcome, RunResult
from containerstacks_billing.text import counted

# `doctor` recognizes by it that a service that is active does not bill.
ERROR_PREFIX = "error: "


class DaemonStatus(StrEnum):
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
    status: DaemonStatus
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


def describe(beat: Beat, unwritten: str | None = None) -> str:
    """Return the line that `systemctl status` shows; it begins with `error: ` where billing does not succeed.

    `unwritten` is why the heartbeat could not be written.
    """
    last = beat.last_run
    if last.ended_at is None:
        ran = "no run yet"
    else:
        instances = counted(last.instances_billed, "instance")
        ran = f"last run {last.ended_at:%Y-%m-%d %H:%M %Z} {last.outcome}, {instances}, {last.amount:,.2f}"
    if unwritten is not None:
        return f"{ERROR_PREFIX}the heartbeat cannot be written: {unwritten.rstrip('.')}; {ran}"
    if beat.error_message:
        ran = f"{beat.error_message.rstrip('.')}; {ran}"
        if beat.status is DaemonStatus.ERROR:
            ran = f"{ERROR_PREFIX}{ran}"
    if beat.status is DaemonStatus.STOPPED:
        return f"stopped; {ran}"
    under_way = beat.metadata.get("under_way")
    if under_way:
        return f"billing, {under_way['instances']:,} of {under_way['instances_planned']:,} instances; {ran}"
    if beat.next_seconds is None:
        return f"billing; {ran}"
    if beat.next_seconds < 60:
        return f"{ran}; next run in {beat.next_seconds:.0f} s"
    return f"{ran}; next run in {beat.next_seconds / 60:.0f} min"


def _was(outcome: Outcome) -> str:
    return "was held" if outcome is Outcome.HELD else outcome.value


def judge(
    problem: str | None, silent_seconds: float, failover_seconds: float
) -> tuple[DaemonStatus, str | None, float]:
    """Return the status to show, the message to keep, and how many seconds to set the heartbeat back.

    `silent_seconds` is the time without progress, `failover_seconds` the silence after which readers take over.
    """
    if silent_seconds >= failover_seconds:
        message = f"billing has made no progress for {silent_seconds / 60:,.0f} minutes"
        return DaemonStatus.ERROR, f"{message}; {problem}" if problem else message, silent_seconds
    return (DaemonStatus.ERROR if problem else DaemonStatus.RUNNING), problem, 0.0
