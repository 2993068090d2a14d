"""A ContainerStacks database is adopted in place: nothing of the host's is lost, and what is wrong is counted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.daemons import wait_for_lock

from containerstacks_billing.schema.drift import expected_schema_problem
from containerstacks_billing.schema.files import delivered_schema
from containerstacks_billing.schema.migrator import findings, migrate, plan

LEGACY = (Path(__file__).parent / "legacy.sql").read_text()
ALPHA = "a0000000-0000-4000-8000-000000000000"
PAID_AHEAD = "a0000000-0000-4000-8000-000000000001"
Connection = psycopg.Connection[Any]


@pytest.fixture
def host(empty_database: str) -> Iterator[Connection]:
    """A connection to a ContainerStacks database as its own installer and two years of billing left it."""
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute(LEGACY)
        connection.execute("set time zone 'UTC'")
        yield connection


def adopt(host: Connection) -> dict[str, int | None]:
    """Migrate and return the findings, kind by kind."""
    return {finding.kind: finding.count for finding in migrate(_conninfo(host)).findings}


def _conninfo(host: Connection) -> str:
    return f"{host.info.dsn} password={host.info.password}" if host.info.password else host.info.dsn


def one(host: Connection, query: str, *arguments: object) -> Any:
    """The only value of the only row."""
    row = host.execute(query, arguments).fetchone()
    assert row is not None
    return row[0]


def columns_and_rows(host: Connection) -> dict[str, Any]:
    """Every row of the host's tables, in the columns that the host knows, apart from watermark and stamps."""
    tables = {
        "users": "*",
        "organizations": "*",
        "vps_plans": "*",
        "payment_transactions": "*",
        "wallets": "id, organization_id, balance, currency, created_at",
        "vps_instances": "id, organization_id, plan_id, label, status, created_at, updated_at",
        "vps_billing_cycles": "id, vps_instance_id, billing_period_start, billing_period_end, hourly_rate, total_amount,"
        " status, payment_transaction_id, metadata, created_at, updated_at",
    }
    return {
        table: host.execute(f"select t::text from (select {columns} from {table}) t order by id").fetchall()
        for table, columns in tables.items()
    }


def test_what_the_host_left_is_counted_and_stays(host: Connection) -> None:
    """Hours billed twice, lost cents, several wallets: reported, and not one row is changed."""
    before = columns_and_rows(host)
    found = adopt(host)
    assert found == {
        "missing_wallets": 1,
        "unknown_plans": 1,
        "ambiguous_plans": 1,
        "nonsense_values": 1,
        "future_watermarks": 1,
        "several_wallets": 1,
        "several_currencies": 1,
        "wallet_drift": 3,
        "doubled_cycles": 1,
        "overlapping_cycles": 1,
        "host_failed_cycles": 3,
    }
    assert columns_and_rows(host) == before
    assert expected_schema_problem(host) is None


def test_one_of_anything_is_reported_in_the_singular(host: Connection) -> None:
    """Most findings of a small installation are of one row."""
    adopt(host)
    sentences = {one.kind: one.sentence for one in findings(_conninfo(host)) if one.count == 1}

    assert not [
        sentence
        for sentence in sentences.values()
        if re.search(r"\b1 \w+s (have|are|overlap)\b|\b1 \w+s\b", sentence)
    ]
    assert sentences["several_wallets"].startswith("1 organization has several wallets of one currency")
    assert sentences["unknown_plans"].startswith("1 instance has a plan_id that no plan has")
    assert sentences["doubled_cycles"].startswith("The host application billed 1 period more than once")


def test_every_command_of_a_finding_can_be_run(host: Connection) -> None:
    """The SQL that a finding prints is SQL."""
    adopt(host)
    for finding in findings(_conninfo(host)):
        host.execute(finding.command)


