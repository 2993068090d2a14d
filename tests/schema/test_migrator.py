"""Migrations are applied once, by however many processes, however often, and wherever they are killed."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import Queue
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from containerstacks_billing import schema
from containerstacks_billing.errors import DatabaseUnavailable, RightsMissing, SchemaMismatch
from containerstacks_billing.sandbox.programs import find_programs
from containerstacks_billing.schema.catalog import read_catalog
from containerstacks_billing.schema.drift import expected_schema_problem
from containerstacks_billing.schema.files import CODE, DeliveredSchema, delivered_schema
from containerstacks_billing.schema.lock import Patience
from containerstacks_billing.schema.migrator import migrate, plan, status
from containerstacks_billing.schema.model import MigrationState

LEGACY = (Path(__file__).parent / "legacy.sql").read_text()
ROOM = Path(schema.__file__).parent
Connection = psycopg.Connection[Any]

# A process of its own that migrates, and kills itself without warning before its statement of the given number.
MIGRATE_AND_DIE = """
import os, signal, sys
import psycopg
from containerstacks_billing.schema.migrator import migrate
statements = 0
def counting(execute):
    def counted(self, *arguments, **options):
        global statements
        statements += 1
        if statements == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        return execute(self, *arguments, **options)
    return counted
psycopg.Connection.execute = counting(psycopg.Connection.execute)
migrate(sys.argv[1], progress=lambda sentence: print(sentence, flush=True))
print(statements)
"""


def schema_of(conninfo: str) -> list[str]:
    """Tables, columns, constraints, indexes, triggers, functions and rights of a database."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        return read_catalog(connection)


