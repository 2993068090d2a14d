"""Database roles of a round: the product's, the host application's, the owner's.

The product's role has the grants of `billing_admit()` and nothing else; the host's role has its own tables and none of
ours. Only operator and oracle connect as the owner.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

BILLING = "billing_of_rounds"
HOST = "host_of_rounds"
_PASSWORD = "a password for tests on loopback"
_HOST_TABLES = (
    "users",
    "organizations",
    "wallets",
    "vps_plans",
    "vps_instances",
    "payment_transactions",
)
# How the server and the product word a missing right.
_WORDS = ("permission denied", "must be owner", "ights are missing", "lacks rights")
_LINES_SHOWN = 12


def make_roles(conn: psycopg.Connection[Any]) -> None:
    """Create both roles on a new server, without rights."""
    for name in (BILLING, HOST):
        conn.execute(
            sql.SQL("create role {} login password {}").format(sql.Identifier(name), sql.Literal(_PASSWORD))
        )


def connect_as(role: str, conninfo: str) -> str:
    """Return the owner's connection string as that of one of the roles."""
    return make_conninfo(conninfo, user=role, password=_PASSWORD)


def admit_billing(conn: psycopg.Connection[Any], role: str = BILLING) -> None:
    """Grant the product's role the rights of `billing_admit()`, and revoke those of PUBLIC."""
    database = sql.Identifier(conn.info.dbname)
    conn.execute(sql.SQL("revoke all on database {} from public").format(database))
    conn.execute("revoke all on schema public from public")
    conn.execute("select billing_admit(%s)", (role,))


def admit_host(conn: psycopg.Connection[Any], role: str = HOST) -> None:
    """Grant the host's role its own tables, and the column of the oracle's journal that records when a price was seen."""
    who = sql.Identifier(role)
    conn.execute(sql.SQL("grant connect on database {} to {}").format(sql.Identifier(conn.info.dbname), who))
    conn.execute(sql.SQL("grant usage on schema public, oracle to {}").format(who))
    tables = sql.SQL(", ").join(sql.Identifier(table) for table in _HOST_TABLES)
    conn.execute(sql.SQL("grant select, insert, update, delete on {} to {}").format(tables, who))
    conn.execute(sql.SQL("grant select, update on oracle.prices to {}").format(who))


def missing_rights(logs: Iterable[Path]) -> list[str]:
    """Return the first log lines that report a missing right."""
    lines = [
        line
        for log in logs
        if log.exists()
        for line in log.read_text(errors="replace").splitlines()
        if any(word in line for word in _WORDS)
    ]
    return lines[:_LINES_SHOWN]
