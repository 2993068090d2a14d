"""The verdict: who bills, since when, who takes over and when, what is wrong, what to do. One value for every face.

`verdict_of` derives it once from what the tables say. `status`, `doctor`, the page, the health API and the metrics show
it and derive nothing themselves. It decides nothing about billing: built-in billing decides by failover.py, from the
same reading. The sentences of a verdict are in sentences.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from containerstacks_billing.settings import Settings
from containerstacks_billing.status.failover import (
    INTERVAL,
    FailoverTarget,
    failover_target,
    happened_within,
    heartbeat_is_fresh,
    host_bills,
)
from containerstacks_billing.status.model import Health, Limits, limits_of


class Biller(StrEnum):
    """What bills at present."""

    DAEMON = "daemon"
    BUILT_IN = "built-in"
    HOST = "host"
    NOBODY = "nobody"


class Condition(StrEnum):
    """The condition of the daemon: `silent` while failover waits, `gone` from then on, `absent` when none reported."""

    ABSENT = "absent"
    RUNNING = "running"
    ERROR = "error"
    STOPPED = "stopped"
    SILENT = "silent"
    GONE = "gone"


class Tone(StrEnum):
    """The severity of a state; the page derives colour and sign from it."""

    GOOD = "good"
    BUSY = "busy"
    QUIET = "quiet"
    WARNING = "warning"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that needs attention: title, meaning, and the command to go on with. Names no customer, no figure."""

    tone: Tone
    title: str
    text: str
    command: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The state of billing at `now`.

    `since` is when the biller began, or when the last heartbeat was where nothing bills. `takeover_at` is when the
    failover target takes over; None where nothing does, or where no daemon ever reported. `next_run` is None where no
    run is planned. `run_in_progress` means an open run whose holder has the lease. `is_stale`: the heartbeat is
    `failover_after` old. `success_is_late` and `run_is_late`: no run has completed, or ended, for `late_after`.
    `problems` has the worst first.
    """

    now: datetime
    limits: Limits
    biller: Biller
    condition: Condition
    since: datetime | None
    daemon_id: str | None
    heartbeat_at: datetime | None
    failover: FailoverTarget
    takeover_at: datetime | None
    next_run: datetime | None
    run_in_progress: bool
    is_stale: bool
    success_is_late: bool
    run_is_late: bool
    has_history: bool
    trigger: str | None = None
    problems: tuple[Problem, ...] = ()


# A run by hand has no biller of its own: it ends, and what bills on schedule remains.
_BILLERS = {"daemon": Biller.DAEMON, "built-in": Biller.BUILT_IN}


def verdict_of(health: Health, settings: Settings) -> Verdict:
    """Derive the verdict from what the tables say and the time limits of these settings."""
    limits, reading = limits_of(settings), health.failover
    condition = _condition(health, limits)
    target = failover_target(reading, limits.failover_after)
    beat, running = reading.heartbeat_at, _run_is_in_progress(health)
    biller = _biller(health, condition, limits.failover_after)
    takes_over = beat + target.after if beat is not None and target.who != "nobody" else None
    run_is_late, success_is_late = _run_is_late(health, limits.late_after), _success_is_late(health, limits)
    return Verdict(
        now=health.now,
        limits=limits,
        biller=biller,
        condition=condition,
        since=_since(health, biller, takes_over),
        daemon_id=health.daemon.daemon_instance_id if health.daemon else None,
        heartbeat_at=beat,
        failover=target,
        takeover_at=takes_over,
        next_run=_next_run(health, biller, condition, limits.interval),
        run_in_progress=running,
        is_stale=not heartbeat_is_fresh(reading, limits.failover_after),
        success_is_late=success_is_late,
        run_is_late=run_is_late,
        has_history=any((health.daemon, health.last_finished, health.in_progress)),
        trigger=health.in_progress.trigger if health.in_progress and running else None,
        problems=tuple(
            sorted(
                _problems(health, biller, condition, limits, late=run_is_late),
                key=lambda one: one.tone is not Tone.BAD,
            )
        ),
    )


def _condition(health: Health, limits: Limits) -> Condition:
    row, beat = health.daemon, health.failover.heartbeat_at
    if row is None:
        return Condition.ABSENT
    if row.status == "stopped":
        return Condition.STOPPED
    if beat is None or health.now - beat >= limits.failover_after:
        return Condition.GONE
    if health.now - beat >= limits.silent_after:
        return Condition.SILENT
    return Condition.ERROR if row.status == "error" else Condition.RUNNING


def _biller(health: Health, condition: Condition, failover_after: timedelta) -> Biller:
    """Return the current biller: the holder of an open run, a living daemon, built-in billing, or the host itself."""
    reading = health.failover
    if _run_is_in_progress(health) and health.in_progress and health.in_progress.trigger in _BILLERS:
        return _BILLERS[health.in_progress.trigger]
    if condition in {Condition.RUNNING, Condition.ERROR}:
        return Biller.DAEMON
    if heartbeat_is_fresh(reading, failover_after):
        return Biller.NOBODY
    if happened_within(2 * INTERVAL, reading.built_in_run_at, reading.now):
        return Biller.BUILT_IN
    return Biller.HOST if host_bills(reading) else Biller.NOBODY


def _run_is_in_progress(health: Health) -> bool:
    return health.in_progress is not None and health.in_progress.holder == health.lease.holder


def _since(health: Health, biller: Biller, takes_over: datetime | None) -> datetime | None:
    if biller is Biller.DAEMON:
        return health.daemon.started_at if health.daemon else None
    return takes_over if biller is Biller.BUILT_IN else health.failover.heartbeat_at


def _next_run(health: Health, biller: Biller, condition: Condition, interval: timedelta) -> datetime | None:
    """Return the instant that the daemon announced, else an interval after its last run; the built-in's own hour."""
    if biller is Biller.BUILT_IN:
        begun = health.failover.built_in_run_at
        return begun + INTERVAL if begun is not None else None
    row = health.daemon
    if row is None or condition not in {Condition.RUNNING, Condition.ERROR, Condition.SILENT}:
        return None
    with suppress(ValueError):
        announced = datetime.fromisoformat(row.next_run_at or "")
        if announced.tzinfo is not None:
            return announced
    return row.last_run_at + interval if row.last_run_at else None


