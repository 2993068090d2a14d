"""Columns and rights that change after adoption: the host's statements go on, and billing says what it needs."""

from __future__ import annotations

from decimal import Decimal

import psycopg
import pytest
from psycopg import sql
from tests.fleet import Fleet

from containerstacks_billing.database.connection import connect
from containerstacks_billing.database.inspect import denied_writers
from containerstacks_billing.errors import SchemaMismatch
from containerstacks_billing.reconciliation.model import Action
from containerstacks_billing.reconciliation.reconcile import Settlement, settle
from containerstacks_billing.schema.drift import expected_schema_problem
from containerstacks_billing.schema.lost_columns import REMADE
from containerstacks_billing.schema.migrator import migrate
from containerstacks_billing.verification.verify import verify

# What is done to the host's table, what is said of it, and what undoes it.
CHANGES = [
    (
        "alter table vps_instances rename column status to state",
        "vps_instances.status (missing)",
        "alter table vps_instances rename column state to status",
    ),
    (
        "alter table vps_instances alter column plan_id type uuid using plan_id::uuid",
        "vps_instances.plan_id (uuid instead of text)",
        "alter table vps_instances alter column plan_id type varchar(255)",
    ),
    (
        "alter table vps_instances rename column created_at to made_at",
        "vps_instances.created_at (missing)",
        "alter table vps_instances rename column made_at to created_at",
    ),
    (
        "alter table vps_billing_cycles drop column past_due_batch",
        "vps_billing_cycles.past_due_batch (missing)",
        "alter table vps_billing_cycles add column past_due_batch integer",
    ),
]


@pytest.mark.parametrize(("change", "said", "undone"), CHANGES, ids=[one[1].split(" ")[0] for one in CHANGES])
def test_the_host_goes_on_without_a_column(
    conn: psycopg.Connection, change: str, said: str, undone: str
) -> None:
    """Its insert, update and delete succeed, in the same session and in a new one; run, verify and migrate name the column."""
    fleet = Fleet(conn)
    acme, plan = fleet.organization("10.00"), fleet.plan("7.30")
    webs = [fleet.instance(acme, plan) for _ in range(3)]
    fleet.set(webs[0], label="renamed")
    conn.execute(change.encode())
    with psycopg.connect(fleet.conninfo, autocommit=True) as other:
        for session, web in ((conn, webs[0]), (other, webs[1])):
            session.execute(
                "insert into vps_instances (organization_id, plan_id, provider_instance_id, label) values (%s, %s, '1', 'new')",
                (acme, plan if "uuid" in change else str(plan)),
            )
            session.execute(
                "update vps_instances set label = 'edited', last_billed_at = now() where id = %s", (web,)
            )
            session.execute("delete from vps_instances where id = %s", (web,))
            session.execute("insert into wallets (organization_id, balance) values (%s, 1)", (acme,))
    for ask in (fleet.bill, lambda: verify(fleet.conninfo), lambda: migrate(fleet.conninfo)):
        with pytest.raises(SchemaMismatch) as refused:
            ask()
        assert said in str(refused.value)
    filed = fleet.rows("select error from billing_metering_failures")
    assert bool(filed) is ("vps_instances" in said and "plan_id" not in said)

    conn.execute(undone.encode())
    migrate(fleet.conninfo)
    assert expected_schema_problem(conn) is None


def test_roles_of_the_host_may_call_what_triggers_call(
    conn: psycopg.Connection, role: str, database: str
) -> None:
    """After EXECUTE was taken from PUBLIC the role is named, and migrate gives it back to who may write the table."""
    fleet = Fleet(conn)
    web = fleet.instance(fleet.organization("10.00"), fleet.plan("7.30"))
    conn.execute(
        sql.SQL("grant select, insert, update, delete on vps_instances to {}").format(sql.Identifier(role))
    )
    conn.execute("revoke execute on all functions in schema public from public")
    with psycopg.connect(database, user=role, password=role, autocommit=True) as host:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            host.execute("update vps_instances set status = 'stopped' where id = %s", (web,))
        with connect(database, purpose="reading") as connection:
            assert denied_writers(connection) == (role,)
        migrate(database)
        with connect(database, purpose="reading") as connection:
            assert denied_writers(connection) == ()
        host.execute("update vps_instances set status = 'stopped' where id = %s", (web,))
        host.execute("delete from vps_instances where id = %s", (web,))


# Columns of billing that migrate makes again, and what only a person can decide afterwards.
LOST = [
    ("wallets.billing_carry", []),
    ("wallets.billing_opening", []),
    ("wallets.past_due_since", []),
    ("vps_instances.rated_from", ["metering"]),
    ("vps_instances.rated_until", ["metering"]),
    ("vps_instances.pending_segments", ["gaps", "metering"]),
    ("vps_instances.sealed_by", []),
    ("vps_instances.lasting_status", ["metering"]),
]


@pytest.mark.parametrize(("column", "left"), LOST, ids=[column for column, _ in LOST])
def test_migrate_makes_a_column_of_billing_again(
    conn: psycopg.Connection, column: str, left: list[str]
) -> None:
    """Carry, opening, mark and watermark come from the books; the rest is named, settled, and the books close again."""
    fleet = Fleet(conn)
    plan = fleet.plan("10.00")
    rich, poor = fleet.organization("10.00"), fleet.organization("0.01")
    web = fleet.instance(rich, plan)
    fleet.instance(poor, plan)
    fleet.hours(3)
    fleet.bill()
    fleet.hours(1)
    fleet.set(web, plan_id=fleet.plan("20.00"))
    before = fleet.rows("select * from wallets order by id")
    table, name = column.split(".")
    conn.execute(f"alter table {table} drop column {name} cascade".encode())
    fleet.top_up(rich, "5.00")
    fleet.set(web, label="edited")
    for ask in (fleet.bill, lambda: verify(fleet.conninfo)):
        with pytest.raises(SchemaMismatch) as refused:
            ask()
        assert (True, REMADE) == (f"{column} (missing)" in str(refused.value), refused.value.hint)
    assert [f"The column {column}, missing, was made again."] == [
        one.sentence.partition(" What")[0]
        for one in migrate(fleet.conninfo).findings
        if f"column {column}" in one.sentence
    ]
    assert [(one.billing_carry, one.billing_opening, one.past_due_since) for one in before] == [
        (one.billing_carry, one.billing_opening, one.past_due_since)
        for one in fleet.rows("select * from wallets order by id")
    ]
    assert left == sorted({one.check for one in verify(fleet.conninfo).discrepancies})
    settle(fleet.conninfo, Settlement(Action.RESTORE, "anna", "dropped by the host"))
    settle(fleet.conninfo, Settlement(Action.ACCEPT, "anna", "dropped by the host"))
    fleet.hours(2)
    fleet.bill()
    # Ten dollars a month for four hours, twenty for two.
    assert Decimal("0.10958904") == sum(Decimal(amount) for _, _, amount, _ in fleet.charges(web))
    assert verify(fleet.conninfo).discrepancies == ()