@contextmanager
def opened(conninfo: str) -> Iterator[Connection]:
    """Open an autocommit connection for the length of a block."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        yield connection


@pytest.fixture
def legacy_database(empty_database: str) -> str:
    """The conninfo of an existing ContainerStacks database."""
    with opened(empty_database) as connection:
        connection.execute(LEGACY)
    return empty_database


@pytest.fixture
def copies(tmp_path: Path) -> Path:
    """A copy of the delivered schema files that a test may change."""
    for name in ("tables", "code"):
        shutil.copytree(ROOM / name, tmp_path / "schema" / name)
    return tmp_path / "schema"


def names_of(delivered: DeliveredSchema) -> list[str]:
    """The names of the schema files, in their order."""
    return [file.name for file in delivered.files]


def recorded(connection: Connection) -> list[tuple[int | None, str]]:
    """Numbers and names of what the record holds of ours."""
    rows = connection.execute("select version, name from schema_migrations order by version, applied_at")
    return rows.fetchall()


def test_a_fresh_database_gets_every_file_once(empty_database: str) -> None:
    """All are applied, recorded and nothing is left to find; the second time nothing happens."""
    delivered = delivered_schema()
    first = migrate(empty_database)
    assert [one.name for one in first.applied] == names_of(delivered)
    assert first.findings == ()
    schema = schema_of(empty_database)
    second = migrate(empty_database)
    assert second.applied == ()
    assert schema_of(empty_database) == schema
    assert {one.state for one in status(empty_database)} == {MigrationState.APPLIED}
    assert plan(empty_database) == ()
    with opened(empty_database) as connection:
        assert expected_schema_problem(connection) is None
        assert [name for _, name in recorded(connection)] == names_of(delivered)


def test_the_plan_changes_nothing_and_names_tables_and_seconds(legacy_database: str) -> None:
    """--dry-run says what would be locked, in a read-only transaction."""
    before = schema_of(legacy_database)
    planned = plan(legacy_database)
    assert [one.name for one in planned] == names_of(delivered_schema())
    text = " ".join(planned[0].effects)
    assert "vps_billing_cycles loses the foreign keys vps_billing_cycles_organization_id_fkey" in text
    assert re.search(
        r"wallets \(about \d+ rows, .*?\) is locked against readers and writers for about 1 s", text
    )
    assert "idx_vps_instances_last_billed_at" in text
    assert schema_of(legacy_database) == before


# What takes a lock on a table, or reads it for an index: the table that a statement of a file names.
LOCKING = re.compile(
    r"^(?:create (?:or replace )?trigger [^;]*? on|alter table|create (?:unique )?index (?:concurrently )?if not exists \w+\s+on"
    r"|lock table|update) (\w+)",
    re.MULTILINE | re.DOTALL,
)


def test_the_plan_names_every_table_of_the_host_that_is_locked(legacy_database: str) -> None:
    """Each file says something; each table that was there before and that a statement locks stands there with a time."""
    tables = {name for (name,) in schema_tables(legacy_database)}
    locked: set[str] = set()
    for planned, file in zip(plan(legacy_database), delivered_schema().files, strict=True):
        text = " ".join(planned.effects)
        assert text, file.file_name
        # idx_vps_instances_org_id and its like are there on a host.
        sql = re.sub(r"^create index if not exists idx_.*$", "", file.sql, flags=re.MULTILINE)
        for table in tables & set(LOCKING.findall(sql)):
            locked.add(table)
            assert re.search(rf"\b{table}\b", text), (file.file_name, table)
            assert re.search(r"milliseconds|about \d+ s", text), file.file_name
    assert locked == {
        "organizations", "vps_billing_cycles", "vps_instances", "wallets", "vps_plans", "payment_transactions"
    }  # fmt: skip


def test_the_plan_of_an_empty_database_locks_nothing_of_the_hosts(empty_database: str) -> None:
    """What does not exist yet is created, and no session waits for it."""
    text = " ".join(effect for one in plan(empty_database) for effect in one.effects)
    assert "Creates users, organizations, wallets" in text
    assert "locked against" not in text
    assert "concurrently" not in text


def test_the_plan_grows_with_what_has_to_be_read(legacy_database: str) -> None:
    """A ledger of two hundred million rows takes minutes to index, and that is said before."""
    with opened(legacy_database) as connection:
        connection.execute("update pg_class set reltuples = 200000000 where relname = 'payment_transactions'")
    (effect,) = [one for one in plan(legacy_database)[0].effects if "debits that are not ours" in one]
    assert "about 200000000 rows" in effect
    assert "is built concurrently in about 401 s" in effect


def schema_tables(conninfo: str) -> list[Any]:
    """The tables of a database."""
    with opened(conninfo) as connection:
        return connection.execute("select tablename from pg_tables where schemaname = 'public'").fetchall()


def test_an_unmigrated_database_is_not_billed(empty_database: str) -> None:
    """The check in front of every run says what is missing."""
    with opened(empty_database) as connection:
        assert "the first is 001_baseline.sql" in str(expected_schema_problem(connection))


@pytest.mark.parametrize("kind", ["empty_database", "legacy_database"])
def test_psql_alone_makes_the_same_schema(
    request: pytest.FixtureRequest, make_database: Callable[[str], str], kind: str
) -> None:
    """Each file by psql -f, twice over, leads to what migrate makes; and migrate then adds its record only."""
    files = [*sorted((ROOM / "tables").glob("*.sql")), *(ROOM / "code" / f"{name}.sql" for name in CODE)]
    by_psql, by_migrate = request.getfixturevalue(kind), make_database("template0")
    if kind == "legacy_database":
        with opened(by_migrate) as connection:
            connection.execute(LEGACY)
    # Debian's psql or the wheel's: whichever belongs to the server under test.
    psql = shutil.which("psql") or find_programs().path("psql")
    environment = {"PGPASSWORD": str(conninfo_to_dict(by_psql).get("password", ""))}
    without_password = make_conninfo(
        **{k: v for k, v in conninfo_to_dict(by_psql).items() if k != "password"}
    )
    for _ in range(2):
        for file in files:
            command = [psql, "-d", without_password, "-q", "-X", "-v", "ON_ERROR_STOP=1", "-f", str(file)]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            assert (file.name, done.returncode, done.stderr.count("ERROR")) == (file.name, 0, 0), done.stderr
    migrate(by_migrate)
    assert schema_of(by_psql) == schema_of(by_migrate)
    assert len(migrate(by_psql).applied) == len(delivered_schema().files)
    assert schema_of(by_psql) == schema_of(by_migrate)


def test_two_migrators_at_once_apply_each_file_once(legacy_database: str) -> None:
    """Both processes stand at the lock together; when it opens, both end well and the record holds each file once.

    The one that waits must not hold a snapshot, or the concurrent index builds of the other would wait for it.
    """
    command = [sys.executable, "-c", MIGRATE_AND_DIE, legacy_database, "0"]
    with opened(legacy_database) as connection, ExitStack() as processes:
        with connection.transaction():
            connection.execute(
                "select pg_advisory_xact_lock(hashtextextended('containerstacks-billing migrate', 0))"
            )
            both = [
                processes.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
                for _ in range(2)
            ]
            for process in both:
                assert process.stdout is not None
                # Each tries the host's statements first, and may find the other one at it.
                said = iter(process.stdout.readline, "")
                assert "001_baseline.sql\n" in said
                assert "waiting" in next(said)
        for process in both:
            process.communicate(timeout=180)
        assert [process.returncode for process in both] == [0, 0]
        assert [name for _, name in recorded(connection)] == names_of(delivered_schema())


def test_a_changed_code_file_is_applied_again_and_alone(database: str, copies: Path) -> None:
    """The file whose text differs, with its new record; until then billing waits, as for a migration."""
    changed = copies / "code" / "rights.sql"
    changed.write_text(
        changed.read_text() + "\ncomment on function billing_admit(name, boolean) is 'changed';\n"
    )
    delivered = delivered_schema(copies)
    with opened(database) as connection:
        problem = expected_schema_problem(connection, delivered=delivered)
        assert "lacks 1 of" in str(problem)
        assert "the first is code/rights.sql" in str(problem)
        assert [one.name for one in plan(database, delivered=delivered)] == ["code/rights"]
        assert [one.name for one in migrate(database, delivered=delivered).applied] == ["code/rights"]
        assert migrate(database, delivered=delivered).applied == ()
        assert expected_schema_problem(connection, delivered=delivered) is None
        rows = connection.execute(
            "select count(*) from schema_migrations where name = 'code/rights'"
        ).fetchall()
    assert rows == [(1,)]


def test_two_migrators_at_once_apply_a_changed_code_file_once(database: str, copies: Path) -> None:
    """Both find it outdated and stand at the lock; the second sees what the first recorded, and does nothing."""
    changed = copies / "code" / "functions.sql"
    changed.write_text(changed.read_text() + "\n")
    delivered = delivered_schema(copies)
    waiting: Queue[str] = Queue()

    def work() -> list[str]:
        done = migrate(database, delivered=delivered, progress=waiting.put)
        return [one.name for one in done.applied]

    with opened(database) as connection, ThreadPoolExecutor() as pool:
        with connection.transaction():
            connection.execute(
                "select pg_advisory_xact_lock(hashtextextended('containerstacks-billing migrate', 0))"
            )
            both = [pool.submit(work) for _ in range(2)]
            said = sorted(waiting.get(timeout=60) for _ in range(4))
            assert said[:2] == ["code/functions.sql"] * 2
            assert "waiting for another migration" in said[2]
        assert sorted(one.result(timeout=60) for one in both) == [[], ["code/functions"]]
        assert expected_schema_problem(connection, delivered=delivered) is None


@pytest.mark.parametrize("step", [29, pytest.param(7, marks=pytest.mark.slow)])
def test_killed_anywhere_it_is_finished_by_the_next(
    make_database: Callable[[str], str], legacy_database: str, step: int
) -> None:
    """SIGKILL before the first, the last and statements all over the way; another migrate makes the same schema."""
    counted = run_and_die(make_database_with_legacy(make_database), 0)
    assert counted.returncode == 0
    statements = int(counted.stdout.splitlines()[-1])
    assert statements > 60
    migrate(legacy_database)
    expected = schema_of(legacy_database)
    for number in range(2, statements, step):
        killed = make_database_with_legacy(make_database)
        assert run_and_die(killed, number).returncode == -signal.SIGKILL
        migrate(killed)
        assert (number, schema_of(killed)) == (number, expected)
        assert (number, watermarks(killed)) == (number, watermarks(legacy_database))


def make_database_with_legacy(make_database: Callable[[str], str]) -> str:
    """One more existing ContainerStacks database."""
    conninfo = make_database("template0")
    with opened(conninfo) as connection:
        connection.execute(LEGACY)
    return conninfo


def run_and_die(conninfo: str, number: int) -> subprocess.CompletedProcess[str]:
    """Migrate in a process that kills itself before its statement of this number; never with 0."""
    command = [sys.executable, "-c", MIGRATE_AND_DIE, conninfo, str(number)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)


def watermarks(conninfo: str) -> list[Any]:
    """What adoption computes, which must not be computed twice."""
    with opened(conninfo) as connection:
        marks = connection.execute(
            "select last_billed_at::text, rated_from::text, rated_until::text from vps_instances order by id"
        ).fetchall()
        return marks + connection.execute("select billing_opening from wallets order by id").fetchall()


def test_a_column_without_use_stays_where_a_view_shows_it(database: str) -> None:
    """A view of the host over all columns of the charges neither fails the migration nor is lost."""
    with opened(database) as connection:
        connection.execute("alter table vps_billing_cycles add column grown_from timestamptz")
        connection.execute("create view shown as select * from vps_billing_cycles")
        connection.execute("delete from schema_migrations where version = 49")
        migrate(database)
        assert connection.execute("select count(grown_from) from shown").fetchone() == (0,)
        connection.execute("drop view shown")
        connection.execute("delete from schema_migrations where version = 49")
        migrate(database)
        with pytest.raises(psycopg.errors.UndefinedColumn):
            connection.execute("select grown_from from vps_billing_cycles")


def test_an_index_left_invalid_by_a_killed_build_is_built_again(legacy_database: str) -> None:
    """A broken index under our name is found out and replaced, not taken for done."""
    with opened(legacy_database) as connection:
        # A unique index over rows that are not: the build fails and leaves its ruin.
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute(
                "create unique index concurrently vps_billing_cycles_past_due_hours on vps_billing_cycles (organization_id)"
            )
        migrate(legacy_database)
        row = connection.execute(
            "select indisvalid, indisunique from pg_index where indexrelid = 'vps_billing_cycles_past_due_hours'::regclass"
        ).fetchone()
        assert row == (True, False)
        connection.execute("drop index vps_billing_cycles_one_charge_per_hour")
        assert "vps_billing_cycles_one_charge_per_hour is missing or invalid" in str(
            expected_schema_problem(connection)
        )


def test_a_changed_file_is_refused(empty_database: str, copies: Path) -> None:
    """One space more in a file that was applied: refused by migrate, by the plan and before a run."""
    migrate(empty_database)
    changed = copies / "tables" / "012_billing_daemon_status.sql"
    changed.write_text(changed.read_text() + " ")
    with pytest.raises(
        SchemaMismatch, match=r"012_billing_daemon_status\.sql was changed after it was applied"
    ):
        migrate(empty_database, delivered=delivered_schema(copies))
    with pytest.raises(SchemaMismatch):
        plan(empty_database, delivered=delivered_schema(copies))
    with opened(empty_database) as connection:
        problem = expected_schema_problem(connection, delivered=delivered_schema(copies))
    assert "012_billing_daemon_status.sql was changed" in str(problem)
    states = {one.version: one.state for one in status(empty_database, delivered=delivered_schema(copies))}
    assert states[12] is MigrationState.CHANGED
    assert states[1] is MigrationState.APPLIED


def test_other_line_ends_are_no_change(empty_database: str, copies: Path) -> None:
    """A checkout with carriage returns is the same migration."""
    migrate(empty_database)
    for file in copies.rglob("*.sql"):
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert migrate(empty_database, delivered=delivered_schema(copies)).applied == ()


def test_a_newer_database_is_refused(empty_database: str, copies: Path) -> None:
    """What a newer version has migrated, this one does not touch."""
    (copies / "tables" / "900_from_the_future.sql").write_text("create table from_the_future ();")
    migrate(empty_database, delivered=delivered_schema(copies))
    with pytest.raises(SchemaMismatch, match="900_from_the_future, which this version does not know"):
        migrate(empty_database)
    assert [one.version for one in status(empty_database) if one.state is MigrationState.UNKNOWN] == [900]


def test_a_failing_migration_leaves_nothing_behind(empty_database: str, copies: Path) -> None:
    """What the file did before it failed is rolled back together with the record."""
    migrate(empty_database)
    (copies / "tables" / "900_broken.sql").write_text("create table half (); select 1 / 0;")
    with pytest.raises(Exception, match="division by zero"):
        migrate(empty_database, delivered=delivered_schema(copies))
    with opened(empty_database) as connection:
        assert connection.execute("select to_regclass('half') is null").fetchone() == (True,)
        assert expected_schema_problem(connection) is None


def test_a_long_query_of_the_host_is_not_queued_behind(legacy_database: str) -> None:
    """While a report reads the ledger, migrate gives up its place in the queue and says so; then it goes through."""
    hasty = Patience(lock_timeout="10ms", attempts=3, pause_seconds=0.0)
    said: list[str] = []
    with opened(legacy_database) as report:
        with report.transaction():
            report.execute("select count(*) from vps_billing_cycles")
            with pytest.raises(DatabaseUnavailable, match="stayed locked by another session"):
                migrate(legacy_database, progress=said.append, patience=hasty)
        assert [line for line in said if "trying again" in line] == [
            "the trial of the host's statements: a table is in use, trying again (2 attempts left)",
            "the trial of the host's statements: a table is in use, trying again (1 attempts left)",
        ]
    assert migrate(legacy_database).applied[0].name == "baseline"


def test_the_record_is_shared_with_the_hosts_own_migrations(legacy_database: str) -> None:
    """The host's table of that name keeps its rows and its meaning; ours stand beside them, also for its 012."""
    with opened(legacy_database) as host:
        host.execute(
            "create table schema_migrations (filename text primary key, checksum text not null,"
            " applied_at timestamptz not null default now(), execution_time_ms integer)"
        )
        host.execute(
            "insert into schema_migrations values ('012_billing_daemon_status.sql', 'abc', now(), 5)"
        )
        migrate(legacy_database)
        kept = host.execute(
            "select filename, checksum, version from schema_migrations where filename not like 'containerstacks-billing/%'"
        ).fetchall()
        assert kept == [("012_billing_daemon_status.sql", "abc", None)]
        assert expected_schema_problem(host) is None


