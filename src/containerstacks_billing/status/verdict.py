"""How billing stands, in the words of the status page: what to say first, and what deserves a warning.

`judge` turns what the tables say into one headline and a few notices. It decides nothing about billing; it decides
what a person who opens the page reads first. Texts name no organization, no instance and no figure, so that they may be
shown to everybody.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from containerstacks_billing.status.failover import INTERVAL, host_bills
from containerstacks_billing.status.model import (
    Biller,
    Health,
    Limits,
    biller,
    is_stopped,
    run_is_late,
    silent_for,
)


class Tone(StrEnum):
    """How a state is meant: colour and sign follow from it."""

    GOOD = "good"
    BUSY = "busy"
    QUIET = "quiet"
    WARNING = "warning"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to look at: what is the matter, what it means, and the command that goes on from here."""

    tone: Tone
    title: str
    text: str
    command: str | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """The headline of the page and the notices below it, the worst first."""

    tone: Tone
    headline: str
    text: str
    notices: tuple[Notice, ...] = ()


def judge(health: Health, limits: Limits) -> Judgement:
    """Say who bills and what is the matter."""
    who = biller(health, limits.failover_after)
    never = health.daemon is None and health.last_finished is None and health.in_progress is None
    tone, headline, text = _headline(health, who, limits, never)
    notices = [] if never else list(_notices(health, who, limits))
    worst = sorted(notices, key=lambda notice: notice.tone is not Tone.BAD)
    if worst and who is Biller.DAEMON and tone is Tone.GOOD:
        headline, text = (
            "The billing daemon needs attention",
            "It is alive, so nobody takes over. What is the matter stands below.",
        )
    if worst and (who is Biller.DAEMON or tone is Tone.GOOD):
        tone = worst[0].tone
    return Judgement(tone, headline, text, tuple(worst))


def successor(health: Health, switch: str) -> str:
    """Say who takes over when the daemon falls silent: BUILT_IN_BILLING and the host's own scheduler decide it."""
    if switch == "off":
        return "Counts as silent, and nobody takes over,"
    if switch == "auto" and host_bills(health.failover):
        return "The host’s own billing takes over"
    return "Built-in billing takes over"


def without_heartbeat(health: Health, who: Biller, switch: str) -> str:
    """Say what happens where no daemon ever sent a heartbeat: nobody waits for one."""
    if who is Biller.BUILT_IN:
        return "Built-in billing bills until one comes"
    if switch == "off":
        return "Nobody takes over: BUILT_IN_BILLING=off"
    if switch == "auto" and host_bills(health.failover):
        return "The host’s own billing goes on until one comes"
    return "Built-in billing takes over at once"


def is_running(health: Health) -> bool:
    """Whether a run is under way: it is open, and somebody holds the lease."""
    return health.in_progress is not None and health.lease.holder is not None


def next_run(health: Health, who: Biller, interval: timedelta) -> datetime | None:
    """When the next run is due: what the daemon announced, else an interval after the last; None when nobody will."""
    if who is Biller.BUILT_IN and health.failover.last_run_at is not None:
        return health.failover.last_run_at + INTERVAL
    row = health.daemon
    if who is not Biller.DAEMON or row is None or row.status == "stopped":
        return None
    if row.next_run_at:
        with suppress(ValueError):
            announced = datetime.fromisoformat(row.next_run_at)
            if announced.tzinfo is not None:
                return announced
    return row.last_run_at + interval if row.last_run_at else None


def _headline(health: Health, who: Biller, limits: Limits, never: bool) -> tuple[Tone, str, str]:
    without = health.daemon is None
    if never and who is Biller.NOBODY:
        return (
            Tone.QUIET,
            "Waiting for the first run",
            "No billing daemon has reported yet, and nothing has been billed. Start the daemon; it bills at once.",
        )
    if who is Biller.DAEMON:
        return _headline_of_daemon(health, limits)
    if who is Biller.BUILT_IN:
        if without:
            return (
                Tone.GOOD,
                "Built-in billing is on duty",
                "No billing daemon has ever reported, so the application bills every hour until one does.",
            )
        return (
            Tone.WARNING,
            "Built-in billing has taken over",
            "The daemon is silent, so the application bills every hour until a heartbeat returns. No hour is lost.",
        )
    if who is Biller.HOST:
        why = "No billing daemon has ever reported" if without else "The daemon is silent"
        return (
            Tone.WARNING,
            "The host application bills by itself",
            f"{why}, and the host’s own scheduler debits wallets, so built-in billing stays off.",
        )
    why = (
        "No billing daemon has ever reported"
        if without
        else f"No heartbeat for {_minutes(limits.failover_after)} minutes"
    )
    return (
        Tone.BAD,
        "Nobody is billing",
        f"{why}, and nobody took over. Hours are not lost: the next run charges them.",
    )


