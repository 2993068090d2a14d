"""Adoption refuses before it changes anything where a statement of the host would fail afterwards."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from tests.daemons import eventually
from tests.schema.test_adoption import LEGACY, adopt

from containerstacks_billing.errors import SchemaMismatch
from containerstacks_billing.schema.host_statements import broken_statements
from containerstacks_billing.schema.migrator import migrate, plan

_BY_POSITION = """
    create table {table}_history as select now() as changed_at, one.* from {table} one where false;
    create function keep_{table}() returns trigger language plpgsql as
        $$ begin insert into {table}_history select now(), old.*; return null; end $$;
    create trigger keep_history after update or delete on {table} for each row execute function keep_{table}()
"""
_COLUMNS = "select attrelid::regclass::text, attname from pg_attribute where attrelid = 'vps_instances'::regclass and attnum > 0"


# An empty ledger of charges is left out: nothing of it can be updated, and an insert does not fire the trigger.
@pytest.mark.parametrize(
    ("table", "is_empty"),
    [("vps_instances", False), ("vps_instances", True), ("wallets", True), ("vps_billing_cycles", False)],
)
def test_a_trigger_that_copies_rows_by_position_is_refused_by_name(
    empty_database: str, table: str, is_empty: bool
) -> None:
    """Plan and migrate say which trigger fails and why; table, rows and the host's statements are as before; then its cure."""
    with psycopg.connect(empty_database, autocommit=True) as host:
        host.execute(LEGACY.encode())
        if is_empty:
            host.execute("truncate vps_instances, wallets, vps_plans, organizations, users cascade")
        host.execute(_BY_POSITION.format(table=table).encode())
        before = host.execute(_COLUMNS).fetchall(), _rows(host)
        for ask in (plan, migrate):
            with pytest.raises(
                SchemaMismatch, match="INSERT has more expressions than target columns"
            ) as refused:
                ask(empty_database)
            assert f"in {table} (trigger keep_history, function keep_{table})" in str(refused.value)
        assert before == (host.execute(_COLUMNS).fetchall(), _rows(host))

        host.execute(
            f"create or replace function keep_{table}() returns trigger language plpgsql as"
            f" $$ begin insert into {table}_history (changed_at, id) values (now(), old.id); return null; end $$".encode()
        )
        assert "positional_copies" not in adopt(host)


def _rows(host: psycopg.Connection[Any]) -> list[Any]:
    return host.execute(
        "select to_jsonb(i) from vps_instances i union all select to_jsonb(w) from wallets w"
    ).fetchall()


def test_what_fails_without_billing_is_the_hosts_own_affair(empty_database: str) -> None:
    """A trigger that refuses every deletion does so before adoption and after it; one that copies rows in step is warned of."""
    with psycopg.connect(empty_database, autocommit=True) as host:
        host.execute(LEGACY.encode())
        host.execute(
            "create function refuse() returns trigger language plpgsql as"
            " $$ begin raise exception 'instances are kept'; return old.*; end $$"
        )
        host.execute(
            "create trigger refuse before delete on vps_instances for each row execute function refuse()"
        )
        assert adopt(host)["positional_copies"] == 1


def test_a_column_that_another_migrator_adds_meanwhile_is_no_error(empty_database: str) -> None:
    """The trial finds a column missing, waits for the lock of the migrator that adds it, and goes on."""
    with (
        psycopg.connect(empty_database, autocommit=True) as host,
        psycopg.connect(empty_database, autocommit=True) as guard,
        psycopg.connect(empty_database, autocommit=True) as looking,
        ThreadPoolExecutor(1) as pool,
    ):
        host.execute(LEGACY.encode())
        with host.transaction():
            host.execute("alter table wallets add column billing_carry numeric not null default 0")
            trial = pool.submit(broken_statements, guard, lock_timeout="120s")
            eventually(lambda: looking.execute("select pid from pg_locks where not granted").fetchone())
        assert trial.result(timeout=120) is None
