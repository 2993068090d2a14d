"""Failover: whether built-in billing bills now, decided from what the tables say.

Two processes must never need to agree by talking: they read the same rows and come to the same decision. The newest
heartbeat says whether a daemon is alive; the last built-in run says whether another replica has done this hour's
work; recent debits of the host say whether the host's own, un-fenced built-in billing would wake up beside ours. A
wrong decision costs nothing but work, since the charging transaction refuses to charge an hour twice; not billing when
billing is due costs at most an interval, because everything unrated is charged at the next run.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal

# Built-in billing looks at least this often, so that it takes over within a minute.
CHECK_SECONDS = 60.0
INTERVAL = timedelta(hours=1)
# A run that failed is worth another attempt before the hour is over, but not every minute.
RETRY = timedelta(minutes=5)
# The host bills hourly and debits whenever an instance is created; after a week of neither, its scheduler is gone.
HOST_IS_RECENT = timedelta(days=7)

ACTIVE_SENTENCE = "Billing daemon is active, skipping built-in billing"


class Decision(StrEnum):
    """What built-in billing does now."""

    BILL = "bill"
    DAEMON_ACTIVE = "daemon-active"
    NOT_DUE = "not-due"
    SWITCHED_OFF = "switched-off"
    HOST_BILLS = "host-bills"
    CANNOT_TELL = "cannot-tell"


@dataclass(frozen=True, slots=True)
class Reading:
    """What the tables say at `now`, the database's clock.

    `heartbeat_at` is the newest heartbeat of any daemon, never ahead of `now`; None when none ever reported.
    `last_run_at` and `last_outcome` are of the last built-in run of any replica; the outcome of a run that is still
    open, or whose process died, is None. `host_debit_at` is the host's last debit of its own.
    """

    now: datetime
    heartbeat_at: datetime | None = None
    last_run_at: datetime | None = None
    last_outcome: str | None = None
    host_debit_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision, the sentence that says why, and after how many seconds it may change by itself."""

    decision: Decision
    sentence: str
    seconds_until_change: float


def heartbeat_is_fresh(reading: Reading, failover_after: timedelta) -> bool:
    """Whether a daemon counts as active: its newest heartbeat is less than `failover_after` old."""
    return reading.heartbeat_at is not None and reading.now - reading.heartbeat_at < failover_after


def decide(
    reading: Reading, failover_after: timedelta, switch: Literal["auto", "on", "off"] = "auto"
) -> Verdict:
    """Decide whether built-in billing bills now."""
    if switch == "off":
        return Verdict(
            Decision.SWITCHED_OFF, "Built-in billing is switched off (BUILT_IN_BILLING=off)", CHECK_SECONDS
        )
    if reading.heartbeat_at is not None and heartbeat_is_fresh(reading, failover_after):
        silent_in = reading.heartbeat_at + failover_after - reading.now
        return Verdict(Decision.DAEMON_ACTIVE, ACTIVE_SENTENCE, silent_in.total_seconds())
    if switch == "auto" and host_bills(reading):
        return Verdict(
            Decision.HOST_BILLS,
            "The host application debits wallets by itself, so its own built-in billing takes over and ours stays off "
            "(BUILT_IN_BILLING=auto)",
            CHECK_SECONDS,
        )
    due_in = _due_in(reading)
    if due_in > timedelta(0):
        return Verdict(
            Decision.NOT_DUE,
            "Built-in billing has billed within the interval; the next run is not due yet",
            due_in.total_seconds(),
        )
    silence = (
        "No billing daemon has ever reported"
        if reading.heartbeat_at is None
        else "The billing daemon is silent"
    )
    return Verdict(Decision.BILL, f"{silence}, built-in billing bills", CHECK_SECONDS)


def host_bills(reading: Reading) -> bool:
    """Whether the host's own built-in billing seems to be alive: it debited a wallet within the last week."""
    return reading.host_debit_at is not None and reading.now - reading.host_debit_at < HOST_IS_RECENT


@dataclass(frozen=True, slots=True)
class Fallback:
    """Which built-in billing takes over when the daemon falls silent: `who` is ours, host, both or nobody.

    `advice` says what to set, and `is_sound` is False where somebody should.
    """

    who: Literal["ours", "host", "both", "nobody"]
    sentence: str
    advice: str
    is_sound: bool = True


def fallback(reading: Reading, switch: Literal["auto", "on", "off"] = "auto") -> Fallback:
    """Say which built-in billing it is, the application side's or the host's own, and what to set for another."""
    seen = f"the host application debited a wallet by itself within {HOST_IS_RECENT.days} days"
    unseen = f"the host application has debited no wallet by itself for {HOST_IS_RECENT.days} days"
    if not host_bills(reading):
        if switch == "off":
            return Fallback(
                "nobody",
                f"nobody takes over when the daemon is silent: {unseen}, and BUILT_IN_BILLING=off",
                "Set BUILT_IN_BILLING=auto for `serve`, or make sure that the host's scheduler runs.",
                is_sound=False,
            )
        return Fallback(
            "ours",
            f"ours takes over when the daemon is silent (BUILT_IN_BILLING={switch})",
            "It lives in `serve`. Where the host's own scheduler is to take over: BUILT_IN_BILLING=off.",
        )
    if switch == "on":
        return Fallback(
            "both",
            f"ours and the host's may both take over: {seen}, and BUILT_IN_BILLING=on",
            "Stop the host's scheduler, or set BUILT_IN_BILLING=auto and leave it to the host.",
            is_sound=False,
        )
    return Fallback(
        "host",
        f"the host's own takes over, ours stays off: {seen} (BUILT_IN_BILLING={switch})",
        "To use ours, which a lease guards, stop the host's scheduler and set BUILT_IN_BILLING=on.",
    )


def _due_in(reading: Reading) -> timedelta:
    """How long until the next built-in run; zero or less when it is due.

    A run that is open or was interrupted counts as not having happened: if its process lives it holds the lease, and if
    it does not, somebody has to finish the work. A clock that went back makes no debt of waiting.
    """
    if reading.last_run_at is None or reading.last_outcome in {None, "interrupted"}:
        return timedelta(0)
    pause = RETRY if reading.last_outcome == "failed" else INTERVAL
    return min(reading.last_run_at + pause - reading.now, pause)


def pause_seconds(verdict: Verdict, check_seconds: float = CHECK_SECONDS) -> float:
    """How long to wait before looking again: until the decision can change, a second at least, a minute at most."""
    return max(min(verdict.seconds_until_change, check_seconds), min(1.0, check_seconds))


class HeartbeatClamp:
    """Clamps a heartbeat from the future to the moment when it was first seen.

    Counted as of now for ever, one row written while a clock was wrong would keep built-in billing off for ever. A
    daemon that lives writes another heartbeat soon; one that died does not, and is silent from when its last was seen.
    """

    def __init__(self) -> None:
        self._ahead: str | None = None
        self._first_seen: datetime | None = None

    def clamp(self, now: datetime, heartbeat_at: datetime | None, ahead: str | None) -> datetime | None:
        """Return the newest heartbeat, none ahead of `now`."""
        if ahead != self._ahead:
            self._ahead, self._first_seen = ahead, now if ahead is not None else None
        seen = [at for at in (heartbeat_at, self._first_seen) if at is not None]
        return min(max(seen), now) if seen else None