def _headline_of_daemon(health: Health, limits: Limits) -> tuple[Tone, str, str]:
    if health.in_progress is not None and is_running(health):
        if health.in_progress.trigger == "daemon":
            return Tone.BUSY, "The billing daemon is billing now", "A run is under way."
        return Tone.BUSY, "A run is under way", "The daemon did not begin it."
    meanwhile = "Until it returns, or somebody takes over, nobody bills. No hour is lost."
    if is_stopped(health):
        return Tone.WARNING, "The billing daemon is stopped", f"Somebody stopped it. {meanwhile}"
    if silent_for(health, limits) is not None:
        return Tone.WARNING, "The billing daemon is silent", f"It has probably failed. {meanwhile}"
    return (
        Tone.GOOD,
        "The billing daemon is on duty",
        "It is alive and bills on schedule, so nobody else does.",
    )


def _minutes(time: timedelta) -> int:
    return round(time.total_seconds() / 60)


def _notices(health: Health, who: Biller, limits: Limits) -> list[Notice]:
    return [*_of_the_last_run(health), *_of_the_daemon(health, who, limits), *_of_an_open_run(health)]


def _of_the_last_run(health: Health) -> list[Notice]:
    outcome = health.last_finished.outcome if health.last_finished else None
    if outcome == "held":
        return [
            Notice(
                Tone.BAD,
                "The last run was held",
                "It looked unlike the runs before it, so nothing was charged. Somebody has to look and release it.",
                "containerstacks-billing release --dry-run",
            )
        ]
    if outcome == "failed":
        return [
            Notice(
                Tone.BAD,
                "The last run failed",
                "What it did not charge stays due, and the next run charges it.",
                "journalctl -u containerstacks-billing -p err",
            )
        ]
    return []


def _of_the_daemon(health: Health, who: Biller, limits: Limits) -> list[Notice]:
    """What is the matter with the daemon; one that never was has no faults."""
    if health.daemon is None:
        return []
    found: list[Notice] = []
    silent = silent_for(health, limits) is not None
    if silent:
        found.append(
            Notice(
                Tone.WARNING,
                f"No heartbeat for {_minutes(limits.silent_after)}+ minutes",
                "Several in a row are missing: the daemon has ended, hangs, or does not reach the database.",
                "systemctl status containerstacks-billing",
            )
        )
    # A run that was held or failed is the error, and has been said.
    if health.daemon.status == "error" and not _of_the_last_run(health):
        alive = who is Biller.DAEMON and not silent
        found.append(
            Notice(
                Tone.BAD,
                "The daemon reports an error",
                "It is alive, but it does not get on with its work."
                if alive
                else "It said so with its last heartbeat.",
                "containerstacks-billing doctor",
            )
        )
    if run_is_late(health, limits.late_after):
        fresh = "Its heartbeat is fresh; look at what it says."
        after = {
            Biller.DAEMON: "Its heartbeat is missing as well." if silent else fresh,
            Biller.BUILT_IN: "Built-in billing provides automatic failover.",
            Biller.HOST: "The host application’s own billing provides failover.",
            Biller.NOBODY: "Nobody has taken over yet.",
        }[who]
        stopped = is_stopped(health)
        found.append(
            Notice(
                Tone.BAD if who is Biller.NOBODY else Tone.WARNING,
                f"The daemon hasn’t run in {_minutes(limits.late_after)}+ minutes",
                "It is stopped." if stopped and who is Biller.DAEMON else f"It has probably failed. {after}",
                f"systemctl {'start' if stopped else 'status'} containerstacks-billing",
            )
        )
    return found


def _of_an_open_run(health: Health) -> list[Notice]:
    if health.in_progress is None or health.lease.holder is not None:
        return []
    return [
        Notice(
            Tone.WARNING,
            "A run was left open",
            "Its process ended without a word. The next biller closes it and finishes the work.",
        )
    ]
