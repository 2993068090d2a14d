"""Role of least privilege for the billers of a drill, created by `billing_admit()` where the server allows it.

The role has the name of the drill's database and goes with it; nothing is granted outside of that database. Where the
role of TEST_DATABASE_URL may make none, or the server does not let a new one log in, billers are the owner, and
the report says so.
"""

from __future__ import annotations

import secrets
from dataclasses import replace

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from containerstacks_billing.drill.environment import DrillEnvironment


def admit_biller(stage: DrillEnvironment) -> DrillEnvironment:
    """Return the stage with a biller of least privilege; its tables have to be there already."""
    password = secrets.token_urlsafe(24)
    with psycopg.connect(stage.conninfo, autocommit=True, connect_timeout=5) as conn:
        name = conn.info.dbname
        database, role = sql.Identifier(name), sql.Identifier(name)
        # Sent as it will be kept, so that no log of the server holds the password.
        kept = conn.pgconn.encrypt_password(password.encode(), name.encode()).decode()
        try:
            conn.execute(sql.SQL("create role {} login password {}").format(role, sql.Literal(kept)))
        except psycopg.errors.InsufficientPrivilege:
            return replace(stage, owner_bills="the role of TEST_DATABASE_URL may make no other")
        # Not even a temporary table.
        conn.execute(sql.SQL("revoke all on database {} from public").format(database))
        conn.execute("revoke all on schema public from public")
        conn.execute("select billing_admit(%s)", (name,))
    billing = make_conninfo(stage.conninfo, user=name, password=password)
    try:
        psycopg.connect(billing, connect_timeout=5).close()
    except psycopg.OperationalError:
        return replace(stage, owner_bills="the server does not let a new role log in")
    return replace(stage, billing=billing, owner_bills=None)