def test_the_watermark_is_the_later_of_mark_and_payment(host: Connection) -> None:
    """An instance is rated from the later of its watermark and the end of what was billed, if that is in the past."""
    adopt(host)
    rows = host.execute(
        "select label, last_billed_at::text, rated_from::text, rated_until::text from vps_instances"
        " where label not in ('timeless', 'far-future') order by id"
    ).fetchall()
    expected = [
        ("paid-ahead", "2025-03-01 03:00:00+00"),
        ("marked-ahead", "2025-03-01 09:00:00+00"),
        ("never-billed", "2025-03-01 05:00:00+00"),
        ("paid-in-future", "2025-03-01 03:00:00+00"),
        ("two-prices", "2025-03-01 00:00:00+00"),
        ("no-plan", "2025-03-01 00:00:00+00"),
        ("no-wallet", "2025-03-01 00:00:00+00"),
    ]
    assert rows == [(label, mark, mark, mark) for label, mark in expected]
    # Born at infinity, billed until the year 2999: nothing to believe, so nothing is written and the run quarantines them.
    unbelievable = host.execute(
        "select last_billed_at::text, rated_from, rated_until from vps_instances"
        " where label in ('timeless', 'far-future') order by label"
    ).fetchall()
    assert unbelievable == [("2999-01-01 00:00:00+00", None, None), (None, None, None)]


def test_openings_make_the_books_balance_from_here_on(host: Connection) -> None:
    """Opening = balance − entries for the oldest wallet of a pair, and the whole balance for the others."""
    adopt(host)
    openings = host.execute(
        "select balance, currency, billing_opening, billing_carry from wallets order by created_at, id"
    ).fetchall()
    carry = Decimal(0)
    assert openings == [
        (Decimal("99.94"), "USD", Decimal("-0.06"), carry),
        (Decimal("0.00"), "USD", Decimal("0.00"), carry),
        (Decimal("10.00"), "USD", Decimal("0.00"), carry),
        (Decimal("5.00"), "USD", Decimal("5.00"), carry),
        (Decimal("7.00"), "EUR", Decimal("4.00"), carry),
    ]


@pytest.mark.parametrize(
    ("currency", "balance", "opening"),
    [
        ("USD", "3.00", "3.00"),  # Alpha has one already: its entries are that wallet's
        ("EUR", "3.00", "-4.00"),  # the first in EUR, where 7.00 were paid in before
        ("USD", "NaN", "0"),
        ("USD", None, "0"),
    ],
)
def test_a_new_wallet_gets_its_opening(
    host: Connection, currency: str, balance: str | None, opening: str
) -> None:
    """The insert of a wallet succeeds for any role and any content, and the books balance."""
    adopt(host)
    host.execute(
        "insert into payment_transactions (organization_id, amount, currency, payment_method, payment_provider, status)"
        " values (%s, 7.00, 'EUR', 'paypal', 'paypal', 'completed')",
        [ALPHA],
    )
    query = "insert into wallets (organization_id, currency, balance) values (%s, %s, %s) returning billing_opening"
    assert one(host, query, ALPHA, currency, balance) == Decimal(opening)


def test_a_wallet_is_inserted_even_when_its_opening_cannot_be_had(host: Connection) -> None:
    """The host's statement never fails because of us, not even without the ledger."""
    adopt(host)
    host.execute("alter table payment_transactions rename to elsewhere")
    query = "insert into wallets (organization_id, currency, balance) values (%s, 'GBP', 3) returning billing_opening"
    assert one(host, query, ALPHA) == Decimal(0)


def test_the_ledger_is_not_rewritten(host: Connection) -> None:
    """The amounts become exact without touching a row: the table keeps its file."""
    file_before = one(host, "select pg_relation_filenode('vps_billing_cycles')")
    adopt(host)
    assert one(host, "select pg_relation_filenode('vps_billing_cycles')") == file_before
    host.execute(
        "insert into vps_billing_cycles (vps_instance_id, organization_id, billing_period_start, billing_period_end,"
        " hourly_rate, total_amount, status, run_id)"
        " values (%s, %s, '2025-04-01', '2025-04-01 01:00', 0.00821918, 0.00821918, 'billed', 1)",
        [PAID_AHEAD, ALPHA],
    )
    assert one(host, "select total_amount from vps_billing_cycles where run_id = 1") == Decimal("0.00821918")


