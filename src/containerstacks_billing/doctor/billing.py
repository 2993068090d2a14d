"""Checks of billing itself: heartbeat, rival daemons, failover, last run, quarantine."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from containerstacks_billing.database import inspect as examination
from containerstacks_billing.database.connection import translate_errors
from containerstacks_billing.doctor.database import Subject
from containerstacks_billing.doctor.unit import apply_hint
from containerstacks_billing.findings import Finding, Level, ok, warn
from containerstacks_billing.identity import is_known_to_be_gone
from containerstacks_billing.status.model import Status
from containerstacks_billing.status.read import read_status
from containerstacks_billing.status.sentences import takeover_of
from containerstacks_billing.status.verdict import Biller, Condition, Verdict, verdict_of
from containerstacks_billing.systemd.installed import unit_files
from containerstacks_billing.systemd.unit import DAEMON_UNIT
from containerstacks_billing.text import counted, span

_FAILURES = {"held", "failed", "interrupted"}
_START_HINT = "Start it: systemctl start containerstacks-billing.service"
_INSTALL_HINT = (
    "Install it: containerstacks-billing service install; elsewhere run: containerstacks-billing daemon"
)
_LOOK_HINT = "See why: systemctl status containerstacks-billing.service"
_LOG_HINT = 'See why: journalctl -u containerstacks-billing.service | grep -i "billing" | tail -20'
# The embedded database belongs to no service: what bills on it was started by hand, and ends with its terminal.
_UP_HINT = "Start it, and let it run: containerstacks-billing up"


def billing(subject: Subject) -> Iterator[Finding]:
    """Report heartbeat, rivals, failover, last run and quarantine, from one reading."""
    with translate_errors():
        status = read_status(subject.connection)
    verdict = verdict_of(status.health, subject.settings)
    yield from heartbeat(subject, verdict, status)
    yield from daemons(subject, verdict, status)
    yield from last_run(subject, verdict, status)
    yield failover(subject, verdict)


def heartbeat(subject: Subject, verdict: Verdict, status: Status) -> Iterator[Finding]:
    """Report whether a daemon is alive, and what bills instead where none is."""
    beat, name = verdict.heartbeat_at, verdict.daemon_id
    age = verdict.now - beat if beat is not None else None
    hint = _how_to_start(subject)
    if verdict.condition is Condition.ABSENT:
        yield warn("heartbeat", f"No daemon has reported yet; {_instead(subject, verdict)}", hint)
    elif verdict.condition is Condition.GONE:
        last = f"Last heartbeat {span(age)} ago" if age is not None else "Last heartbeat unknown"
        yield warn("heartbeat", f"{last} by {name}; {_instead(subject, verdict)}", hint)
    elif verdict.condition is Condition.STOPPED:
        yield warn("heartbeat", f"The daemon {name} is stopped; {_instead(subject, verdict)}", hint)
    elif verdict.condition is Condition.SILENT and age is not None:
        yield warn(
            "heartbeat",
            f"The daemon {name} has been silent for {span(age)}; {_instead(subject, verdict)}",
            hint if subject.target.embedded else _LOOK_HINT,
        )
    elif status.health.daemon is not None and is_known_to_be_gone(status.health.daemon.process):
        yield warn(
            "heartbeat",
            f"The process of the daemon {name} is gone without having stopped; {_instead(subject, verdict)}",
            hint if subject.target.embedded else _LOOK_HINT,
        )
    elif verdict.condition is Condition.ERROR:
        yield warn("heartbeat", f"The daemon {name} reports an error, see below.", _LOG_HINT)
    elif age is not None:
        yield ok("heartbeat", f"{name}, {age.total_seconds():.0f} s ago")


def _instead(subject: Subject, verdict: Verdict) -> str:
    """Return what bills without the daemon, or what would."""
    if verdict.biller is Biller.BUILT_IN:
        return "built-in billing bills."
    if verdict.biller is Biller.HOST:
        return "the host application bills by itself."
    if subject.target.embedded and verdict.failover.who == "nobody":
        return "nothing bills by itself on the embedded database."
    sentence = takeover_of(verdict, timed=True)
    return sentence[0].lower() + sentence[1:]


def _how_to_start(subject: Subject) -> str:
    """Return a command that works here: a service is started only where one is installed."""
    if subject.target.embedded:
        return _UP_HINT
    return _START_HINT if unit_files(DAEMON_UNIT) else _INSTALL_HINT


def daemons(subject: Subject, verdict: Verdict, status: Status) -> Iterator[Finding]:
    """Report other living daemons, the last error, and an interval that differs from the one configured here."""
    alive = verdict.condition in {Condition.RUNNING, Condition.ERROR}
    found = [one for one in examination.daemons(subject.connection) if not is_known_to_be_gone(one.process)]
    silent_after = verdict.limits.silent_after.total_seconds()
    rivals = [
        one.instance_id
        for one in found
        if one.instance_id != verdict.daemon_id
        and one.status == "running"
        and one.age_seconds is not None
        and one.age_seconds < silent_after
        and not any(other.replaces(one) for other in found)
    ]
    if alive and rivals:
        yield warn(
            "other daemons",
            f"Also alive: {', '.join(rivals)}.",
            "One daemon is enough; the lease keeps them apart, so nothing is charged twice.",
        )
    row = status.health.daemon
    if row is not None and row.error_message:
        yield warn("last error", row.error_message[:300], "See `containerstacks-billing runs`.")
    minutes = subject.settings.billing_interval_minutes
    for one in found:
        if (
            alive
            and one.instance_id == verdict.daemon_id
            and one.interval_minutes not in {None, str(minutes)}
        ):
            yield warn(
                "interval",
                f"The daemon bills every {one.interval_minutes} minutes, here BILLING_INTERVAL_MINUTES is {minutes}.",
                f"Let it read its configuration again: {apply_hint(unit_files(DAEMON_UNIT))}",
            )


def last_run(subject: Subject, verdict: Verdict, status: Status) -> Iterator[Finding]:
    """Report whether the last run completed, how long ago, and what the runs leave out."""
    interval = subject.settings.billing_interval_minutes
    last, success = status.last_run, status.health.last_successful
    if last is not None and last.outcome in _FAILURES:
        yield warn(
            "last run",
            f"The last run was {last.outcome}: {(last.error_message or 'no reason was recorded')[:300]}",
            "Decide about it: containerstacks-billing release"
            if last.outcome == "held"
            else "See `containerstacks-billing runs`; what is due is charged by the next one.",
        )
    elif success is None:
        yield warn(
            "last run",
            "No run has completed yet.",
            "See whom one would charge: containerstacks-billing run --dry-run",
        )
    elif verdict.success_is_late:
        yield warn(
            "last run",
            f"No run has completed for {span(verdict.now - success.as_of)} (BILLING_INTERVAL_MINUTES={interval}).",
            _UP_HINT if subject.target.embedded else _LOG_HINT,
        )
    elif success.as_of > verdict.now:
        yield warn(
            "last run",
            f"The last run was completed {span(success.as_of - verdict.now)} ahead of the database's clock.",
            "The clock was set back since. Synchronise it (chrony or systemd-timesyncd).",
        )
    else:
        billed = counted(success.instances_billed, "instance")
        yield ok("last run", f"completed, {span(verdict.now - success.as_of)} ago; {billed}")
    if status.health.quarantine:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in status.health.quarantine.items())
        yield warn(
            "quarantine",
            f"Instances that are not billed: {reasons}.",
            "See which, and why: containerstacks-billing quarantine",
        )


def failover(subject: Subject, verdict: Verdict) -> Finding:
    """Report what takes over when the daemon is silent, and what to set for another."""
    target = verdict.failover
    if subject.target.embedded and target.who == "nobody":
        return ok("built-in billing", f"{target.explained}; `containerstacks-billing up` has one")
    return Finding(
        "built-in billing", Level.OK if target.is_sound else Level.WARN, target.explained, target.advice
    )


CHECKS: tuple[Callable[[Subject], Iterator[Finding]], ...] = (billing,)
