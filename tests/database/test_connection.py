"""Connections to a real server: bounds, and every fault in words with the way out."""

from __future__ import annotations

import socket
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from containerstacks_billing.database.connection import connect, set_timeouts, translate_errors
from containerstacks_billing.database.errors import is_transient, translate
from containerstacks_billing.database.grants import reading_grants
from containerstacks_billing.errors import (
    BillingError,
    ConfigurationError,
    DatabaseUnavailable,
    InvariantBroken,
    LoginRefused,
    RightsMissing,
    SchemaMismatch,
    WorkFailed,
)
from containerstacks_billing.schema.diagnose import diagnosed
from containerstacks_billing.schema.migrator import migrate

SECRET = "canary-5d1c6a"


def as_role(conninfo: str, role: str, password: str | None = None) -> str:
    return make_conninfo(conninfo, user=role, password=password or role)


def said(error: BillingError) -> str:
    return f"{error} {error.hint}"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_a_connection_commits_by_itself_and_prepares_nothing(database: str) -> None:
    """A pooler in transaction mode would hand prepared statements to strangers."""
    with connect(database, purpose="billing") as connection:
        assert connection.autocommit
        assert connection.prepare_threshold is None
        assert connection.info.parameter_status("application_name") == "containerstacks-billing billing"


def test_a_reading_connection_cannot_write_inside_a_transaction(database: str) -> None:
    """`status` and `verify` are read-only: a mistaken write is refused."""
    with (
        connect(database, purpose="reading") as connection,
        pytest.raises(DatabaseUnavailable),
        translate_errors(),
        connection.transaction(),
    ):
        connection.execute("DELETE FROM wallets")


def test_bounds_hold_inside_the_transaction_and_end_with_it(conn: psycopg.Connection[Any]) -> None:
    """Nothing is left behind for the next user of a pooled connection."""
    names = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")

    def bounds() -> list[str]:
        return [conn.execute("SELECT current_setting(%s)", [name]).fetchall()[0][0] for name in names]

    before = bounds()
    with conn.transaction():
        set_timeouts(conn)
        assert bounds() == ["5s", "30s", "15s"]
    assert bounds() == before
    with pytest.raises(RuntimeError, match="outside a transaction"):
        set_timeouts(conn)


def test_a_database_that_is_away_is_named_and_can_be_tried_again() -> None:
    """Exit code 75: the next attempt may succeed."""
    port = free_port()
    with pytest.raises(DatabaseUnavailable) as refused:
        connect(f"postgresql://u:{SECRET}@127.0.0.1:{port}/d", purpose="billing")
    assert str(refused.value) == (
        f"The database at u@127.0.0.1:{port}/d refuses connections (Connection refused): no PostgreSQL is listening there."
    )
    assert (refused.value.exit_code, SECRET in said(refused.value)) == (75, False)