def test_the_hosts_statements_still_work(host: Connection) -> None:
    """The host may still bill an hour its own way, twice over, and read its history."""
    adopt(host)
    for _ in range(2):
        host.execute(
            "insert into vps_billing_cycles (vps_instance_id, organization_id, billing_period_start, billing_period_end,"
            " hourly_rate, total_amount, status, payment_transaction_id, metadata)"
            " values (%s, %s, '2025-03-01 09:00Z', '2025-03-01 10:00Z', 0.0082, 0.01, 'billed', null, '{}')",
            [PAID_AHEAD, ALPHA],
        )
    host.execute(
        "update vps_instances set last_billed_at = '2025-03-01 10:00Z', updated_at = now() where id = %s",
        [PAID_AHEAD],
    )
    history = host.execute(
        "select id from vps_billing_cycles where organization_id = %s order by created_at desc limit 50",
        [ALPHA],
    ).fetchall()
    assert len(history) == 8
    assert adopt(host)["host_still_bills"] == 2


def test_the_hosts_history_is_read_through_an_index(host: Connection) -> None:
    """The page that shows an organization its newest rows, the host's and ours, does not read the whole ledger."""
    adopt(host)
    host.execute("set enable_seqscan = off")
    plan_of_page = host.execute(
        "explain select id from vps_billing_cycles where organization_id = %s order by created_at desc limit 50",
        [ALPHA],
    ).fetchall()
    assert "vps_billing_cycles_one_charge_per_hour" in str(plan_of_page)


def test_charges_outlive_instance_and_organization(host: Connection) -> None:
    """Deleting an instance, or all of an organization, leaves every charge in the ledger."""
    adopt(host)
    before = one(host, "select count(*) from vps_billing_cycles where organization_id = %s", ALPHA)
    host.execute("delete from vps_instances where id = %s", [PAID_AHEAD])
    host.execute("delete from organizations where id = %s", [ALPHA])
    assert (
        one(host, "select count(*) from vps_billing_cycles where organization_id = %s", ALPHA) == before == 6
    )


def test_the_key_holds_for_our_charges_alone(host: Connection) -> None:
    """The host's doubled hour stays; ours is refused a second time."""
    adopt(host)
    charge = (
        "insert into vps_billing_cycles (vps_instance_id, organization_id, billing_period_start, billing_period_end,"
        " hourly_rate, total_amount, status, run_id)"
        " values (%s, %s, '2025-03-01 00:00Z', '2025-03-01 01:00Z', 0.01, 0.01, 'billed', %s)"
    )
    host.execute(charge, [PAID_AHEAD, ALPHA, 1])
    with pytest.raises(psycopg.errors.UniqueViolation):
        host.execute(charge, [PAID_AHEAD, ALPHA, 2])


@pytest.mark.parametrize(
    ("start", "end", "rate", "amount"),
    [
        ("2025-03-01", "2025-03-01", "1", "1"),
        ("2025-03-01", "infinity", "1", "1"),
        ("-infinity", "2025-03-01", "1", "1"),
        ("2025-03-01", "2025-03-02", "NaN", "1"),
        ("2025-03-01", "2025-03-02", "1", "NaN"),
        ("2025-03-01", "2025-03-02", "Infinity", "1"),
        ("2025-03-01", "2025-03-02", "-0.01", "1"),
        ("2025-03-01", "2025-03-02", "1", "0.000000001"),
    ],
)
def test_nonsense_is_refused_in_our_charges_only(
    host: Connection, start: str, end: str, rate: str, amount: str
) -> None:
    """Nine decimals, NaN, infinity and empty periods are refused with a run, and the host may write what it likes."""
    adopt(host)
    row = (
        "insert into vps_billing_cycles (vps_instance_id, organization_id, billing_period_start, billing_period_end,"
        " hourly_rate, total_amount, status, run_id) values (%s, %s, %s, %s, %s, %s, 'billed', %s)"
    )
    with pytest.raises(psycopg.errors.CheckViolation):
        host.execute(row, [PAID_AHEAD, ALPHA, start, end, rate, amount, 1])
    host.execute(row, [PAID_AHEAD, ALPHA, start, end, rate, amount, None])


