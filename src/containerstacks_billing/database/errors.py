"""Translation of driver errors into error classes, by SQLSTATE or by the text of a refused connection.

A server that answers a statement names the fault with an SQLSTATE. A refused connection carries none: the
driver hands over text alone, in English unless the server was told to speak another language. Texts that are
not recognised count as "database unavailable", because trying again is harmless and giving up is not.

The text of the server is shown only where it cannot hold a secret, and is redacted even there.
"""

from __future__ import annotations

import re

import psycopg
from psycopg import errors

from containerstacks_billing.database.conninfo import describe, read
from containerstacks_billing.database.grants import grants_for, quoted
from containerstacks_billing.errors import (
    BillingError,
    ConfigurationError,
    DatabaseUnavailable,
    InvariantBroken,
    LoginRefused,
    RightsMissing,
    SchemaMismatch,
    WorkFailed,
)
from containerstacks_billing.redaction import redact

_LONGEST_QUOTE = 300

MIGRATE_HINT = "Run `containerstacks-billing migrate`; with --dry-run it shows its plan first."
_AWAY_HINT = "Check that PostgreSQL is running there and that a firewall lets this machine through."
# The usual finding is a session that is idle in a transaction.
BLOCKERS_HINT = (
    "Another session holds a lock. While it is waited for, this names it:\n"
    "SELECT pid, usename, application_name, state, xact_start FROM pg_stat_activity"
    " WHERE pid IN (SELECT unnest(pg_blocking_pids(pid)) FROM pg_stat_activity);"
)
_READ_ONLY_HINT = (
    "Point DATABASE_URL at the primary. If it was only set read-only, run as its owner:\n"
    "ALTER DATABASE {database} RESET default_transaction_read_only;"
)
_LOGIN_HINT = "Check user and password in DATABASE_URL, and that pg_hba.conf of the server lets this user in."

# What libpq and the driver say of a connection string that they cannot read.
_CONNECTION_STRING = (
    r"connection (info )?(string|option|URI)|connection option|\bURI\b|bad value for |percent-encoded|"
    r"connect_timeout"
)

# What a refused connection says, most specific first: pattern, error, what is wrong, what to do.
_REFUSALS: tuple[tuple[str, type[BillingError], str, str], ...] = (
    (
        r"no password supplied|empty password",
        LoginRefused,
        "asks for a password, and none was given",
        "Write it into DATABASE_URL (postgresql://user:password@host:5432/database), or into ~/.pgpass.",
    ),
    (
        r"password authentication failed|authentication failed",
        LoginRefused,
        "refused the password (Authentication failed)",
        _LOGIN_HINT,
    ),
    (
        r"no pg_hba\.conf entry|pg_hba\.conf rejects",
        LoginRefused,
        "does not let this user in from here (pg_hba.conf)",
        _LOGIN_HINT,
    ),
    (
        r'role ".*" does not exist|not permitted to log in|no such user',
        LoginRefused,
        "does not know this user, or does not let it log in",
        _LOGIN_HINT,
    ),
    (
        r"permission denied for database",
        RightsMissing,
        "does not let this user connect to the database",
        "Run as its owner: GRANT CONNECT ON DATABASE {database} TO {user};",
    ),
    (
        r'database ".*" does not exist|no such database',
        DatabaseUnavailable,
        "has no database of that name",
        "Check the database name in DATABASE_URL, or create it with `createdb`.",
    ),
    (
        r"too many (connections|clients)|connection slots are reserved|no more connections allowed",
        DatabaseUnavailable,
        "has no free connection",
        "Raise max_connections of the server or close idle clients.",
    ),
    (
        r"starting up|not yet accepting|shutting down|recovery mode",
        DatabaseUnavailable,
        "is starting, stopping or recovering",
        "Wait for it to accept connections.",
    ),
    (
        r"session is read-only|hot standby|read-only",
        DatabaseUnavailable,
        "is a read-only standby",
        "Point DATABASE_URL at the primary, or list all hosts of the cluster.",
    ),
    (
        r"certificate verify failed|server certificate for|root certificate file",
        ConfigurationError,
        "does not prove who it is: {quote}",
        "Check sslrootcert, the host name in DATABASE_URL and the dates of the server's certificate.",
    ),
    (
        r"certificate|SSL|TLS|sslmode",
        ConfigurationError,
        "does not offer the encryption that sslmode asks for",
        "Check sslmode and sslrootcert in DATABASE_URL against the server.",
    ),
    (
        r"failed to resolve|could not translate host name|Name or service not known",
        DatabaseUnavailable,
        "cannot be found by its name",
        "Check the host name in DATABASE_URL and the name service of this machine.",
    ),
    (
        r"Connection refused|No such file or directory",
        DatabaseUnavailable,
        "refuses connections (Connection refused): no PostgreSQL is listening there",
        _AWAY_HINT,
    ),
    (r"timeout expired|timed out", DatabaseUnavailable, "did not answer in time", _AWAY_HINT),
    (
        r"closed the connection|connection is (lost|closed)|consuming input|terminating|reset by peer|EOF",
        DatabaseUnavailable,
        "closed the connection",
        _AWAY_HINT,
    ),
)