def test_a_server_that_never_answers_is_given_up_after_the_bound() -> None:
    """A port that accepts and stays silent must not hang a biller."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(DatabaseUnavailable, match="did not answer in time"):
            connect(f"postgresql://u@127.0.0.1:{port}/d?connect_timeout=2", purpose="billing")


def test_all_hosts_of_a_cluster_are_tried_and_named() -> None:
    """A multi-host connection string fails with all of its hosts."""
    one, two = free_port(), free_port()
    with pytest.raises(DatabaseUnavailable, match=f"u@127.0.0.1:{one},127.0.0.1:{two}/d refuses"):
        connect(f"postgresql://u:{SECRET}@127.0.0.1:{one},127.0.0.1:{two}/d", purpose="billing")


def test_an_unknown_host_is_named() -> None:
    """A typo in the host looks different from a server that is down."""
    with pytest.raises(DatabaseUnavailable, match="cannot be found by its name"):
        connect("postgresql://u@no-such-host.invalid/d", purpose="billing")


def test_a_wrong_password_is_refused_without_being_repeated(database: str, role: str) -> None:
    """A wrong password is nearly the right one, or right somewhere else."""
    with pytest.raises(LoginRefused, match="refused the password") as refused:
        connect(as_role(database, role, SECRET), purpose="billing")
    assert (refused.value.exit_code, SECRET in said(refused.value)) == (75, False)


def test_a_password_that_nobody_gave_was_not_refused(database: str, role: str) -> None:
    """Who forgot it looks for another fault than who mistyped it."""
    without = {**conninfo_to_dict(database), "user": role}
    for name in ("password", "passfile"):
        without.pop(name, None)
    with pytest.raises(LoginRefused, match="asks for a password, and none was given") as refused:
        connect(make_conninfo(**without, passfile="/nonexistent"), purpose="billing")
    assert "DATABASE_URL" in str(refused.value.hint)


def test_an_unknown_user_is_refused(database: str) -> None:
    """The server may say as little as it likes; it stays a refused login."""
    with pytest.raises(LoginRefused):
        connect(as_role(database, "nobody_of_that_name"), purpose="billing")


def test_an_unknown_database_is_named(server: str) -> None:
    """It may be on its way back from a backup, so it can be tried again."""
    with pytest.raises(DatabaseUnavailable, match=r"/nothing has no database of that name"):
        connect(make_conninfo(server, dbname="nothing"), purpose="billing")


def test_a_full_server_is_named(database: str, role: str, server: str) -> None:
    """Too many connections is a matter of waiting."""
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(sql.SQL("ALTER ROLE {} CONNECTION LIMIT 0").format(sql.Identifier(role)))
    with pytest.raises(DatabaseUnavailable, match="has no free connection"):
        connect(as_role(database, role), purpose="billing")


def test_a_database_that_lets_nobody_in_hints_at_the_grant(database: str, role: str) -> None:
    """CONNECT is a right like any other."""
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute(sql.SQL("REVOKE CONNECT ON DATABASE {} FROM PUBLIC").format(sql.Identifier(str(name))))
    with pytest.raises(RightsMissing) as refused:
        connect(as_role(database, role), purpose="billing")
    assert refused.value.hint == f'Run as its owner: GRANT CONNECT ON DATABASE "{name}" TO "{role}";'


@pytest.mark.parametrize("statement", ["select from wallets", "select billing_clock()"])
def test_an_unmigrated_database_is_called_that(empty_database: str, statement: str) -> None:
    """Whatever a verb asks for first: how many migrations are missing, and migrate. Exit code 78: no attempt helps."""
    with (
        connect(empty_database, purpose="billing") as connection,
        pytest.raises(SchemaMismatch, match=r"lacks (\d+) of \1 migrations, the first is 001_") as refused,
        diagnosed(empty_database),
    ):
        connection.execute(statement.encode())
    assert "containerstacks-billing migrate" in said(refused.value)


def test_a_missing_right_comes_with_its_grant(database: str, role: str) -> None:
    """All that the role lacks, and not one table after the other; run by the owner, the work is allowed."""
    with (
        psycopg.connect(database, autocommit=True) as owner,
        connect(as_role(database, role), purpose="billing") as connection,
    ):
        for statement in reading_grants(owner.info.dbname, role):
            owner.execute(statement.encode())
        owner.execute(sql.SQL("grant update on wallets to {}").format(sql.Identifier(role)))
        with pytest.raises(RightsMissing) as refused, diagnosed(as_role(database, role)):
            connection.execute("INSERT INTO billing_decisions DEFAULT VALUES")
        hint = str(refused.value.hint)
        assert f'GRANT INSERT ON billing_decisions TO "{role}";' in hint
        assert f'GRANT UPDATE ON vps_instances TO "{role}";' in hint
        assert "wallets" not in hint
        owner.execute(hint.encode())
        connection.execute("DELETE FROM billing_quarantine")


def test_a_role_without_any_right_is_told_of_both_kinds(database: str, role: str) -> None:
    """To look needs less than to bill, and either is one command."""
    with connect(as_role(database, role), purpose="reading") as connection:
        with pytest.raises(RightsMissing) as refused, diagnosed(as_role(database, role)):
            connection.execute("SELECT FROM billing_runs")
    assert f"containerstacks-billing grants --read-only --role {role}\n" in str(refused.value.hint)
    assert str(refused.value.hint).endswith(f"containerstacks-billing grants --role {role}")


def test_what_is_more_than_billing_is_for_the_owner(database: str, role: str) -> None:
    """Prices are changed by people: no grant is proposed that the billing role has already."""
    with (
        psycopg.connect(database, autocommit=True) as owner,
        connect(as_role(database, role), purpose="billing") as connection,
    ):
        owner.execute("select billing_admit(%s)", (role,))
        with pytest.raises(RightsMissing, match="permission denied for table vps_plans") as refused:
            with diagnosed(as_role(database, role)):
                connection.execute("UPDATE vps_plans SET base_price = 1")
    assert "GRANT" not in str(refused.value.hint)
    assert "as the owner of the tables" in str(refused.value.hint)


def test_the_right_on_the_schema_that_is_missing_is_the_one_that_is_named(
    database: str, empty_database: str, role: str
) -> None:
    """USAGE where a role may see nothing, CREATE where it may see but not migrate; with it, it migrates."""
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute("revoke usage on schema public from public")
    for statement in ("select public.billing_clock()", "select from wallets"):
        with connect(as_role(database, role), purpose="billing") as connection:
            with pytest.raises(RightsMissing) as refused, diagnosed(as_role(database, role)):
                connection.execute(statement.encode())
        assert f'GRANT USAGE ON SCHEMA public TO "{role}";' in str(refused.value.hint)
    with pytest.raises(RightsMissing, match=f"{role} may not create anything") as refused:
        migrate(as_role(empty_database, role))
    with psycopg.connect(empty_database, autocommit=True) as owner:
        owner.execute(str(refused.value.hint).splitlines()[-1].encode())
        migrate(as_role(empty_database, role))
        owner.execute(sql.SQL("drop owned by {} cascade").format(sql.Identifier(role)))


def test_a_role_that_may_not_migrate_is_told_who_may(database: str, role: str) -> None:
    """DDL belongs to the owner of the tables."""
    with connect(as_role(database, role), purpose="maintenance") as connection:
        for statement in ("ALTER TABLE wallets ADD COLUMN x integer", "CREATE TABLE public.x (y integer)"):
            with pytest.raises(RightsMissing) as refused, translate_errors():
                connection.execute(statement)
            assert refused.value.hint


def test_a_read_only_server_is_no_place_to_bill(database: str) -> None:
    """A standby after a failover, or a server set so."""
    read_only = make_conninfo(database, options="-c default_transaction_read_only=on")
    with (
        connect(read_only, purpose="billing") as connection,
        pytest.raises(DatabaseUnavailable) as refused,
        diagnosed(database),
    ):
        connection.execute("DELETE FROM wallets")
    assert "read-only" in str(refused.value)


def test_a_connection_that_was_ended_can_be_opened_again(database: str) -> None:
    """Restart, failover, an administrator: all the same to the caller."""
    with connect(database, purpose="billing") as connection, psycopg.connect(database) as other:
        other.execute("SELECT pg_terminate_backend(%s)", [connection.info.backend_pid])
        for _ in range(2):  # once told by the server, once found closed
            with pytest.raises(DatabaseUnavailable), diagnosed(database):
                connection.execute("SELECT 1")


def test_work_that_may_be_repeated_is_told_apart(conn: psycopg.Connection[Any]) -> None:
    """A timeout is worth another attempt, a contradiction of the books is not."""
    impatient = make_conninfo(conn.info.dsn, options="-c statement_timeout=10ms")
    with connect(impatient, purpose="reading") as connection, pytest.raises(psycopg.Error) as slow:
        connection.execute("SELECT pg_sleep(1)")
    assert is_transient(slow.value)
    assert isinstance(translate(slow.value), WorkFailed)
    with pytest.raises(psycopg.Error) as contradiction:
        conn.execute(
            "INSERT INTO billing_daemon_status (daemon_instance_id, status) VALUES ('a', 'running'), ('a', 'running')"
        )
    assert not is_transient(contradiction.value)
    broken = translate(contradiction.value)
    assert isinstance(broken, InvariantBroken)
    assert "billing_daemon_status_daemon_instance_id" in str(broken)


def test_a_malformed_connection_string_never_reaches_the_driver() -> None:
    """The driver quotes it."""
    for conninfo in (f"postgres://u:%zz{SECRET}@h/d", f"postgres://u:{SECRET}/x@127.0.0.1/d"):
        with pytest.raises(ConfigurationError) as refused:
            connect(conninfo, purpose="billing")
        assert SECRET not in said(refused.value)
        assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    "conninfo",
    ["host", "connect_timeout=soon host=127.0.0.1", "postgresql://[::1", "postgresql://h/?x=1", "h='x"],
)
def test_what_the_driver_says_of_a_connection_string_is_about_the_configuration(conninfo: str) -> None:
    """Should one reach it all the same."""
    with pytest.raises(psycopg.Error) as refused:
        psycopg.connect(conninfo)
    assert isinstance(translate(refused.value), ConfigurationError)


def test_a_defect_of_ours_is_not_blamed_on_the_configuration(conn: psycopg.Connection[Any]) -> None:
    """A statement with too few values, a value that has no form, a result that is not there: work failed, exit 1."""
    for ask in (
        lambda: conn.execute("select %s, %s", (1,)),
        lambda: conn.execute("select %(a)s", {}),
        lambda: conn.execute("select %s", (object(),)),
        lambda: conn.execute("create temporary table t ()").fetchall(),
    ):
        with pytest.raises(psycopg.ProgrammingError) as defect:
            ask()
        error = translate(defect.value)
        assert (WorkFailed, 1) == (type(error), error.exit_code)
        assert "an internal error of this program" in str(error)
        assert "DATABASE_URL" not in str(error)


def test_text_of_the_driver_that_nobody_expected_is_redacted() -> None:
    """A fault that has no sentence of its own is quoted, but not its secrets."""
    error = translate(psycopg.OperationalError(f"odd: postgresql://u:{SECRET}@h/d password={SECRET}"))
    assert isinstance(error, DatabaseUnavailable)
    assert "odd" in str(error)
    assert SECRET not in said(error)