def _run_is_late(health: Health, late_after: timedelta) -> bool:
    """Whether the daemon has ended no run for so long; without a daemon, whether nothing has.

    A daemon that never ran had time since it started.
    """
    row, last = health.daemon, health.last_finished
    if row is None:
        since = (last.finished_at or last.started_at) if last else None
    else:
        since = row.last_run_at or row.started_at
    return since is None or health.now - since >= late_after


def _success_is_late(health: Health, limits: Limits) -> bool:
    last = health.last_successful
    return last is None or health.now - last.as_of > limits.late_after


def _problems(
    health: Health, biller: Biller, condition: Condition, limits: Limits, *, late: bool
) -> Iterator[Problem]:
    outcome = health.last_finished.outcome if health.last_finished else None
    if outcome == "held":
        yield Problem(
            Tone.BAD,
            "The last run was held",
            "It differed too much from the runs before it, so nothing was charged. Examine it, then release it.",
            "containerstacks-billing release --dry-run",
        )
    if outcome == "failed":
        yield Problem(
            Tone.BAD,
            "The last run failed",
            "What it did not charge stays due, and the next run charges it.",
            "containerstacks-billing runs",
        )
    # A daemon reports an error because its run was held or failed; that has been said.
    if condition is Condition.ERROR and outcome not in {"held", "failed"}:
        yield Problem(
            Tone.BAD,
            "The daemon reports an error",
            "It is alive, but billing does not succeed.",
            "containerstacks-billing doctor",
        )
    if condition is Condition.SILENT:
        yield Problem(
            Tone.WARNING,
            f"No heartbeat for {_minutes(limits.silent_after)}+ minutes",
            "Several heartbeats in a row are missing: the daemon has ended, hangs, or cannot reach the database.",
            "systemctl status containerstacks-billing",
        )
    if late and health.daemon is not None:
        yield _late_run(biller, condition, limits)
    if health.in_progress is not None and not _run_is_in_progress(health):
        yield Problem(
            Tone.WARNING,
            "A run was left open",
            "It holds no lease, so it charges nothing any more. The next run closes it and charges what is due.",
            "containerstacks-billing runs",
        )
    if condition in {Condition.RUNNING, Condition.ERROR} and host_debits_beside(health):
        yield Problem(
            Tone.WARNING,
            "The host application bills too",
            "Its scheduler debited a wallet while the daemon was alive. Hours that both charge are charged twice.",
            "containerstacks-billing verify",
        )


def _late_run(biller: Biller, condition: Condition, limits: Limits) -> Problem:
    text = {
        Condition.STOPPED: "It is stopped.",
        Condition.SILENT: "It has probably failed: its heartbeat is missing as well.",
        Condition.GONE: "It has probably failed.",
    }.get(condition, "It is alive, but no run of it has ended; its log names the reason.")
    text += {
        Biller.BUILT_IN: " Built-in billing provides automatic failover.",
        Biller.HOST: " The host application’s own scheduler provides failover.",
    }.get(biller, "")
    verb = "start" if condition is Condition.STOPPED else "status"
    return Problem(
        Tone.BAD if biller is Biller.NOBODY and condition is Condition.GONE else Tone.WARNING,
        f"The daemon hasn’t run in {_minutes(limits.late_after)}+ minutes",
        text,
        f"systemctl {verb} containerstacks-billing",
    )


def host_debits_beside(health: Health) -> bool:
    """Whether the host's scheduler debited a wallet within two hours, after the daemon had started."""
    debited, row = health.failover.host_debit_at, health.daemon
    started = row.started_at if row else None
    return (
        debited is not None
        and started is not None
        and debited > started
        and happened_within(2 * INTERVAL, debited, health.now)
    )


def _minutes(time: timedelta) -> int:
    return round(time.total_seconds() / 60)
