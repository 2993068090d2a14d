"""Readers of one snapshot: two connections that see the same rows, and share the statements of a comparison.

A statement of verify keeps one processor of the server busy, so two readers end in less time. The second imports the
snapshot that the first exported, which a standby allows as well. Where it cannot, for want of a connection or because
a pooler or a list of hosts led to another server, the first reads alone: the result is the same. So it does where a
pooler takes the second connection and has no server for it while the first holds one.
"""

from __future__ import annotations

import os
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import LiteralString, TypeVar

import psycopg
from psycopg import sql

from containerstacks_billing.database.connection import Connection, connect
from containerstacks_billing.errors import BillingError

Result = TypeVar("Result")
Reading = Callable[[Connection], Result]

# Bounds are for connections that others wait for, and none waits for a reader.
READ_EVERYTHING: LiteralString = """
    select set_config('statement_timeout', '0', true), set_config('lock_timeout', '0', true),
        set_config('idle_in_transaction_session_timeout', '0', true),
        set_config('work_mem', '128MB', true), set_config('jit', 'off', true), set_config('TimeZone', 'UTC', true),
        set_config('DateStyle', 'ISO', true)
"""
# Two servers never started in the same microsecond with snapshots of the same name.
_EXPORT: LiteralString = "select pg_export_snapshot(), pg_postmaster_start_time()"
# So long the second reader may take to see the snapshot.
ANSWER_SECONDS = 5.0
_SERVER: LiteralString = "select pg_postmaster_start_time()"


@contextmanager
def second_reader(first: Connection, conninfo: str) -> Iterator[Connection | None]:
    """Open a connection in a transaction that reads the snapshot of `first`; None where that is refused."""
    exported = first.execute(_EXPORT).fetchone()
    try:
        second = connect(conninfo, purpose="reading")
    except BillingError:
        yield None
        return
    try:
        # Its first statement begins the transaction, which is never committed.
        second.autocommit = False
        second.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        sees = exported is not None and _sees(second, *exported, within=ANSWER_SECONDS)
        if not sees:
            second.close()
        yield second if sees else None
    finally:
        with suppress(psycopg.Error):
            second.rollback()
        second.close()


def _sees(second: Connection, snapshot: str, started_at: object, *, within: float) -> bool:
    """Whether `second` could import the snapshot, from the server that exported it, within so many seconds."""
    end = threading.Timer(within, lambda: _hang_up(second))
    end.start()
    try:
        second.execute(sql.SQL("set transaction snapshot {}").format(snapshot))
        second.execute(READ_EVERYTHING)
        return second.execute(_SERVER).fetchone() == (started_at,)
    except psycopg.Error:
        return False
    finally:
        end.cancel()
        end.join()


def _hang_up(connection: Connection) -> None:
    """End the network connection, so that whatever waits for an answer on it fails."""
    with suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(connection.fileno())) as wire:
        wire.shutdown(socket.SHUT_RDWR)


def read_all(
    readings: Mapping[str, Reading[Result]], first: Connection, second: Connection | None
) -> dict[str, Result]:
    """Do each reading on one of the connections, in their order, and return the results by name.

    What a reading raises is raised, after the statement of the other connection was cancelled.
    """
    waiting = deque(readings.items())
    results: dict[str, Result] = {}

    def work(connection: Connection, other: Connection | None) -> None:
        try:
            while True:
                try:
                    name, reading = waiting.popleft()
                except IndexError:
                    return
                results[name] = reading(connection)
        except BaseException:
            waiting.clear()
            if other is not None:
                other.cancel()
            raise

    if second is None:
        work(first, None)
        return results
    with ThreadPoolExecutor(1, thread_name_prefix="verify") as pool:
        beside = pool.submit(work, second, first)
        try:
            work(first, second)
        except psycopg.errors.QueryCanceled:
            # The cause is the other's, where it failed first.
            if error := beside.exception():
                raise error from None
            raise
        beside.result()
    return results