def test_updated_at_is_stamped_by_the_host_and_not_by_billing(host: Connection) -> None:
    """An edit is stamped; an hour that passed is not an edit."""
    adopt(host)
    stamp = "select updated_at > '2025-02-01 00:00Z' from vps_instances where id = %s"
    host.execute(
        "update vps_instances set last_billed_at = '2025-03-01 04:00Z', rated_until = '2025-03-01 04:00Z' where id = %s",
        [PAID_AHEAD],
    )
    assert one(host, stamp, PAID_AHEAD) is False
    host.execute("update vps_instances set status = 'stopped' where id = %s", [PAID_AHEAD])
    assert one(host, stamp, PAID_AHEAD) is True


@pytest.mark.parametrize(
    "column", ["label = 'renamed'", "configuration = '{\"a\": 1}'", "last_billed_at = now()"]
)
def test_any_edit_of_the_host_is_stamped(host: Connection, column: str) -> None:
    """Whatever the host changes, its trigger still stamps it."""
    adopt(host)
    host.execute(f"update vps_instances set {column} where id = %s", [PAID_AHEAD])
    assert one(host, "select updated_at > '2025-02-01 00:00Z' from vps_instances where id = %s", PAID_AHEAD)


def test_a_watermark_update_touches_no_index(host: Connection) -> None:
    """Room in the page and no index on a watermark: the update stays in the heap (HOT)."""
    adopt(host)
    host.execute("vacuum full vps_instances")
    hot = "select n_tup_hot_upd from pg_stat_user_tables where relname = 'vps_instances'"
    host.execute("select pg_stat_force_next_flush()")
    before = one(host, hot)
    host.execute(
        "update vps_instances set last_billed_at = now(), rated_until = now() where label = 'no-plan'"
    )
    host.execute("select pg_stat_force_next_flush()")
    assert one(host, hot) == before + 1


def test_a_view_on_amounts_is_reported_with_its_cure(host: Connection) -> None:
    """A view that forbids exact amounts stops billing, not the migration; the printed statements set it free."""
    host.execute(
        "create view spent as select organization_id, sum(total_amount) as spent from vps_billing_cycles group by 1"
    )
    (adoption,) = [one for one in plan(_conninfo(host)) if one.version == 1]
    assert any("spent" in effect for effect in adoption.effects)
    report = migrate(_conninfo(host))
    assert "total_amount of vps_billing_cycles holds a fixed number of decimals" in str(
        expected_schema_problem(host)
    )
    (finding,) = [one for one in report.findings if one.kind == "inexact_amounts"]
    host.execute(finding.command)
    assert expected_schema_problem(host) is None
    assert one(host, "select spent from spent where organization_id = %s", ALPHA) == Decimal("0.06")
    assert "inexact_amounts" not in adopt(host)


def test_what_the_hosts_installer_brings_back_is_reported(host: Connection) -> None:
    """Indexes and foreign keys that come back with an upgrade of the host are findings with their cure."""
    adopt(host)
    host.execute("create index idx_vps_billing_cycles_status on vps_billing_cycles (status)")
    host.execute("create index idx_vps_instances_last_billed_at on vps_instances (last_billed_at)")
    host.execute(
        "alter table vps_billing_cycles add foreign key (organization_id) references organizations (id) on delete cascade"
    )
    found = {finding.kind: finding for finding in findings(_conninfo(host))}
    assert (found["costly_indexes"].count, found["fleeting_history"].count) == (2, 1)
    for command in (found["costly_indexes"].command, found["fleeting_history"].command):
        for statement in command.split("; "):
            host.execute(statement)
    assert not {"costly_indexes", "fleeting_history"} & set(adopt(host))


