"""Schema drift: what was undone of the migrations is found before billing runs on it, and repaired."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg import sql
from tests.fleet import Fleet

from containerstacks_billing.charging.model import Outcome
from containerstacks_billing.database.connection import connect
from containerstacks_billing.errors import SchemaMismatch
from containerstacks_billing.schema.catalog import expected_catalog
from containerstacks_billing.schema.drift import expected_schema_problem
from containerstacks_billing.schema.migrator import migrate, plan
from containerstacks_billing.verification.verify import verify

Connection = psycopg.Connection[Any]
TRIGGERS = list(expected_catalog().triggers)
FOR_MONEY = [(name, table) for name, table in TRIGGERS if table != "billing_events"]
# What a function or a trigger is, by whom it may be called and what is said about it.
DEFINITIONS = """
select pg_get_functiondef(oid), obj_description(oid), coalesce(proacl::text, '') from pg_proc
 where pronamespace = 'public'::regnamespace
union all
select pg_get_triggerdef(oid), obj_description(oid), tgenabled::text from pg_trigger where not tgisinternal
order by 1
"""


@pytest.fixture
def fleet(conn: Connection) -> Fleet:
    return Fleet(conn)


def problem(conn: Connection) -> str:
    """What a run would be refused with, and the hint."""
    found = expected_schema_problem(conn)
    return f"{found} {found.hint}" if found else ""


def follow(conn: Connection, hint: str | None) -> None:
    """Run what a hint gives to copy, line by line."""
    for line in (hint or "").splitlines():
        if not line.startswith("--"):
            conn.execute(line.encode())


@pytest.mark.parametrize(("name", "table"), FOR_MONEY)
def test_a_disabled_trigger_is_named_with_its_cure(conn: Connection, name: str, table: str) -> None:
    """Disabled, or kept for replication alone: refused; the statement of the hint makes it well. ALWAYS is enabled too."""
    for state in ("disable", "enable replica"):
        conn.execute(f"alter table {table} {state} trigger {name}".encode())
        found = expected_schema_problem(conn)
        assert found is not None
        assert f"{name} on {table}" in str(found)
        assert f"ALTER TABLE {table} ENABLE TRIGGER {name};" in str(found.hint)
        follow(conn, found.hint)
        assert problem(conn) == ""
    conn.execute(f"alter table {table} enable always trigger {name}".encode())
    assert problem(conn) == ""


def test_stopped_hours_are_not_charged_in_silence(fleet: Fleet, database: str) -> None:
    """An instance stood still while its trigger was disabled: neither a run nor verify takes that for right."""
    instance = fleet.instance(fleet.organization("10.00"), fleet.plan("7.30"))
    fleet.conn.execute("alter table vps_instances disable trigger billing_move_watermark")
    fleet.set(instance, status="stopped")
    fleet.hours(5)
    fleet.set(instance, status="running")
    for ask in (fleet.bill, lambda: verify(database)):
        with pytest.raises(SchemaMismatch, match="billing_move_watermark on vps_instances") as refused:
            ask()
        assert "ENABLE TRIGGER" in str(refused.value.hint)
    assert fleet.charges() == []


def test_migrate_enables_and_says_so(conn: Connection, database: str) -> None:
    """And says that what happened meanwhile went unnoticed."""
    conn.execute("alter table vps_instances disable trigger user")
    (planned,) = plan(database)
    disabled = [name for name, table in TRIGGERS if table == "vps_instances"]
    assert len(planned.effects) == len(disabled)
    assert "on vps_instances, disabled, is to be enabled again." in planned.effects[0]
    (first, *_) = found = migrate(database).findings
    assert len([one for one in found if one.kind == "repaired"]) == len(disabled)
    assert "disabled, was enabled again." in first.sentence
    assert "went unnoticed" in first.sentence
    assert problem(conn) == ""
    assert migrate(database).findings == ()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "table"), TRIGGERS)
def test_migrate_makes_a_dropped_trigger_again(
    conn: Connection, database: str, name: str, table: str
) -> None:
    """As the last migration left it. One that only announces events does not stop billing."""
    before = conn.execute(DEFINITIONS).fetchall()
    conn.execute(f"drop trigger {name} on {table}".encode())
    assert (f"{name} on {table}" in problem(conn)) is (table != "billing_events")
    assert "went unnoticed" in migrate(database).findings[0].sentence
    assert conn.execute(DEFINITIONS).fetchall() == before


def test_migrate_makes_dropped_functions_again(conn: Connection, database: str) -> None:
    """Each object alone with its dependents; alterations, comments and rights are restored too."""
    before = conn.execute(DEFINITIONS).fetchall()
    functions = conn.execute(
        "select oid::regprocedure::text, proname from pg_proc where pronamespace = 'public'::regnamespace"
    ).fetchall()
    for signature, name in functions:
        if name == "billing_clock":  # what columns have as their default goes with it
            continue
        conn.execute(f"drop function {signature} cascade".encode())
        assert (name in problem(conn)) is (
            name not in {"billing_notify_events", "billing_rights", "billing_admit"}
        )
        migrate(database)
        assert (name, conn.execute(DEFINITIONS).fetchall()) == (name, before)


def test_migrate_makes_an_altered_function_again(conn: Connection, database: str) -> None:
    """A body that is not the delivered one: refused by a run, named by the plan, replaced by migrate."""
    before = conn.execute(DEFINITIONS).fetchall()
    conn.execute(
        "create or replace function billing_amount(hourly_rate numeric, started_at timestamptz, ended_at timestamptz)"
        " returns numeric language sql immutable parallel safe as 'select 0.01'"
    )
    assert "Functions are not those that migrations made: billing_amount" in problem(conn)
    (planned,) = plan(database)
    assert planned.effects == ("The function billing_amount, altered, is to be made again.",)
    (finding,) = [one for one in migrate(database).findings if one.kind == "repaired"]
    assert finding.sentence.startswith("The function billing_amount, altered, was made again.")
    assert conn.execute(DEFINITIONS).fetchall() == before
    assert problem(conn) == ""


def test_a_function_of_that_name_with_another_result_is_refused_with_the_way_out(
    conn: Connection, database: str
) -> None:
    """It cannot be replaced; the hint is the statement that makes room."""
    conn.execute("drop function billing_money_text(numeric)")
    conn.execute(
        "create function billing_money_text(amount numeric) returns integer language sql as 'select 1'"
    )
    with pytest.raises(SchemaMismatch, match="cannot change return type") as refused:
        migrate(database)
    assert "DROP FUNCTION billing_money_text(numeric)" in str(refused.value.hint)
    conn.execute("drop function billing_money_text(numeric)")
    migrate(database)
    assert problem(conn) == ""


@pytest.mark.parametrize(
    "table", [name for name in expected_catalog().tables if name.startswith(("vps", "bill"))]
)
def test_a_missing_table_ends_somewhere(conn: Connection, database: str, table: str) -> None:
    """Either migrate makes it again, or it says that only a backup knows what was in there; so says a run."""
    again = {
        "billing_application_sides",
        "billing_daemon_status",
        "billing_quarantine",
        "billing_quarantine_counts",
        "billing_runways",
    }
    silent = {"billing_application_sides", "billing_daemon_status", "billing_tokens", "billing_runways"}
    conn.execute(f"drop table {table} cascade".encode())
    said = problem(conn)
    assert (table in said) is (table not in silent)
    assert ("from a backup" in said) is (table not in silent | again)
    if table in again:
        assert f"The table {table}, missing, was made again." in migrate(database).findings[0].sentence
        assert problem(conn) == ""
        assert conn.execute("select to_regclass(%s) is null", (table,)).fetchone() == (False,)
    else:
        with pytest.raises(SchemaMismatch, match=f"missing.*{table}") as refused:
            migrate(database)
        with pytest.raises(SchemaMismatch, match=str(refused.value)):
            plan(database)
        assert "from a backup" in str(refused.value.hint)


def test_verify_does_not_call_books_right_that_lack_a_table(conn: Connection, database: str) -> None:
    """Without the plans there is nothing to rate by, and so nothing that differs."""
    conn.execute("drop table vps_plans cascade")
    with pytest.raises(SchemaMismatch, match="vps_plans"):
        verify(database)


def test_a_run_writes_again_what_a_table_said_that_was_made_again(fleet: Fleet, database: str) -> None:
    """The quarantine and its counts, after the next run."""
    fleet.instance(fleet.organization("10.00"), "no such plan")
    fleet.hours(1)
    fleet.bill()
    shown = "select reason, instances from billing_quarantine_counts"
    before = fleet.rows(shown)
    assert len(before) == 1
    fleet.conn.execute("drop table billing_quarantine, billing_quarantine_counts")
    migrate(database)
    fleet.hours(1)
    fleet.bill()
    assert fleet.rows(shown) == before


@pytest.mark.parametrize(
    "name", ["vps_billing_cycles_one_charge_per_hour", "vps_billing_cycles_past_due_hours"]
)
def test_a_missing_index_comes_with_its_statement(conn: Connection, database: str, name: str) -> None:
    """Which migrate does not run, because it builds while the host writes; it makes the same index."""
    definition = "select pg_get_indexdef(%s::regclass)"
    before = conn.execute(definition, (name,)).fetchone()
    conn.execute(sql.SQL("drop index {}").format(sql.Identifier(name)))
    with pytest.raises(SchemaMismatch, match=name) as refused:
        migrate(database)
    follow(conn, refused.value.hint)
    assert conn.execute(definition, (name,)).fetchone() == before
    assert problem(conn) == ""


def test_the_hint_of_a_changed_migration_is_its_own(conn: Connection, database: str) -> None:
    """`migrate` would refuse it too, so the hint does not name it."""
    conn.execute("update schema_migrations set checksum = 'other' where version = 12")
    with pytest.raises(SchemaMismatch, match=r"012_billing_daemon_status\.sql was changed") as refused:
        verify(database)
    assert "Restore the file" in str(refused.value.hint)
    assert problem(conn) == f"{refused.value} {refused.value.hint}"


def test_it_is_asked_with_one_look_at_the_catalogs_and_one_at_the_sequences(database: str) -> None:
    """A run begins with it, so it must not cost a question for each object."""
    with connect(database, purpose="reading") as connection:
        asked: list[Any] = []
        original = connection.execute
        connection.execute = lambda *given, **named: asked.append(given) or original(*given, **named)  # type: ignore[method-assign, func-returns-value]
        assert expected_schema_problem(connection) is None
    assert len(asked) == 4


def test_backups_that_the_host_introduced_are_not_left_uncharged_in_silence(
    fleet: Fleet, database: str
) -> None:
    """After the host's own upgrade no run goes on without them; `migrate` adapts, and the next run charges."""
    fleet.instance(fleet.organization("10.00"), fleet.plan("7.30"))
    fleet.conn.execute("alter table vps_instances add backup_frequency varchar(20) default 'none'")
    fleet.hours(1)
    with pytest.raises(SchemaMismatch, match="backups are not rated yet"):
        fleet.bill()
    migrate(database)

    assert Outcome.COMPLETED is fleet.bill().outcome
