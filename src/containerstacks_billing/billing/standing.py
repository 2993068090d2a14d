"""How billing stands, in the words of the status page: what to say first, and what deserves a warning.

`judge` turns what the tables say into one headline and a few notices. It decides nothing about billing; it decides
what a person who opens the page reads first. Texts name no organization, no instance and no figure, so that they may be
shown to everybody.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum

from containerstacks_billing.billing.failover import INTERVAL, host_bills
from containerstacks_billing.billing.health import Biller, Health, biller, run_is_late
from containerstacks_billing.billing.status import RunRecord


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


@dataclass(frozen=True, slots=True)
class SetAsideInstance:
    """An instance that the last run left out, and why."""

    reason: str
    detail: str
    first_seen_at: datetime
    due_hours: Decimal | None
    organization: str | None
    label: str | None


@dataclass(frozen=True, slots=True)
class PastDueWallet:
    """An organization that owes: since when, for how many instances, how much; `labels` names a few of them."""

    organization: str | None
    past_due_since: datetime
    instances: int
    amount: Decimal
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Runway:
    """A wallet that will be empty: its balance, what it burns per hour, and when."""

    organization: str | None
    balance: Decimal
    currency: str
    burn_per_hour: Decimal
    empties_at: datetime


@dataclass(frozen=True, slots=True)
class PriceToCome:
    """An announced price of a plan per month, and the one before it; None where that one cannot be charged."""

    plan: str
    valid_from: datetime
    before: Decimal | None
    after: Decimal | None


@dataclass(frozen=True, slots=True)
class Details:
    """What admins see beside the health: bounded lists, each with the most urgent first."""

    runs: tuple[RunRecord, ...] = ()
    set_aside: tuple[SetAsideInstance, ...] = ()
    past_due: tuple[PastDueWallet, ...] = ()
    runways: tuple[Runway, ...] = ()
    levels: dict[int, int] = field(default_factory=dict)
    prices: tuple[PriceToCome, ...] = ()


def judge(health: Health, failover_after: timedelta) -> Judgement:
    """Say who bills and what is the matter."""
    who = biller(health, failover_after)
    minutes = round(failover_after.total_seconds() / 60)
    never = health.daemon is None and health.last_finished is None and health.in_progress is None
    tone, headline, text = _headline(health, who, minutes, never)
    notices = [] if never else list(_notices(health, who, failover_after, minutes))
    worst = sorted(notices, key=lambda notice: notice.tone is not Tone.BAD)
    if who is Biller.DAEMON and worst:
        tone = worst[0].tone
        if not is_running(health):
            headline, text = (
                "The billing daemon needs attention",
                "It is alive, so nobody takes over. What is the matter stands below.",
            )
    return Judgement(tone, headline, text, tuple(worst))


def successor(health: Health, switch: str) -> str:
    """Say who takes over when the daemon falls silent: BUILT_IN_BILLING and the host's own scheduler decide it."""
    if switch == "off":
        return "Counts as silent, and nobody takes over,"
    if switch == "auto" and host_bills(health.failover):
        return "The host’s own billing takes over"
    return "Built-in billing takes over"


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


def _headline(health: Health, who: Biller, minutes: int, never: bool) -> tuple[Tone, str, str]:
    if never and who is Biller.NOBODY:
        return (
            Tone.QUIET,
            "Waiting for the first run",
            "No billing daemon has reported yet, and nothing has been billed. Start the daemon; it bills at once.",
        )
    if who is Biller.DAEMON:
        if is_running(health):
            return Tone.BUSY, "The billing daemon is billing now", "A run is under way."
        return (
            Tone.GOOD,
            "The billing daemon is on duty",
            "It is alive and bills on schedule, so nobody else does.",
        )
    if who is Biller.BUILT_IN:
        return (
            Tone.WARNING,
            "Built-in billing has taken over",
            "The daemon is silent, so the application bills every hour until a heartbeat returns. No hour is lost.",
        )
    if who is Biller.HOST:
        return (
            Tone.WARNING,
            "The host application bills by itself",
            "The daemon is silent and the host’s own scheduler debits wallets, so built-in billing stays off.",
        )
    return (
        Tone.BAD,
        "Nobody is billing",
        f"No heartbeat for {minutes} minutes, and nobody took over. Hours are not lost: the next run charges them.",
    )


def _notices(health: Health, who: Biller, failover_after: timedelta, minutes: int) -> list[Notice]:
    found: list[Notice] = []
    last = health.last_finished
    if last is not None and last.outcome == "held":
        found.append(
            Notice(
                Tone.BAD,
                "The last run was held",
                "It looked unlike the runs before it, so nothing was charged. Somebody has to look and release it.",
                "containerstacks-billing release --dry-run",
            )
        )
    if last is not None and last.outcome == "failed":
        found.append(
            Notice(
                Tone.BAD,
                "The last run failed",
                "What it did not charge stays due, and the next run charges it.",
                "journalctl -u containerstacks-billing -p err",
            )
        )
    elif (
        health.daemon is not None
        and health.daemon.status == "error"
        and not (last and last.outcome == "held")
    ):
        found.append(
            Notice(
                Tone.BAD,
                "The daemon reports an error",
                "It is alive, but it does not get on with its work.",
                "containerstacks-billing doctor",
            )
        )
    if run_is_late(health, failover_after):
        after = {
            Biller.DAEMON: "Its heartbeat is fresh; look at what it says.",
            Biller.BUILT_IN: "Built-in billing provides automatic failover.",
            Biller.HOST: "The host application’s own billing provides failover.",
            Biller.NOBODY: "Nobody has taken over yet.",
        }[who]
        found.append(
            Notice(
                Tone.BAD if who is Biller.NOBODY else Tone.WARNING,
                f"The daemon hasn’t run in {minutes}+ minutes",
                f"It has probably failed. {after}",
                "systemctl status containerstacks-billing",
            )
        )
    if health.in_progress is not None and health.lease.holder is None:
        found.append(
            Notice(
                Tone.WARNING,
                "A run was left open",
                "Its process ended without a word. The next biller closes it and finishes the work.",
            )
        )
    return found