def test_an_index_of_the_operators_stays(host: Connection) -> None:
    """Only what the host's installer made is replaced; what was added on purpose is named and kept."""
    host.execute("create index mine on vps_billing_cycles (status, created_at)")
    assert adopt(host)["costly_indexes"] == 1
    assert one(host, "select to_regclass('mine')::text") == "mine"


def test_nonsense_in_the_hosts_rows_stops_nothing(host: Connection) -> None:
    """NaN and infinity in every place the host can put them are counted, and adoption goes through."""
    host.execute("update wallets set balance = 'NaN' where currency = 'EUR'")
    host.execute("update vps_plans set base_price = 'NaN' where name = 'Small'")
    host.execute("update payment_transactions set amount = 'NaN' where currency = 'EUR'")
    host.execute("update vps_billing_cycles set billing_period_end = 'infinity' where status = 'failed'")
    host.execute("update vps_billing_cycles set total_amount = 'NaN' where status = 'billed'")
    assert adopt(host)["nonsense_values"] == 4 + 9
    assert one(host, "select count(*) from wallets where billing_opening = 'NaN'") == 0


def test_another_table_called_users_is_refused(empty_database: str) -> None:
    """A database that is not the host's is left as it was, with a sentence."""
    from containerstacks_billing.errors import SchemaMismatch

    with psycopg.connect(empty_database, autocommit=True) as stranger:
        stranger.execute("create table users (id serial primary key)")
        with pytest.raises(SchemaMismatch, match=r"not a ContainerStacks database.*users\.id \(uuid\)"):
            migrate(empty_database)
        assert (
            one(
                stranger,
                "select count(*) from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace",
            )
            == 1
        )


def test_the_host_may_change_the_types_of_its_columns(host: Connection) -> None:
    """No trigger of ours names a column of the host's, which would forbid its next migration to widen it."""
    adopt(host)
    for table, column in (
        ("vps_instances", "status"),
        ("vps_instances", "plan_id"),
        ("vps_instances", "label"),
        ("vps_plans", "name"),
        ("wallets", "currency"),
    ):
        host.execute(f"alter table {table} alter column {column} type text")
    host.execute("update vps_instances set status = 'stopped'")


def test_an_hour_that_the_host_bills_amid_adoption_is_not_charged_again(host: Connection) -> None:
    """Adoption waits for the row that the host is moving, and then leaves it alone: the later watermark counts."""
    adopt(host)
    (step,) = [one for one in delivered_schema().tables[0].steps if one.title == "watermarks at adoption"]
    # Not adopted yet.
    host.execute("select set_config('containerstacks_billing.advancing', 'on', false)")
    host.execute("update vps_instances set rated_from = null, rated_until = null where label = 'two-prices'")
    host.execute("select set_config('containerstacks_billing.advancing', 'off', false)")
    with psycopg.connect(_conninfo(host)) as billing, ThreadPoolExecutor() as pool:
        # The host has billed an hour and has not committed yet; there are no triggers at this time of adoption.
        billing.execute("set session_replication_role = replica")
        billing.execute(
            "update vps_instances set last_billed_at = '2025-03-01 11:00+00' where label = 'two-prices'"
        )
        adopting = pool.submit(execute, _conninfo(host), step.sql)
        wait_for_lock(host)
        billing.commit()
        adopting.result()

    marks = (
        "select last_billed_at::text, rated_from, rated_until from vps_instances where label = 'two-prices'"
    )
    assert host.execute(marks).fetchone() == ("2025-03-01 11:00:00+00", None, None)
    # Metering of the row begins with its next update, at the host's own mark.
    host.execute("update vps_instances set label = 'renamed' where label = 'two-prices'")
    rated = "select rated_until::text from vps_instances where label = 'renamed'"
    assert one(host, rated) == "2025-03-01 11:00:00+00"


def execute(conninfo: str, sql: str) -> None:
    """Run a step of a migration on a connection of its own."""
    with psycopg.connect(conninfo) as connection:
        connection.execute(sql.encode())
