"""Failover: whether built-in billing bills now, and what takes over when the daemon falls silent.

Daemon and application sides agree without a message between them: they read the same rows and come to the same
decision. The newest heartbeat says whether a daemon is alive; the last built-in run says whether another application
side has billed this hour; recent debits of the host say whether the host's own scheduler, which no lease stops, bills.
A wrong decision costs nothing but work, since the charging transaction refuses to charge an hour twice; not billing
when billing is due costs an interval at most, because everything unrated is charged at the next run.

Nothing is named as a successor that has given no sign of life: an application side reports at each of its looks, the
host's scheduler shows by what it debits.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal

Switch = Literal["auto", "on", "off"]

# Built-in billing looks at least this often, so that it takes over within a minute.
CHECK_SECONDS = 60.0
INTERVAL = timedelta(hours=1)
# A run that failed is worth another attempt before the hour is over, but not every minute.
RETRY = timedelta(minutes=5)
# The host's scheduler debits hourly while it bills; after a week without such a debit it counts as gone.
HOST_IS_RECENT = timedelta(days=7)
# The host's scheduler has this threshold written into its code.
HOST_FAILOVER_AFTER = timedelta(minutes=90)
# After a clock was set back, what was written before is ahead of it. This much counts as now, more as unknown.
CLOCK_TOLERANCE = timedelta(minutes=90)

ACTIVE_SENTENCE = "Billing daemon is active, skipping built-in billing"


class Decision(StrEnum):
    """What built-in billing does now, or why it does nothing."""

    BILL = "bill"
    DAEMON_ACTIVE = "daemon-active"
    NOT_DUE = "not-due"
    SWITCHED_OFF = "switched-off"
    HOST_BILLS = "host-bills"
    CANNOT_TELL = "cannot-tell"


@dataclass(frozen=True, slots=True)
class ApplicationSide:
    """An application side that looked within the last minutes: its BUILT_IN_BILLING and its failover threshold."""

    holder: str
    setting: Switch
    failover_after: timedelta
    looked_at: datetime


@dataclass(frozen=True, slots=True)
class Reading:
    """What the tables say about billers at `now`, the database's clock.

    `heartbeat_at` is the newest heartbeat of any daemon, never ahead of `now`; None when none ever reported.
    `built_in_run_at` and `built_in_outcome` are of the last run of any application side; the outcome of a run that is
    open, or whose process died, is None. `host_debit_at` is the last debit of the host's scheduler.
    """

    now: datetime
    heartbeat_at: datetime | None = None
    built_in_run_at: datetime | None = None
    built_in_outcome: str | None = None
    host_debit_at: datetime | None = None
    application_sides: tuple[ApplicationSide, ...] = ()


@dataclass(frozen=True, slots=True)
class FailoverDecision:
    """A decision, the sentence that says why, and after how many seconds it may change by itself."""

    decision: Decision
    sentence: str
    seconds_until_change: float


@dataclass(frozen=True, slots=True)
class FailoverTarget:
    """What takes over `after` so much silence of the daemon: sentence, reason, and what to set for another.

    `is_sound` is False where nothing would take over, or two would.
    """

    who: Literal["built-in", "host", "both", "nobody"]
    after: timedelta
    sentence: str
    reason: str
    advice: str
    is_sound: bool = True

    @property
    def explained(self) -> str:
        """The sentence with its reason, without a full stop."""
        return f"{self.sentence}: {self.reason}"


def heartbeat_is_fresh(reading: Reading, failover_after: timedelta) -> bool:
    """Whether a daemon counts as active: its newest heartbeat is less than `failover_after` old."""
    return reading.heartbeat_at is not None and reading.now - reading.heartbeat_at < failover_after


def host_bills(reading: Reading) -> bool:
    """Whether the host's own scheduler seems to be alive: it debited a wallet within the last week."""
    return happened_within(HOST_IS_RECENT, reading.host_debit_at, reading.now)


def happened_within(span: timedelta, at: datetime | None, now: datetime) -> bool:
    """Whether something happened less than a span ago; what is a little ahead of the clock happened now."""
    return at is not None and -CLOCK_TOLERANCE <= now - at < span


