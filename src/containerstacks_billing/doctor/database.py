"""Checks of the database; each takes what is examined and yields what it finds."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from containerstacks_billing.config.target import Target
from containerstacks_billing.database import inspect as examination
from containerstacks_billing.database.connection import Connection, translate_errors
from containerstacks_billing.database.errors import MIGRATE_HINT
from containerstacks_billing.database.grants import only_reads
from containerstacks_billing.database.inspect import Server
from containerstacks_billing.errors import SchemaMismatch
from containerstacks_billing.findings import Finding, Level, fail, failure, ok, warn
from containerstacks_billing.schema.diagnose import diagnosed
from containerstacks_billing.schema.drift import expected_schema_problem
from containerstacks_billing.settings import Settings
from containerstacks_billing.status.failover import HeartbeatClamp, fallback
from containerstacks_billing.status.model import Biller, biller, limits_of
from containerstacks_billing.status.read import read_reading
from containerstacks_billing.status.read_overview import read_status
from containerstacks_billing.systemd.installed import unit_files
from containerstacks_billing.systemd.unit import DAEMON_UNIT

OLDEST_SERVER = 150_000
_CLOCK_WARN_SECONDS = 5
_CLOCK_FAIL_SECONDS = 300


@dataclass(frozen=True)
class Subject:
    """What the database checks look at."""

    settings: Settings
    target: Target
    connection: Connection
    server: Server


def version(subject: Subject) -> Iterator[Finding]:
    """See that the server is new enough."""
    found = f"PostgreSQL {subject.server.version}"
    if subject.server.version_number >= OLDEST_SERVER:
        yield ok("server version", found)
    else:
        yield fail("server version", f"{found} is too old.", "Upgrade the server to PostgreSQL 15 or newer.")


def writable(subject: Subject) -> Iterator[Finding]:
    """See that the server accepts writes."""
    if subject.server.in_recovery:
        yield fail(
            "recovery",
            "The server is a standby, or recovering, and accepts no writes.",
            "Point DATABASE_URL at the primary, or list all hosts of the cluster in it.",
        )
    elif subject.server.read_only:
        yield fail(
            "recovery",
            "Transactions of this role or database are read-only by default.",
            f"ALTER ROLE {subject.server.role} RESET default_transaction_read_only;",
        )
    else:
        yield ok("recovery", "the server is a primary and accepts writes")


def schema(subject: Subject) -> Iterator[Finding]:
    """See that every table of billing exists."""
    missing = examination.missing_tables(subject.connection)
    if missing:
        # Tables that no migration has made yet have another cure than those that somebody dropped.
        problem = _schema_problem(subject)
        yield fail("schema", f"Missing: {', '.join(missing)}.", problem.hint if problem else MIGRATE_HINT)
    else:
        yield ok("schema", "all tables of billing are there")


def migrations(subject: Subject) -> Iterator[Finding]:
    """See that every migration ran as it is delivered, and that nobody undid what it made."""
    problem = _schema_problem(subject)
    if problem:
        yield failure("migrations", problem)
    else:
        yield ok("migrations", "all applied, as they were delivered, and what they made is there")


def _schema_problem(subject: Subject) -> SchemaMismatch | None:
    with diagnosed(subject.target.conninfo):
        return expected_schema_problem(subject.connection)


def rights(subject: Subject) -> Iterator[Finding]:
    """See that the role may do what billing does; missing rights as statements to copy."""
    grants = examination.missing_grants(subject.connection, subject.server.role)
    if grants and only_reads(examination.missing_rights(subject.connection)):
        yield warn(
            "rights",
            f"The role {subject.server.role} may read everything and write nothing: it can look, not bill.",
            "That is what a role for status, runs, verify and doctor should be; the daemon needs `grants`.",
        )
    elif grants:
        yield fail(
            "rights",
            f"The role {subject.server.role} lacks rights on {len(grants)} tables or sequences; as their owner run:",
            "\n".join(grants if examination.may_read(subject.connection) else [*grants, _looking(subject)]),
        )
    else:
        yield ok("rights", f"the role {subject.server.role} may read and write what billing needs")


def _looking(subject: Subject) -> str:
    name = shlex.quote(subject.server.role)
    return f"-- A role that only looks needs less: containerstacks-billing grants --read-only --role {name}"


def clock(subject: Subject) -> Iterator[Finding]:
    """Compare the database's clock, which counts the hours, with this machine's."""
    ahead = subject.server.clock_ahead_seconds
    message = f"the database is {abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} this machine"
    hint = "Synchronise both clocks (chrony or systemd-timesyncd); hours are counted by the database's."
    if abs(ahead) > _CLOCK_FAIL_SECONDS:
        yield fail("clock", message, hint)
    elif abs(ahead) > _CLOCK_WARN_SECONDS:
        yield warn("clock", message, hint)
    else:
        yield ok("clock", message)


def pooler(subject: Subject) -> Iterator[Finding]:
    """Name a pooler in between; both modes work."""
    mode = subject.server.pooler
    yield ok(
        "pooler", f"a pooler in {mode} mode, which is supported" if mode else "none, a direct connection"
    )


def last_run(subject: Subject) -> Iterator[Finding]:
    """See that the last run completed, and not too long ago; and that nothing is left out of the runs."""
    with translate_errors():
        status = read_status(subject.connection)
    interval = subject.settings.billing_interval_minutes
    last, success = status.last_run, status.last_success
    if last is not None and last.outcome in _FAILURES:
        yield warn(
            "last run",
            f"The last run was {last.outcome}: {(last.error_message or 'it gave no reason')[:300]}",
            "Decide about it: containerstacks-billing release"
            if last.outcome == "held"
            else "See `containerstacks-billing runs`; what is due is charged by the next one.",
        )
    elif success is None:
        yield warn("last run", "No run has completed yet.",
                   "See whom one would charge: containerstacks-billing run --dry-run")  # fmt: skip
    elif status.is_late(limits_of(subject.settings).late_after):
        minutes = (status.now - success.as_of).total_seconds() / 60
        yield warn(
            "last run",
            f"No run has completed for {minutes:,.0f} minutes (BILLING_INTERVAL_MINUTES={interval}).",
            _UP_HINT if subject.target.embedded else _LOG_HINT,
        )
    else:
        minutes = (status.now - success.as_of).total_seconds() / 60
        noun = "instance" if success.instances_billed == 1 else "instances"
        yield ok("last run", f"completed, {minutes:,.0f} min ago; {success.instances_billed:,} {noun}")
    if status.reasons:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in status.reasons.items())
        yield warn("set aside", f"Instances that are not billed: {reasons}.",
                   "See which, and why: containerstacks-billing quarantine")  # fmt: skip


_FAILURES = {"held", "failed", "interrupted"}
_LOG_HINT = 'See why: journalctl -u containerstacks-billing.service | grep -i "billing" | tail -20'
# The embedded database belongs to no service: what bills on it was started by hand, and ends with its terminal.
_UP_HINT = "Start it, and let it run: containerstacks-billing up"


def other_billers(subject: Subject) -> Iterator[Finding]:
    """See that nobody else takes money: debits without a key of ours come from a biller that no lease stops."""
    debits = examination.foreign_debits(subject.connection)
    if debits:
        yield warn(
            "other billers",
            f"In the last day {debits:,} wallet debits were written that are not ours: the host application bills too.",
            "While both bill, customers may be charged twice. Stop its scheduler (BUILT_IN_BILLING=off if it stays),"
            "\nand compare: containerstacks-billing verify",
        )
    else:
        yield ok("other billers", "no wallet debit of the last day is anybody else's")


def instances(subject: Subject) -> Iterator[Finding]:
    """See that there is something to bill."""
    billable, every = examination.billable_instances(subject.connection, subject.settings.billable_statuses)
    statuses = ",".join(subject.settings.billable_statuses)
    message = f"{billable:,} of {every:,} instances are billable (BILLABLE_STATUSES={statuses})"
    if billable:
        yield ok("instances", message)
    else:
        yield warn("instances", message, "Nothing is charged until an instance has one of these statuses.")


_START_HINT = "Start it: systemctl start containerstacks-billing.service"
_INSTALL_HINT = (
    "Install it: containerstacks-billing service install; elsewhere run: containerstacks-billing daemon"
)
_LOOK_HINT = "See why: systemctl status containerstacks-billing.service"
_UP_AGAIN_HINT = "Start it: containerstacks-billing up"


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
        return _UP_AGAIN_HINT
    return _START_HINT if unit_files(DAEMON_UNIT) else _INSTALL_HINT


def _instead(subject: Subject) -> str:
    """Say who bills without a daemon: whoever was seen to lately, else who would."""
    with translate_errors():
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
    with translate_errors():
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


CHECKS: tuple[Callable[[Subject], Iterator[Finding]], ...] = (
    version,
    writable,
    schema,
    migrations,
    rights,
    clock,
    pooler,
)

# These read tables of billing and would only repeat that one is missing, or may not be read.
TABLE_CHECKS: tuple[Callable[[Subject], Iterator[Finding]], ...] = (
    heartbeat,
    last_run,
    built_in_billing,
    other_billers,
    instances,
)