# What a server answers, the most specific SQLSTATE first: prefixes, error, what is wrong, what to do.
_ANSWERS: tuple[tuple[tuple[str, ...], type[BillingError], str, str], ...] = (
    (
        ("42P01", "42703", "42883", "42704", "42P10", "3F000"),
        SchemaMismatch,
        "The database schema is not what this version needs: {quote}.",
        MIGRATE_HINT,
    ),
    (("28",), LoginRefused, "{where} refused the login.", _LOGIN_HINT),
    (
        ("25006",),
        DatabaseUnavailable,
        "{where} is read-only: a standby, in recovery, or set so.",
        _READ_ONLY_HINT,
    ),
    (
        ("53100",),
        DatabaseUnavailable,
        "{where} has no disk space left: {quote}.",
        "Free disk space on the server; nothing was lost and billing catches up.",
    ),
    (
        ("53300",),
        DatabaseUnavailable,
        "{where} has no free connection: {quote}.",
        "Raise max_connections of the server or close idle clients.",
    ),
    (("53",), DatabaseUnavailable, "{where} is out of resources: {quote}.", "Give the server more of them."),
    (
        ("57P01", "57P02", "57P03"),
        DatabaseUnavailable,
        "{where} ended the connection: {quote}.",
        "The server was restarted, or an administrator ended the session. It is tried again; nothing is half charged.",
    ),
    (
        ("08", "57P", "58", "25P0", "3D"),
        DatabaseUnavailable,
        "{where} ended the connection: {quote}.",
        _AWAY_HINT,
    ),
    (
        ("23",),
        InvariantBroken,
        "The database refused a row that would contradict the books{constraint}.",
        "Run `containerstacks-billing verify`; nothing of this batch was charged.",
    ),
    (
        ("55P03",),
        WorkFailed,
        "{where} gave up waiting for other work: {quote}.",
        BLOCKERS_HINT,
    ),
    (
        ("40", "57014"),
        WorkFailed,
        "{where} gave up waiting for other work: {quote}.",
        "Try again when the load is lower.",
    ),
)

_TRANSIENT = ("08", "40", "53", "57", "25P03", "25P04", "25006", "55P03", "58")


def is_transient(error: psycopg.Error) -> bool:
    """Return whether the same work may succeed when it is started again from the rows."""
    state = error.sqlstate
    if state is None:
        return isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))
    return state.startswith(_TRANSIENT)


def translate(error: psycopg.Error, conninfo: str | None = None) -> BillingError:
    """Return the `BillingError` for a driver error; it holds no secret.

    Work that the caller may repeat is identified by `is_transient`, before translating.
    """
    if error.sqlstate is None:
        return _refused(error, conninfo)
    return _answered(error, conninfo)


def _where(conninfo: str | None) -> str:
    return f"The database at {describe(conninfo)}" if conninfo else "The database"


