"""The rights that billing needs, table by table, and the GRANT statements that give them.

Kept in one place so that an error message, `doctor` and the documents name the same rights. In the database
`billing_admit()` (schema/code/rights.sql) gives the same to whom psql is enough. Nothing here allows DDL: only
`migrate` changes the schema, as the owner of the tables.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

# What the daemon, built-in billing and `run` do to each table. A row lock needs UPDATE.
BILLING_RIGHTS: dict[str, tuple[str, ...]] = {
    "organizations": ("SELECT",),
    "wallets": ("SELECT", "UPDATE"),
    "vps_plans": ("SELECT",),
    "vps_instances": ("SELECT", "UPDATE"),
    "payment_transactions": ("SELECT", "INSERT"),
    "vps_billing_cycles": ("SELECT", "INSERT", "UPDATE"),
    "billing_daemon_status": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "billing_application_sides": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "billing_policies": ("SELECT", "INSERT", "UPDATE"),
    "billing_leases": ("SELECT", "INSERT", "UPDATE"),
    "billing_runs": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "billing_run_totals": ("SELECT", "INSERT", "UPDATE"),
    "plan_price_versions": ("SELECT",),
    "billing_usage_segments": ("SELECT", "INSERT", "UPDATE"),
    "billing_charged_until": ("SELECT", "INSERT", "UPDATE"),
    "billing_metering_failures": ("SELECT",),
    "billing_quarantine": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "billing_quarantine_counts": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "billing_decisions": ("SELECT", "INSERT"),
    # What changes prices or corrects charges is done by people, as the owner of the tables; billing only reads it.
    "billing_price_corrections": ("SELECT",),
    "billing_adjustments": ("SELECT",),
    "billing_adjustment_orders": ("SELECT",),
    # A token is made and revoked by people, as the owner of the tables; see TOKEN_COLUMNS.
    "billing_tokens": ("SELECT",),
    # A minimum is set by people, as the owner of the tables.
    "billing_minimum_balances": ("SELECT",),
    "billing_statements": ("SELECT", "INSERT"),
    "billing_months": ("SELECT", "INSERT", "UPDATE"),
    "billing_month_totals": ("SELECT", "INSERT"),
    "billing_verifications": ("SELECT", "INSERT", "DELETE"),
    "billing_leak_reports": ("SELECT", "INSERT", "DELETE"),
    "billing_events": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "billing_runways": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "schema_migrations": ("SELECT",),
}

# What the application side writes of a token: when it was used last.
TOKEN_COLUMNS = ("last_used_at",)

# What a role that only looks does not read: hashes of tokens.
WITHHELD_FROM_READERS = frozenset({"billing_tokens"})

# The columns of the host's users that a token of the host is checked with; password hashes stay out of reach.
USER_COLUMNS = ("id", "role")

# The record of migrations may be kept under another name, and the migrations have a check of their own.
BILLING_TABLES = tuple(table for table in BILLING_RIGHTS if table != "schema_migrations")

# The one table whose key comes out of a sequence that a role needs a right of its own for.
BILLING_SEQUENCES = ("billing_daemon_status_id_seq",)

# For a table that is not listed: read it and write it, but never delete from it.
_OTHERWISE = ("SELECT", "INSERT", "UPDATE")


def quoted(identifier: str) -> str:
    """Quote an identifier, which may be a reserved word; our tables and <placeholders> need no quotes."""
    if identifier in BILLING_RIGHTS or identifier in BILLING_SEQUENCES or re.fullmatch(r"<\w+>", identifier):
        return identifier
    return '"' + identifier.replace('"', '""') + '"'


def is_a_role(name: str) -> bool:
    """Whether a role can have this name; to PostgreSQL `public` is everybody, even in quotes."""
    return (
        bool(name.strip())
        and "\0" not in name
        and name not in {"public", "none"}
        and not name.startswith("pg_")
    )


def grant(table: str, rights: tuple[str, ...], role: str) -> str:
    """Write one GRANT statement."""
    return f"GRANT {', '.join(rights)} ON {quoted(table)} TO {quoted(role)};"


def grants_for(table: str, role: str) -> list[str]:
    """Write the statements that give a role what it needs on a table; empty when no table is named."""
    if table == "users":
        return [_host_users(role)]
    return [grant(table, BILLING_RIGHTS.get(table, _OTHERWISE), role)] if table else []


def policies_for(role: str, *, reading: bool = False) -> str:
    """Write the statement that gives a role policies of its own where row security would hide rows from it."""
    literal = "'" + role.replace("'", "''") + "'"
    return f"SELECT billing_admit_rows({literal}{', reading => true' if reading else ''});"


def every_right_hint(role: str) -> str:
    """Say how a role gets all its rights at once, instead of one after the other as statements are refused."""
    named = shlex.quote(role)
    return (
        "As the owner of the tables run what one of these prints, for a role that only looks or for one that bills:\n"
        f"containerstacks-billing grants --read-only --role {named}\n"
        f"containerstacks-billing grants --role {named}"
    )


def only_reads(missing: Mapping[str, tuple[str, ...]]) -> bool:
    """Whether a role that lacks these rights is one for looking: it may read every table and write none."""
    writes = {
        table: tuple(right for right in rights if right != "SELECT")
        for table, rights in BILLING_RIGHTS.items()
    }
    return all(
        missing.get(table, ()) == rights
        for table, rights in writes.items()
        if table not in WITHHELD_FROM_READERS
    )


def billing_grants(database: str, role: str) -> list[str]:
    """Write the statements that give a role all that billing needs on this database, and nothing else."""
    return [
        *_entrance(database, role),
        *(grant(table, rights, role) for table, rights in BILLING_RIGHTS.items()),
        *(f"GRANT USAGE ON SEQUENCE {sequence} TO {quoted(role)};" for sequence in BILLING_SEQUENCES),
        token_use(role),
        _host_users(role),
        policies_for(role),
    ]


def reading_grants(database: str, role: str) -> list[str]:
    """Write the statements that let a role look: `status`, `runs`, `verify` and `doctor`, and no change of anything."""
    return [
        *_entrance(database, role),
        *(grant(table, ("SELECT",), role) for table in BILLING_RIGHTS if table not in WITHHELD_FROM_READERS),
        _host_users(role),
        policies_for(role, reading=True),
    ]


def token_use(role: str) -> str:
    """Write the right to note when a token was used, and no more of tokens."""
    return f"GRANT UPDATE ({', '.join(TOKEN_COLUMNS)}) ON billing_tokens TO {quoted(role)};"


def _host_users(role: str) -> str:
    """Write the right to look up whether the bearer of a host token is an administrator, and no more of users."""
    return f"GRANT SELECT ({', '.join(USER_COLUMNS)}) ON users TO {quoted(role)};"


def _entrance(database: str, role: str) -> list[str]:
    name = '"' + database.replace('"', '""') + '"'
    return [
        f"GRANT CONNECT ON DATABASE {name} TO {quoted(role)};",
        f"GRANT USAGE ON SCHEMA public TO {quoted(role)};",
    ]