def decide(reading: Reading, failover_after: timedelta, switch: Switch = "auto") -> FailoverDecision:
    """Decide whether built-in billing bills now."""
    if switch == "off":
        return FailoverDecision(
            Decision.SWITCHED_OFF, "Built-in billing is switched off (BUILT_IN_BILLING=off)", CHECK_SECONDS
        )
    if reading.heartbeat_at is not None and heartbeat_is_fresh(reading, failover_after):
        silent_in = reading.heartbeat_at + failover_after - reading.now
        return FailoverDecision(Decision.DAEMON_ACTIVE, ACTIVE_SENTENCE, silent_in.total_seconds())
    if switch == "auto" and host_bills(reading):
        return FailoverDecision(
            Decision.HOST_BILLS,
            "The host application debits wallets by itself, so its own built-in billing takes over and ours stays off "
            "(BUILT_IN_BILLING=auto)",
            CHECK_SECONDS,
        )
    due_in = _due_in(reading)
    if due_in > timedelta(0):
        return FailoverDecision(
            Decision.NOT_DUE,
            "Built-in billing has billed within the interval; the next run is not due yet",
            due_in.total_seconds(),
        )
    silence = (
        "No billing daemon has ever reported"
        if reading.heartbeat_at is None
        else "The billing daemon is silent"
    )
    return FailoverDecision(Decision.BILL, f"{silence}, built-in billing bills", CHECK_SECONDS)


def failover_target(reading: Reading, failover_after: timedelta) -> FailoverTarget:
    """Return what takes over when the daemon falls silent, of what has given a sign of life.

    `failover_after` is the caller's own threshold, for where nothing takes over; each application side has its own.
    """
    host, sides = host_bills(reading), reading.application_sides
    ready = [side for side in sides if side.setting == "on" or (side.setting == "auto" and not host)]
    if ready:
        after = min(side.failover_after for side in ready)
        if host:
            return FailoverTarget(
                "both", min(after, HOST_FAILOVER_AFTER),
                "Built-in billing and the host’s own scheduler both take over",
                "an application side has BUILT_IN_BILLING=on, and the host debited a wallet within 7 days",
                "Stop the host's scheduler, or set BUILT_IN_BILLING=auto and leave it to the host.",
                is_sound=False,
            )  # fmt: skip
        return FailoverTarget(
            "built-in", after,
            "Built-in billing takes over",
            f"{_number(len(ready))} with BUILT_IN_BILLING={ready[0].setting} has looked within 5 minutes",
            "Where the host's own scheduler is to take over: BUILT_IN_BILLING=off for the application side.",
        )  # fmt: skip
    if host:
        return FailoverTarget(
            "host", HOST_FAILOVER_AFTER,
            "The host’s own scheduler takes over",
            "it debited a wallet within 7 days, and no application side has BUILT_IN_BILLING=on",
            "To use ours, which a lease guards, stop the host's scheduler and set BUILT_IN_BILLING=on.",
        )  # fmt: skip
    return FailoverTarget(
        "nobody", failover_after,
        "Nothing takes over",
        f"{_number(len(sides))} has looked within 5 minutes, with BUILT_IN_BILLING=off"
        if sides
        else "no application side has looked within 5 minutes, and the host debited no wallet within 7 days",
        "Set BUILT_IN_BILLING=auto for the application side."
        if sides
        else "Start an application side: containerstacks-billing serve",
        is_sound=False,
    )  # fmt: skip


def _number(sides: int) -> str:
    return "an application side" if sides == 1 else f"each of {sides} application sides"


def _due_in(reading: Reading) -> timedelta:
    """Return how long it is until the next built-in run; zero or less when it is due.

    A run that is open or was interrupted counts as not having happened: if its process is alive it holds the lease, and
    if it is not, the work has to be finished. A clock that was set back adds nothing to the pause.
    """
    if reading.built_in_run_at is None or reading.built_in_outcome in {None, "interrupted"}:
        return timedelta(0)
    pause = RETRY if reading.built_in_outcome == "failed" else INTERVAL
    return min(reading.built_in_run_at + pause - reading.now, pause)


def pause_seconds(decision: FailoverDecision, check_seconds: float = CHECK_SECONDS) -> float:
    """Return the pause until the next look: until the decision can change, a second at least, a minute at most."""
    return max(min(decision.seconds_until_change, check_seconds), min(1.0, check_seconds))
