"""Least privilege as the migrations offer it: one list with the command, whole or not at all, and for the owner alone."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from containerstacks_billing.database.grants import (
    BILLING_RIGHTS,
    BILLING_SEQUENCES,
    WITHHELD_FROM_READERS,
    billing_grants,
    reading_grants,
)
from containerstacks_billing.schema.drift import expected_schema_problem
from containerstacks_billing.schema.migrator import migrate

Connection = psycopg.Connection[Any]
# Tables of the host that billing neither reads nor writes.
_NONE_OF_OURS = {"users", "organization_members", "networking_config"}


def rights_of(conn: Connection, role: str) -> set[tuple[str, str]]:
    """All that was granted to a role in this database, on whichever kind of object."""
    return set(
        conn.execute(
            """
            select object, privilege_type from (
                select relname, relacl from pg_class
                union all select 'database', datacl from pg_database where datname = current_database()
                union all select nspname, nspacl from pg_namespace
                union all select proname, proacl from pg_proc
                union all select attname, attacl from pg_attribute
            ) as objects (object, acl), aclexplode(acl) where grantee = %s::regrole
            """,
            (sql.Identifier(role).as_string(conn),),
        ).fetchall()
    )


def admit(conn: Connection, role: str, *, reading: bool = False) -> list[str]:
    """Let the function of the migrations give the rights; return the statements that it ran."""
    return [row[0] for row in conn.execute("select billing_admit(%s, %s)", (role, reading)).fetchall()]


@pytest.fixture
def roles(conn: Connection) -> Iterator[list[str]]:
    """Role names that do not exist, one of which needs quotes; the roles created are dropped."""
    names = [f"billing_test_{secrets.token_hex(4)}", f'Billing "test" {secrets.token_hex(4)}']
    yield names
    for name in names:
        if conn.execute("select from pg_roles where rolname = %s", (name,)).fetchone():
            conn.execute(sql.SQL("drop owned by {0}").format(sql.Identifier(name)))
            conn.execute(sql.SQL("drop role {0}").format(sql.Identifier(name)))


def test_the_migrations_and_the_command_have_one_list(conn: Connection) -> None:
    """A migration that makes a table must say in both what billing needs of it, or that it needs nothing."""
    ours = {**BILLING_RIGHTS, **dict.fromkeys(BILLING_SEQUENCES, ("USAGE",))}
    assert ours == {name: tuple(rights) for name, rights in conn.execute("select * from billing_rights()")}
    looking = {name: ["SELECT"] for name in set(BILLING_RIGHTS) - WITHHELD_FROM_READERS}
    assert looking == dict(conn.execute("select * from billing_rights(reading => true)").fetchall())
    tables = conn.execute("select tablename from pg_tables where schemaname = 'public'").fetchall()
    assert set() == {name for (name,) in tables} - set(BILLING_RIGHTS) - _NONE_OF_OURS


@pytest.mark.parametrize("reading", [False, True])
def test_a_role_is_given_what_the_command_prints(conn: Connection, roles: list[str], reading: bool) -> None:
    """Right by right the same on every object; saying it twice changes nothing, and one that is new cannot log in."""
    called, printed = roles
    said = admit(conn, called, reading=reading)
    conn.execute(sql.SQL("create role {}").format(sql.Identifier(printed)))
    for statement in (reading_grants if reading else billing_grants)(conn.info.dbname, printed):
        conn.execute(statement.encode())

    assert rights_of(conn, printed) == rights_of(conn, called)
    assert len(said) == 3 + len(BILLING_RIGHTS) + (-1 if reading else 1 + len(BILLING_SEQUENCES))
    assert said == admit(conn, called, reading=reading)
    assert rights_of(conn, printed) == rights_of(conn, called)
    assert (False,) == conn.execute(
        "select rolcanlogin from pg_roles where rolname = %s", (called,)
    ).fetchone()


def test_a_reader_becomes_a_biller_and_any_name_will_do(conn: Connection, roles: list[str]) -> None:
    """A name that needs quotes is a name; what the call is for can change, and it only ever adds."""
    called, odd = roles
    admit(conn, odd, reading=True)
    looking = rights_of(conn, odd)
    admit(conn, odd)
    admit(conn, called)
    assert looking < rights_of(conn, odd) == rights_of(conn, called)
    admit(conn, odd, reading=True)
    assert rights_of(conn, odd) == rights_of(conn, called)


@pytest.mark.parametrize("name", ["public", "none", "", "pg_monitor", None])
def test_everybody_is_no_role(conn: Connection, name: str | None) -> None:
    """Granting to a role called public would open the ledger to every role of the server."""
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        conn.execute("select billing_admit(%s)", (name,))


def test_nobody_else_may_call_it(conn: Connection, database: str, role: str) -> None:
    """Neither an unknown role nor billing itself; and to one who is let call it, it is worth nothing."""
    for _ in range(2):
        with (
            psycopg.connect(database, user=role, password=role, autocommit=True) as stranger,
            pytest.raises(psycopg.errors.InsufficientPrivilege),
        ):
            stranger.execute("select billing_admit(%s)", (role,))
        before = rights_of(conn, role)
        admit(conn, role)
        assert before <= rights_of(conn, role)
    conn.execute(sql.SQL("drop owned by {0}").format(sql.Identifier(role)))
    conn.execute(sql.SQL("grant execute on function billing_admit to {}").format(sql.Identifier(role)))
    with (
        psycopg.connect(database, user=role, password=role, autocommit=True) as stranger,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        stranger.execute("select billing_admit(%s)", (role,))
    assert {("billing_admit", "EXECUTE")} == rights_of(conn, role)


def test_it_is_everything_or_nothing(conn: Connection, database: str, role: str, roles: list[str]) -> None:
    """The owner of the tables who does not own the database cannot grant CONNECT: an error, not a warning."""
    admitted = roles[0]
    conn.execute(sql.SQL("create role {}").format(sql.Identifier(admitted)))
    conn.execute(
        sql.SQL("revoke connect on database {} from public").format(sql.Identifier(conn.info.dbname))
    )
    owner = conn.execute("select current_user").fetchone()
    assert owner is not None
    with conn.transaction(force_rollback=True):
        conn.execute(
            sql.SQL("grant connect on database {} to {}").format(
                *map(sql.Identifier, (conn.info.dbname, role))
            )
        )
        conn.execute(sql.SQL("alter function billing_admit owner to {}").format(sql.Identifier(role)))
        for name in BILLING_RIGHTS:
            conn.execute(
                sql.SQL("alter table {} owner to {}").format(sql.Identifier(name), sql.Identifier(role))
            )
        conn.execute(sql.SQL("set local role {}").format(sql.Identifier(role)))
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="still lack CONNECT on the database"):
            with conn.transaction():
                admit(conn, admitted)
    assert set() == rights_of(conn, admitted)


def test_more_than_is_needed_is_said(conn: Connection, role: str) -> None:
    """The rights of an application that bills by itself are kept, and no missing right is reported."""
    said: list[str] = []
    conn.add_notice_handler(lambda notice: said.append(f"{notice.severity}: {notice.message_primary}"))
    admit(conn, role)
    assert [] == said
    conn.execute(sql.SQL("grant delete on payment_transactions to {}").format(sql.Identifier(role)))
    admit(conn, role)
    assert 1 == len(said)
    assert "WARNING" in said[0]
    assert said[0].endswith("to payment_transactions")
    assert ("payment_transactions", "DELETE") in rights_of(conn, role)


def test_the_record_of_migrations_may_have_another_name(conn: Connection, database: str, role: str) -> None:
    """Where schema_migrations is another tool's, that one stays closed, and billing still sees which schema it has."""
    conn.execute("alter table schema_migrations rename to containerstacks_billing_migrations")
    conn.execute("create table schema_migrations (version text)")
    admit(conn, role)
    given = {right for right in rights_of(conn, role) if "migrations" in right[0]}
    assert {("containerstacks_billing_migrations", "SELECT")} == given
    with psycopg.connect(database, user=role, password=role, autocommit=True) as billing:
        assert expected_schema_problem(billing) is None


def test_columns_of_later_migrations_are_included(conn: Connection, database: str, role: str) -> None:
    """Rights are those of whole tables; migrating again leaves them as they are."""
    admit(conn, role)
    before = rights_of(conn, role)
    conn.execute("alter table vps_instances add column of_later integer")
    migrate(database)
    with psycopg.connect(database, user=role, password=role, autocommit=True) as billing:
        billing.execute("update vps_instances set of_later = 1")
    assert before == rights_of(conn, role)
