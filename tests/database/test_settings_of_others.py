"""No setting of server, database, role or connection string changes a result or hides a row: a day of a small fleet under each."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from tests.command import Command
from tests.fleet import Fleet

from containerstacks_billing.charging.model import Outcome
from containerstacks_billing.database.conninfo import read
from containerstacks_billing.errors import ConfigurationError
from containerstacks_billing.verification.verify import verify

# Several in one day, for a day takes two seconds; what belongs to one subject is apart, so that none hides another.
DAYS: dict[str, dict[str, str]] = {
    "dates and isolation": {
        "DateStyle": "SQL, DMY",
        "IntervalStyle": "iso_8601",
        "TimeZone": "Asia/Kathmandu",
        "default_transaction_isolation": "serializable",
        "plan_cache_mode": "force_generic_plan",
    },
    "German dates": {
        "DateStyle": "German",
        "IntervalStyle": "sql_standard",
        "timezone_abbreviations": "Australia",
        "default_transaction_isolation": "repeatable read",
        "default_transaction_deferrable": "on",
        "extra_float_digits": "-15",
        "lc_numeric": "C",
    },
    "dates and bytes of PostgreSQL": {
        "DateStyle": "Postgres, MDY",
        "bytea_output": "escape",
        "xmlbinary": "hex",
        "client_encoding": "LATIN1",
        "array_nulls": "off",
        "transform_null_equals": "on",
    },
    "read only": {"default_transaction_read_only": "on", "row_security": "off", "constraint_exclusion": "on"},
    "names and quotes": {
        "search_path": "nowhere, public",
        "standard_conforming_strings": "off",
        "backslash_quote": "off",
        "quote_all_identifiers": "on",
        "check_function_bodies": "off",
        "plpgsql.variable_conflict": "use_column",
    },
}


def day(fleet: Fleet) -> tuple[Any, ...]:
    """Let a small fleet have a day: an ordinary hour, a resize, a stop, a deletion, money that is short and comes."""
    rich, poor = fleet.organization("100.00"), fleet.organization("0.02")
    small, large = fleet.plan("7.30"), fleet.plan("73.00")
    web, db, gone = fleet.instance(rich, small), fleet.instance(rich, large), fleet.instance(rich, small)
    fleet.instance(poor, small, label="Zürich")
    outcomes = []
    for hour in range(1, 7):
        fleet.hours(0.5)
        if hour == 2:
            fleet.set(web, plan_id=large)
        if hour == 3:
            fleet.set(db, status="stopped")
        if hour == 4:
            fleet.delete(gone)
            fleet.top_up(poor, "5.00")
        fleet.hours(0.5)
        outcomes.append(fleet.bill().outcome)
    amounts = fleet.rows(
        "select coalesce(sum(total_amount), 0) as total from vps_billing_cycles where run_id is not null"
    )
    return set(outcomes), amounts[0].total, [fleet.balance(one) for one in (rich, poor)]


EXPECTED = (
    {Outcome.COMPLETED},
    Decimal("0.76"),
    [(Decimal("99.30"), Decimal(0)), (Decimal("4.96"), Decimal(0))],
)


@pytest.mark.parametrize("settings", DAYS.values(), ids=DAYS.keys())
def test_a_day_under_settings_of_the_database(
    conn: psycopg.Connection[Any], server: str, command: Command, settings: dict[str, str]
) -> None:
    """ALTER DATABASE … SET: charges, balances and books are the same, and the commands that look say the same."""
    fleet = Fleet(conn)
    before = command("status", "--json", environment={"DATABASE_URL": fleet.conninfo}).returncode
    with psycopg.connect(server, autocommit=True) as admin:
        for name, value in settings.items():
            admin.execute(
                sql.SQL("alter database {} set {} = {}").format(
                    sql.Identifier(conn.info.dbname),
                    sql.SQL(name),
                    sql.SQL(value if name == "search_path" else "{}").format(sql.Literal(value)),
                )
            )
    found = day(fleet)
    said = command("status", "--json", environment={"DATABASE_URL": fleet.conninfo})

    assert EXPECTED == found
    assert verify(fleet.conninfo).ok
    assert before == said.returncode, said.stderr


@pytest.mark.parametrize("day_of", ["dates and isolation", "names and quotes", "read only"])
def test_a_day_under_settings_of_the_role_in_the_database(
    conn: psycopg.Connection[Any], server: str, day_of: str
) -> None:
    """ALTER ROLE … IN DATABASE … SET, which goes before what is set for the database alone."""
    fleet = Fleet(conn)
    with psycopg.connect(server, autocommit=True) as admin:
        for name, value in DAYS[day_of].items():
            admin.execute(
                sql.SQL("alter role {} in database {} set {} = {}").format(
                    sql.Identifier(conn.info.user),
                    sql.Identifier(conn.info.dbname),
                    sql.SQL(name),
                    sql.SQL(value if name == "search_path" else "{}").format(sql.Literal(value)),
                )
            )

    assert EXPECTED == day(fleet)
    assert verify(fleet.conninfo).ok


@pytest.mark.parametrize("day_of", ["German dates", "names and quotes", "read only"])
def test_a_day_under_settings_of_the_connection_string(conn: psycopg.Connection[Any], day_of: str) -> None:
    """The options of DATABASE_URL, which go before all that is set on the server."""
    fleet = Fleet(conn)
    escaped = {name: value.replace(" ", "\\ ") for name, value in DAYS[day_of].items()}
    options = " ".join(f"-c {name}={value}" for name, value in escaped.items())
    fleet.conninfo = make_conninfo(fleet.conninfo, options=options)

    assert EXPECTED == day(fleet)
    assert verify(fleet.conninfo).ok


@pytest.mark.parametrize("name", ["schema", "search_path", "currentSchema"])
def test_a_parameter_that_names_another_schema_is_refused(name: str) -> None:
    """The tables of another schema would not be found, and migrate would make empty ones beside them."""
    with pytest.raises(
        ConfigurationError, match=f"The parameter {name} of DATABASE_URL names another schema"
    ):
        read(f"postgresql://billing@localhost/host?{name}=app")

    assert "dbname" in read(f"postgresql://billing@localhost/host?{name}=public").parameters