def _parameter(conninfo: str | None, name: str, otherwise: str) -> str:
    if conninfo is None:
        return otherwise
    try:
        value = read(conninfo).parameters.get(name)
    except ConfigurationError:
        return otherwise
    return value or otherwise


def _refused(error: psycopg.Error, conninfo: str | None) -> BillingError:
    """Classify by text: the server gave no SQLSTATE, or there was no server."""
    text = str(error)
    if isinstance(error, psycopg.ProgrammingError):
        # Raised by the driver itself. Only one about the connection string concerns the configuration; any other is an
        # internal error, and pointing at the configuration would mislead.
        if re.search(_CONNECTION_STRING, text):
            return ConfigurationError(
                "DATABASE_URL is malformed.", hint="Write postgresql://user:password@host:5432/database."
            )
        return WorkFailed(
            f"{_where(conninfo)} got an invalid query, which is an internal error of this program: {_quote(text)}."
        )
    for pattern, kind, what, hint in _REFUSALS:
        if re.search(pattern, text, re.IGNORECASE):
            return kind(
                f"{_where(conninfo)} {what.replace('{quote}', _quote(text))}.",
                hint=hint.format(
                    database=quoted(_parameter(conninfo, "dbname", "<database>")),
                    user=quoted(_parameter(conninfo, "user", "<role>")),
                ),
            )
    if isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)):
        return DatabaseUnavailable(f"{_where(conninfo)} is not reachable: {_quote(text)}.", hint=_AWAY_HINT)
    return WorkFailed(f"{_where(conninfo)} could not do the work: {_quote(text)}.")


def _quote(text: str) -> str:
    first = (text.strip().splitlines() or ["no reason given"])[0]
    return redact(first)[:_LONGEST_QUOTE].rstrip(".")


def _named(error: psycopg.Error) -> str:
    """Return the identifier that the server's message names; empty when there is none."""
    message = error.diag.message_primary or ""
    found = re.search(r'"([^"]+)"', message) or re.search(r"(?:for|of) \w+(?: \w+)? ([\w.]+)$", message)
    return found.group(1) if found else ""


def _answered(error: psycopg.Error, conninfo: str | None) -> BillingError:
    """Classify by SQLSTATE."""
    quote = _quote(error.diag.message_primary or str(error))
    if isinstance(error, errors.InsufficientPrivilege):
        return _right_missing(error, quote, _parameter(conninfo, "user", "<role>"))
    state = error.sqlstate or ""
    constraint = f" ({error.diag.constraint_name})" if error.diag.constraint_name else ""
    for prefixes, kind, message, hint in _ANSWERS:
        if state.startswith(prefixes):
            said = message.format(where=_where(conninfo), quote=quote, constraint=constraint)
            return kind(
                said, hint.replace("{database}", quoted(_parameter(conninfo, "dbname", "<database>")))
            )
    return WorkFailed(f"{_where(conninfo)} could not do the work: {quote} (SQLSTATE {state}).")


def _right_missing(error: psycopg.Error, quote: str, role: str) -> RightsMissing:
    name = _named(error)
    if "must be owner" in quote or "permission denied to create" in quote:
        return RightsMissing(
            f"The database role may not change the schema: {quote}.",
            hint="Run `containerstacks-billing migrate` as the owner of the host application's tables.",
        )
    if "for schema" in quote:
        grants = [
            f"GRANT USAGE ON SCHEMA {quoted(name)} TO {quoted(role)}; -- and CREATE for the role that migrates"
        ]
    elif "for sequence" in quote:
        grants = [f"GRANT USAGE ON SEQUENCE {quoted(name)} TO {quoted(role)};"]
    elif "for function" in quote:
        grants = [f"GRANT EXECUTE ON FUNCTION {quoted(name)} TO {quoted(role)};"]
    else:
        grants = grants_for(name, role)
    return RightsMissing(f"The database role may not do this: {quote}.", hint="\n".join(grants) or None)
