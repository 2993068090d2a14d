"""Checks of the database; each takes what is examined and yields what it finds."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from containerstacks_billing.config.target import Target
from containerstacks_billing.database import inspect as examination
from containerstacks_billing.database.connection import Connection
from containerstacks_billing.database.errors import MIGRATE_HINT
from containerstacks_billing.database.grants import grants_for, only_reads, quoted
from containerstacks_billing.database.inspect import Server
from containerstacks_billing.errors import SchemaMismatch
from containerstacks_billing.findings import Finding, fail, failure, ok, warn
from containerstacks_billing.hosts.adopted import host_of, left_out
from containerstacks_billing.hosts.model import describe
from containerstacks_billing.schema.diagnose import diagnosed
from containerstacks_billing.schema.drift import expected_schema_problem
from containerstacks_billing.schema.row_security import hidden_rows_problem
from containerstacks_billing.settings import Settings

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
    """Check the version of the server."""
    found = f"PostgreSQL {subject.server.version}"
    if subject.server.version_number >= OLDEST_SERVER:
        yield ok("server version", found)
    else:
        yield fail("server version", f"{found} is too old.", "Upgrade the server to PostgreSQL 15 or newer.")


def writable(subject: Subject) -> Iterator[Finding]:
    """Check that the server accepts writes."""
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
            f"ALTER DATABASE {quoted(subject.server.database)} RESET default_transaction_read_only;\n"
            f"ALTER ROLE {quoted(subject.server.role)} RESET default_transaction_read_only;",
        )
    else:
        yield ok("recovery", "the server is a primary and accepts writes")


def schema(subject: Subject) -> Iterator[Finding]:
    """Check that every table of billing exists."""
    missing = examination.missing_tables(subject.connection)
    if missing:
        # Tables that no migration has made yet need another remedy than tables that were dropped.
        problem = _schema_problem(subject)
        yield fail("schema", f"Missing: {', '.join(missing)}.", problem.hint if problem else MIGRATE_HINT)
    else:
        yield ok("schema", "all tables of billing are there")


def migrations(subject: Subject) -> Iterator[Finding]:
    """Check that every migration ran as it is delivered, and that what it made is still there."""
    problem = _schema_problem(subject)
    if problem:
        yield failure("migrations", problem)
    else:
        yield ok("migrations", "all applied, as they were delivered, and what they made is there")


def _schema_problem(subject: Subject) -> SchemaMismatch | None:
    with diagnosed(subject.target.conninfo):
        return expected_schema_problem(subject.connection)


def rights(subject: Subject) -> Iterator[Finding]:
    """Check the rights of the role; missing ones are reported as statements to copy."""
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
            "\n".join(
                grants if examination.may_read(subject.connection) else [*grants, _less_for_reading(subject)]
            ),
        )
    else:
        yield ok("rights", f"the role {subject.server.role} may read and write what billing needs")


def row_security(subject: Subject) -> Iterator[Finding]:
    """Check that no policy hides rows from the role."""
    problem = hidden_rows_problem(subject.connection)
    if problem:
        yield failure("row security", problem)
    else:
        yield ok("row security", f"no policy hides rows from the role {subject.server.role}")


def host_rights(subject: Subject) -> Iterator[Finding]:
    """Check that every role that may write an instance may call what the triggers call."""
    if denied := examination.denied_writers(subject.connection):
        yield fail(
            "host rights",
            f"Statements on vps_instances fail for {', '.join(denied)}: functions of billing may not be called.",
            "Run `containerstacks-billing migrate`, which grants EXECUTE to every role that may write the table.",
        )
    else:
        yield ok(
            "host rights", "every role that may write an instance may call the functions of its triggers"
        )


def host_tokens(subject: Subject) -> Iterator[Finding]:
    """Check that tokens of the host can be verified, where JWT_SECRET is set."""
    if subject.settings.jwt_secret is None:
        return
    if examination.may_read_users(subject.connection):
        yield ok("host tokens", "the role of a user can be looked up")
    else:
        yield fail(
            "host tokens",
            f"The role {subject.server.role} may not read id and role of users, so no token of the host opens a page.",
            "\n".join(grants_for("users", subject.server.role)),
        )


def _less_for_reading(subject: Subject) -> str:
    name = shlex.quote(subject.server.role)
    return f"-- A role that only reads needs less: containerstacks-billing grants --read-only --role {name}"


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
    """Report a pooler in between; both modes work."""
    mode = subject.server.pooler
    yield ok(
        "pooler", f"a pooler in {mode} mode, which is supported" if mode else "none, a direct connection"
    )


def other_billers(subject: Subject) -> Iterator[Finding]:
    """Check for other billers: debits without a key of ours come from a scheduler that no lease stops."""
    debits = examination.foreign_debits(subject.connection)
    if debits:
        yield warn(
            "other billers",
            f"In the last day {debits:,} wallet debits were written that are not ours: the host application bills too.",
            "While both bill, customers may be charged twice. "
            f"{host_of(subject.connection).switch_off}.\nThen compare: containerstacks-billing verify",
        )
    else:
        yield ok("other billers", "no wallet debit of the last day is of another biller")


def host_application(subject: Subject) -> Iterator[Finding]:
    """Name the host application, and what it bills that the configured statuses leave out."""
    host = host_of(subject.connection)
    if host.document:
        yield ok("host application", f"{host.value}; what bills what there: {host.document}")
    others = left_out(subject.connection, subject.settings)
    if others:
        sentence = describe(others, subject.settings.billable_statuses, subject.settings.currency)
        cure = "BILLABLE_STATUSES=* charges every instance, as the host does."
        if "billable_statuses" in subject.settings.model_fields_set:
            yield warn("statuses", f"{sentence}.", cure)
        else:
            yield fail("statuses", f"{sentence}.", f"Set it, whichever it is: {cure}")


def instances(subject: Subject) -> Iterator[Finding]:
    """Check that there is something to bill."""
    billable, every = examination.billable_instances(subject.connection, subject.settings.billable_statuses)
    statuses = ",".join(subject.settings.billable_statuses)
    message = f"{billable:,} of {every:,} instances are billable (BILLABLE_STATUSES={statuses})"
    if billable:
        yield ok("instances", message)
    else:
        yield warn("instances", message, "Nothing is charged until an instance has one of these statuses.")


CHECKS: tuple[Callable[[Subject], Iterator[Finding]], ...] = (
    version,
    writable,
    schema,
    migrations,
    rights,
    row_security,
    host_tokens,
    clock,
    pooler,
)

# These read tables of billing and would only repeat that one is missing, or may not be read.
TABLE_CHECKS: tuple[Callable[[Subject], Iterator[Finding]], ...] = (
    host_rights,
    host_application,
    other_billers,
    instances,
)
