"""The rights that billing needs, table by table, and the GRANT statements that give them.

Kept in one place so that an error message, `doctor` and the documents name the same rights. Nothing here
allows DDL: only `migrate` changes the schema, as the owner of the tables.
"""

from __future__ import annotations

import re

# What the daemon, built-in billing and `run` do to each table. A row lock needs UPDATE.
BILLING_RIGHTS: dict[str, tuple[str, ...]] = {
    "organizations": ("SELECT",),
    "wallets": ("SELECT", "UPDATE"),
    "vps_plans": ("SELECT",),
    "vps_instances": ("SELECT", "UPDATE"),
    "payment_transactions": ("SELECT", "INSERT"),
    "vps_billing_cycles": ("SELECT", "INSERT", "UPDATE"),
    "billing_daemon_status": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "billing_runs": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "billing_leases": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "schema_migrations": ("SELECT",),
}

# Tables of ours that an operator's role meets through the tables above; read and written alike.
_OURS = ("SELECT", "INSERT", "UPDATE")


def quoted(identifier: str) -> str:
    """Quote an identifier where PostgreSQL needs it."""
    if re.fullmatch(r"[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)?", identifier) or identifier.startswith(
        ('"', "<")
    ):
        return identifier
    return '"' + identifier.replace('"', '""') + '"'


def grant(table: str, rights: tuple[str, ...], role: str) -> str:
    """Write one GRANT statement."""
    return f"GRANT {', '.join(rights)} ON {quoted(table)} TO {quoted(role)};"


def grants_for(table: str, role: str) -> list[str]:
    """Write the statements that give a role what it needs on a table; empty when no table is named."""
    return [grant(table, BILLING_RIGHTS.get(table, _OURS), role)] if table else []
