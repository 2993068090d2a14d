"""Checks of who bills: the daemon, and what takes over when it is silent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from containerstacks_billing.billing.failover import HeartbeatClamp, fallback
from containerstacks_billing.billing.health import Biller, biller, limits_of
from containerstacks_billing.postgres import examination
from containerstacks_billing.postgres.connection import translated
from containerstacks_billing.postgres.health import read_reading
from containerstacks_billing.postgres.status import read_status
from containerstacks_billing.process.findings import Finding, Level, ok, warn
from containerstacks_billing.process.service_files import unit_files
from containerstacks_billing.process.service_unit import DAEMON_UNIT

if TYPE_CHECKING:
    from containerstacks_billing.process.doctor.database import Subject

_START_HINT = "Start it: systemctl start containerstacks-billing.service"
_INSTALL_HINT = (
    "Install it: containerstacks-billing service install; elsewhere run: containerstacks-billing daemon"
)
_LOOK_HINT = "See why: systemctl status containerstacks-billing.service"
_UP_HINT = "Start it: containerstacks-billing up"


def heartbeat(subject: Subject) -> Iterator[Finding]:
    """See who bills: one daemon alive, none, one that has fallen silent, or more than one."""
    daemons = examination.daemons(subject.connection)
    limits = limits_of(subject.settings)
    silence, silent_after = limits.failover_after.total_seconds(), limits.silent_after.total_seconds()
    alive = [d for d in daemons if d.age_seconds is not None and d.age_seconds < silence]
    beating = [d for d in alive if d.status == "running"]
    hint = _how_to_start(subject)
    if not daemons:
        yield warn("heartbeat", f"No daemon has reported yet; {_instead(subject)}.", hint)
    elif not alive:
        age = daemons[0].age_seconds
        since = "never" if age is None else f"{age / 60:,.0f} minutes ago"
        yield warn("heartbeat", f"Last heartbeat {since}; {_instead(subject)}.", hint)
    elif not beating:
        latest = alive[0]
        yield warn("heartbeat", f"The daemon {latest.instance_id} says {latest.status}.", hint)
    elif (age := beating[0].age_seconds or 0.0) >= silent_after:
        yield warn(
            "heartbeat",
            f"The daemon {beating[0].instance_id} has been silent for {age / 60:,.0f} minutes;"
            f" in {(silence - age) / 60:,.0f} minutes it counts as gone, and then {_instead(subject)}.",
            hint if subject.target.embedded else _LOOK_HINT,
        )
    else:
        yield ok("heartbeat", f"{beating[0].instance_id}, {age:.0f} s ago")
    if len(beating) > 1:
        others = ", ".join(d.instance_id for d in beating[1:])
        yield warn(
            "other daemons",
            f"Also seen in the last {subject.settings.failover_after_minutes} minutes: {others}.",
            "One daemon is enough; the lease keeps them apart, so nothing is charged twice.",
        )
    for daemon in daemons[:1]:
        if daemon.error_message:
            yield warn("last error", daemon.error_message[:300], "See `containerstacks-billing runs`.")
    for daemon in beating[:1]:
        yield from _interval(daemon, subject.settings.billing_interval_minutes)


def _how_to_start(subject: Subject) -> str:
    """Name a command that works here: a service is started only where one is installed."""
    if subject.target.embedded:
        return _UP_HINT
    return _START_HINT if unit_files(DAEMON_UNIT) else _INSTALL_HINT


def _instead(subject: Subject) -> str:
    """Say who bills without a daemon: whoever was seen to lately, else who would."""
    with translated():
        health = read_status(subject.connection).health
    who = biller(health, limits_of(subject.settings).failover_after)
    if who is Biller.BUILT_IN and health.failover.last_run_at is not None:
        minutes = (health.now - health.failover.last_run_at).total_seconds() / 60
        return f"built-in billing bills, last {minutes:,.0f} minutes ago"
    return {
        "ours": "nobody bills by itself"
        if subject.target.embedded
        else "built-in billing would bill, if the application side runs",
        "host": "the host application bills by itself",
        "both": "the host application and built-in billing may both bill",
        "nobody": "nobody bills (BUILT_IN_BILLING=off)",
    }[fallback(health.failover, subject.settings.built_in_billing).who]


def _interval(daemon: examination.Daemon, minutes: int) -> Iterator[Finding]:
    """See that the daemon goes by the interval that is configured here."""
    if daemon.interval_minutes not in {None, str(minutes)}:
        yield warn(
            "interval",
            f"The daemon bills every {daemon.interval_minutes} minutes, here BILLING_INTERVAL_MINUTES is {minutes}.",
            "Let it read its configuration again: systemctl reload containerstacks-billing.service",
        )


def built_in_billing(subject: Subject) -> Iterator[Finding]:
    """Say which built-in billing takes over when the daemon is silent, and what to set for another."""
    with translated():
        reading = read_reading(subject.connection, HeartbeatClamp())
    found = fallback(reading, subject.settings.built_in_billing)
    level = Level.OK if found.is_sound else Level.WARN
    sentence, advice = found.sentence, found.advice
    if found.who == "ours":
        # It is a thread of the application side: whether one runs is not seen from here.
        sentence += (
            ", if `up` or `serve` runs" if subject.target.embedded else ", if the application side runs"
        )
    yield Finding("built-in billing", level, sentence, advice)