def test_the_hosts_runner_works_on_our_record(empty_database: str) -> None:
    """When ours was there first, what the host's runner does to a table of that name still works."""
    migrate(empty_database)
    with opened(empty_database) as host:
        host.execute("create table if not exists schema_migrations (filename text primary key)")
        host.execute(
            "insert into schema_migrations (filename, checksum, execution_time_ms) values ('001_initial.sql', 'abc', 5)"
            " on conflict (filename) do nothing"
        )
    assert migrate(empty_database).applied == ()


def test_another_tools_table_of_that_name_is_left_alone(legacy_database: str) -> None:
    """A schema_migrations with other columns keeps them; our record goes into a table of its own."""
    with opened(legacy_database) as connection:
        connection.execute(
            "create table schema_migrations (version bigint primary key, dirty boolean not null)"
        )
        connection.execute("insert into schema_migrations values (7, false)")
        migrate(legacy_database)
        assert connection.execute("select * from schema_migrations").fetchall() == [(7, False)]
        assert expected_schema_problem(connection) is None
    assert migrate(legacy_database).applied == ()


def test_an_existing_status_table_keeps_its_row(legacy_database: str) -> None:
    """The host's own 012 was there: the heartbeat of its daemon survives."""
    with opened(legacy_database) as host:
        host.execute(
            "create table billing_daemon_status (id serial primary key, daemon_instance_id varchar(255) not null unique,"
            " status varchar(50) not null, heartbeat_at timestamptz)"
        )
        host.execute(
            "insert into billing_daemon_status (daemon_instance_id, status) values ('host-1', 'running')"
        )
        migrate(legacy_database)
        row = host.execute(
            "select daemon_instance_id, status, total_amount from billing_daemon_status"
        ).fetchone()
    assert row == ("host-1", "running", 0)


def test_a_role_that_does_not_own_the_tables_is_told(legacy_database: str) -> None:
    """Without the right to change the schema nothing happens, and the hint says as whom to run it."""
    role = "containerstacks_billing_test_reader"
    with opened(legacy_database) as owner:
        owner.execute(
            f"do $$ begin create role {role} login password 'reader'; exception when duplicate_object then end $$"
        )
        with pytest.raises(RightsMissing):
            migrate(make_conninfo(legacy_database, user=role, password="reader"))
        assert owner.execute("select to_regclass('schema_migrations') is null").fetchone() == (True,)
        migrate(legacy_database)
        with pytest.raises(RightsMissing, match="permission denied for table schema_migrations") as refused:
            migrate(make_conninfo(legacy_database, user=role, password="reader"))
        assert "as the owner of the host application's tables" in str(refused.value.hint)
        owner.execute(f"drop owned by {role}; drop role {role}")
