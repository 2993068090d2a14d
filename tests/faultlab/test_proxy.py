"""The proxy that cuts commits: each of its three ways has the effect on the server that it claims."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from tests.daemons import eventually

from containerstacks_billing.drill.commit_proxy import CommitProxy, Where, mentions


@pytest.fixture
def proxy(database: str) -> Iterator[CommitProxy]:
    parameters = conninfo_to_dict(database)
    with CommitProxy(str(parameters["host"]), int(str(parameters["port"]))) as proxy:
        yield proxy


@pytest.fixture
def kept(conn: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """A direct connection, to a database with a table to write into."""
    conn.execute("create table kept (number integer)")
    return conn


def through(proxy: CommitProxy, database: str) -> psycopg.Connection[Any]:
    return psycopg.connect(proxy.conninfo(database), autocommit=True, prepare_threshold=None)


def write(connection: psycopg.Connection[Any], number: int) -> None:
    with connection.transaction():
        connection.execute("insert into kept values (%s)", (number,))


def numbers(kept: psycopg.Connection[Any]) -> list[int]:
    return [row[0] for row in kept.execute("select number from kept order by number").fetchall()]


def wait_until_alone(kept: psycopg.Connection[Any]) -> None:
    """Wait until the server has noticed that every other client of this database is gone."""
    alone = "select from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
    eventually(lambda: kept.execute(alone).fetchone() is None)


def test_an_unarmed_proxy_only_forwards(
    proxy: CommitProxy, database: str, kept: psycopg.Connection[Any]
) -> None:
    """Results of both protocols, errors, large values and copies arrive as they were sent."""
    with through(proxy, database) as client:
        write(client, 1)
        assert [("x" * 3_000_000,)] == client.execute("select repeat('x', 3000000)").fetchall()
        assert [(2,)] == client.execute("select length(%s::text) / 1000000", ("y" * 2_000_000,)).fetchall()
        with pytest.raises(psycopg.errors.DivisionByZero):
            client.execute("select 1 / 0")
        with client.cursor().copy("copy kept from stdin") as copy:
            for number in range(2, 5000):
                copy.write_row((number,))
        with client.pipeline():
            write(client, 5000)
            write(client, 5001)
    assert list(range(1, 5002)) == numbers(kept)
    assert (0, 0) == (proxy.armed, proxy.fired)


@pytest.mark.parametrize(("where", "kept_numbers"), [("before", []), ("after", [1])])
@pytest.mark.parametrize("protocol", ["commit", "pipeline", "one statement", "one simple statement"])
def test_before_is_out_and_after_is_in(
    proxy: CommitProxy,
    database: str,
    kept: psycopg.Connection[Any],
    where: Where,
    kept_numbers: list[int],
    protocol: str,
) -> None:
    """The driver's error is the same; the server knows."""
    with through(proxy, database) as client:
        proxy.arm(where)
        with pytest.raises(psycopg.OperationalError) as cut:
            match protocol:
                case "commit":
                    write(client, 1)
                case "pipeline":
                    with client.pipeline():
                        write(client, 1)
                case "one statement":
                    client.execute("insert into kept values (%s)", (1,))
                case _:
                    client.execute("insert into kept values (1)")
    wait_until_alone(kept)
    assert cut.value.sqlstate is None
    assert kept_numbers == numbers(kept)
    assert (0, 1) == (proxy.armed, proxy.fired)


def test_after_means_that_the_server_has_committed_before_the_client_knows(
    proxy: CommitProxy, database: str, kept: psycopg.Connection[Any]
) -> None:
    """No waiting is needed: the rows are there when the error is."""
    for number in range(20):
        with through(proxy, database) as client, pytest.raises(psycopg.OperationalError):
            proxy.arm("after")
            write(client, number)
        assert list(range(number + 1)) == numbers(kept)
    assert 20 == proxy.fired


@pytest.mark.parametrize("over_tcp", [False, True])
def test_during_the_client_knows_of_its_error_while_the_server_still_commits(
    proxy: CommitProxy, database: str, kept: psycopg.Connection[Any], over_tcp: bool
) -> None:
    """A deferred trigger holds the COMMIT up: the client's error is there first, the rows come when it is let go."""
    kept.execute("""
        create function wait() returns trigger language plpgsql as $$
        begin perform pg_advisory_xact_lock(1); return null; end $$;
        create constraint trigger wait after insert on kept deferrable initially deferred
            for each row execute function wait();
    """)
    with CommitProxy("127.0.0.1", proxy.port) as farther:
        cutting = farther if over_tcp else proxy
        with kept.transaction():
            kept.execute("select pg_advisory_xact_lock(1)")
            cutting.arm("during")
            with through(cutting, database) as client, pytest.raises(psycopg.OperationalError):
                write(client, 1)
            assert (1, []) == (cutting.fired, numbers(kept))
        wait_until_alone(kept)
    assert [1] == numbers(kept)


def test_only_commits_of_interest_are_cut(
    proxy: CommitProxy, database: str, kept: psycopg.Connection[Any]
) -> None:
    """By a word in one of the transaction's statements, after as many as shall pass, as often as was asked for."""
    kept.execute("create table other (number integer)")
    proxy.arm("after", times=2, interesting=mentions("kept"), skip=1)
    with through(proxy, database) as client:
        for number in range(3):
            client.execute("insert into other values (%s)", (number,))
        client.execute("select count(*) from kept")
        write(client, 1)
        with pytest.raises(psycopg.OperationalError):
            write(client, 2)
    assert (1, 1) == (proxy.armed, proxy.fired)
    with through(proxy, database) as client, pytest.raises(psycopg.OperationalError):
        client.execute("insert into kept values (3)")
    with through(proxy, database) as client:
        write(client, 4)
    assert [1, 2, 3, 4] == numbers(kept)
    assert (0, 2) == (proxy.armed, proxy.fired)


def test_interest_sees_the_statements_of_this_transaction_alone(
    proxy: CommitProxy, database: str, kept: psycopg.Connection[Any]
) -> None:
    """Not those of the one before, nor BEGIN and COMMIT."""
    seen: list[list[str]] = []
    proxy.arm("before", interesting=lambda statements: seen.append(list(statements)) is not None)
    with through(proxy, database) as client:
        write(client, 1)
        client.execute("select 1")
        client.execute("delete from kept where number = 2")
        with pytest.raises(psycopg.errors.DivisionByZero), client.transaction():
            client.execute("select 1 / 0")
        write(client, 2)
    assert [
        ["insert into kept values ($1)"],
        ["delete from kept where number = 2"],
        ["insert into kept values ($1)"],
    ] == seen
    assert [1, 2] == numbers(kept)


def test_a_closed_proxy_leaves_no_connection_behind(
    proxy: CommitProxy, database: str, kept: psycopg.Connection[Any]
) -> None:
    """Its clients are cut, open transactions are rolled back, and its port refuses."""
    with CommitProxy("127.0.0.1", proxy.port) as brief:
        client = through(brief, database)
        client.execute("begin")
        client.execute("insert into kept values (1)")
    with pytest.raises(psycopg.OperationalError):
        client.execute("commit")
    client.close()
    wait_until_alone(kept)
    assert [] == numbers(kept)
    with pytest.raises(psycopg.OperationalError):
        through(brief, database)


def test_a_server_that_is_away_costs_the_proxy_no_socket(tmp_path: Path, database: str) -> None:
    """The client is refused, and the socket without a server is closed; a warning about one fails this test."""
    with CommitProxy(str(tmp_path), 5432) as proxy, pytest.raises(psycopg.OperationalError):
        through(proxy, database)
    gc.collect()
