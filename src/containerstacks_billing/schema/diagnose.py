"""Diagnosis of a database error: the missing rights or migrations behind it, by a query of the same database.

A server that refuses a statement names the table and not the right; one that does not find a table knows nothing of
migrations. Nothing depends on the diagnosis: where its query fails too, the first error is raised as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from containerstacks_billing.database.connection import Connection, bounded_transaction, connect
from containerstacks_billing.database.errors import translate
from containerstacks_billing.database.grants import every_right_hint, grants_for, quoted
from containerstacks_billing.database.inspect import may_read, missing_grants, usable_schema
from containerstacks_billing.errors import BillingError, RightsMissing, SchemaMismatch
from containerstacks_billing.schema.drift import expected_schema_problem


@contextmanager
def diagnosed(conninfo: str) -> Iterator[None]:
    """Run a block of database work; raise driver errors as ours, with the missing rights or migrations in the hint."""
    try:
        yield
    except psycopg.Error as error:
        raise with_diagnosis(translate(error, conninfo), conninfo) from error


def with_diagnosis(fault: BillingError, conninfo: str) -> BillingError:
    """Return a fault with what a look at the database adds to it: the rights or the migrations that are missing."""
    if not isinstance(fault, (RightsMissing, SchemaMismatch)):
        return fault
    try:
        with connect(conninfo, purpose="reading") as connection, bounded_transaction(connection):
            if isinstance(fault, RightsMissing):
                return _rights(fault, connection)
            return expected_schema_problem(connection) or fault
    except RightsMissing as rights:
        return rights
    except (BillingError, psycopg.Error):
        return fault


def _rights(fault: RightsMissing, connection: Connection) -> RightsMissing:
    role = connection.info.user
    if "for schema" in str(fault):
        if usable_schema(connection):
            return RightsMissing(
                f"The database role {role} may not create anything in the schema public.",
                "Run `containerstacks-billing migrate` as the owner of the tables; or, on an empty database, first:\n"
                f"GRANT CREATE ON SCHEMA public TO {quoted(role)};",
            )
        return RightsMissing(str(fault), f"GRANT USAGE ON SCHEMA public TO {quoted(role)};")
    if "for table" not in str(fault):
        return fault
    if "for table users" in str(fault):
        return RightsMissing(str(fault), "\n".join(grants_for("users", role)))
    if not may_read(connection):
        return RightsMissing(str(fault), every_right_hint(role))
    grants = missing_grants(connection, role)
    hint = "\n".join(grants) or (
        "The role has all that billing needs, and this is more: do it as the owner of the tables."
    )
    return RightsMissing(str(fault), hint)
