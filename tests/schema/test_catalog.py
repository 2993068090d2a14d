"""Every way to the schema of this version ends in the same catalog, which is the one that is delivered with it."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tools.catalog import difference

from containerstacks_billing.errors import SchemaMismatch
from containerstacks_billing.schema.catalog import expected_catalog, read_catalog
from containerstacks_billing.schema.drift import expected_schema_problem
from containerstacks_billing.schema.files import delivered_schema
from containerstacks_billing.schema.migrator import migrate, plan, status
from containerstacks_billing.schema.model import MigrationState
from containerstacks_billing.schema.squash import REPLACED

HERE = Path(__file__).parent
LEGACY = (HERE / "legacy.sql").read_text()
# What the twenty migrations before the first release made, with their record.
RECORDED = (HERE / "recorded_031.sql").read_text()
DELIVERED = (files("containerstacks_billing.schema") / "catalog.txt").read_text("utf-8").splitlines()
RENEW = "if the change is meant: ./dev catalog --write"
Connection = psycopg.Connection[Any]


def catalog(database: str) -> list[str]:
    """What a database holds."""
    with psycopg.connect(database, autocommit=True) as connection:
        return read_catalog(connection)


def load(database: str, text: str) -> None:
    """Run the statements of a file."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(text.encode())


def test_an_empty_database_gets_the_delivered_catalog(database: str) -> None:
    """The page that drift compares with is what the files make."""
    assert catalog(database) == DELIVERED, RENEW


def test_an_adopted_host_differs_by_what_is_its_own(empty_database: str) -> None:
    """Its defaults, its view and its row triggers; of ours it has everything, to the letter."""
    load(empty_database, LEGACY)
    migrate(empty_database)
    expected = (HERE / "adopted_catalog.txt").read_text()
    assert difference(DELIVERED, catalog(empty_database)) == expected, RENEW
    ours = [line for line in expected.splitlines() if line.startswith("-") and "billing_" in line]
    assert [line for line in ours if "vps_billing_cycles.id " not in line] == []


def test_a_database_of_the_twenty_migrations_goes_on(empty_database: str) -> None:
    """All of them in the record count as the baseline: code and what came later is applied, and the catalog is the same."""
    load(empty_database, RECORDED)
    with psycopg.connect(empty_database, autocommit=True) as connection:
        assert "the first is" in str(expected_schema_problem(connection))
    later = [file.name for file in delivered_schema().files if file.version not in (1, 12)]
    assert [one.name for one in plan(empty_database)] == later
    assert [one.name for one in migrate(empty_database).applied] == later
    assert catalog(empty_database) == DELIVERED
    assert migrate(empty_database).applied == ()
    assert {one.state for one in status(empty_database)} == {MigrationState.APPLIED}
    with psycopg.connect(empty_database, autocommit=True) as connection:
        assert expected_schema_problem(connection) is None


@pytest.mark.parametrize("missing", [31, 13, 1])
def test_a_part_of_the_twenty_migrations_is_refused(empty_database: str, missing: int) -> None:
    """No file continues there: migrate, the plan and a run say which is missing and which version has it."""
    load(empty_database, RECORDED)
    load(empty_database, f"delete from schema_migrations where version = {missing}")
    before = catalog(empty_database)
    said = f"19 of the 20 migrations .* missing is {missing:03}_{REPLACED[missing][0]}"
    for ask in (migrate, plan):
        with pytest.raises(SchemaMismatch, match=said) as refused:
            ask(empty_database)
        assert "of the version that applied them" in str(refused.value.hint)
    with psycopg.connect(empty_database, autocommit=True) as connection:
        problem = expected_schema_problem(connection)
    assert str(problem) == str(refused.value)
    assert MigrationState.UNKNOWN in {one.state for one in status(empty_database)}
    assert catalog(empty_database) == before


def test_another_text_of_one_of_the_twenty_is_refused(empty_database: str) -> None:
    """A checksum that is not the known one means tables that are not the known ones."""
    load(empty_database, RECORDED)
    load(empty_database, "update schema_migrations set checksum = 'other' where version = 27")
    with pytest.raises(SchemaMismatch, match=r"027_kept_stretches\.sql was changed before it was applied"):
        migrate(empty_database)


def test_the_page_names_every_object(conn: Connection) -> None:
    """Tables, functions and triggers as drift reads them are those of a fresh database, not one more or less."""
    expected = expected_catalog()
    tables = conn.execute(
        "select relname from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace"
        " and relname <> 'schema_migrations'"
    )
    assert sorted(name for (name,) in tables) == sorted(expected.tables)
    functions = conn.execute("select proname from pg_proc where pronamespace = 'public'::regnamespace")
    assert sorted(name for (name,) in functions) == sorted(
        one.partition("(")[0] for one, _ in expected.functions
    )
    triggers = conn.execute("select tgname, tgrelid::regclass::text from pg_trigger where not tgisinternal")
    assert sorted(triggers.fetchall()) == sorted(expected.triggers)
