"""Connection pool of one run, kept open between its steps.

Opening a connection takes both sides milliseconds, and a new one has an empty catalog cache: with one connection for
every step these were a fifth of a run over ten thousand instances.
"""

from __future__ import annotations

import queue
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

import psycopg
from psycopg import pq

from containerstacks_billing.database.connection import Connection, bounded_transaction, connect


class RunPool:
    """Connections for the steps and threads of a run, closed when the run ends.

    A connection that broke while idle is replaced when it is acquired. psycopg_pool is not used here:
    `acquire` has to raise what `connect` raises, in the calling thread.
    """

    def __init__(self, conninfo: str) -> None:
        self.conninfo = conninfo
        self._idle: queue.LifoQueue[Connection] = queue.LifoQueue()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        while (connection := self._next()) is not None:
            connection.close()

    def acquire(self) -> Connection:
        """Return a working connection, opened now if none is idle; raises what `connect` raises."""
        while (connection := self._next()) is not None:
            if _answers(connection):
                return connection
        return connect(self.conninfo, purpose="billing")

    def release(self, connection: Connection) -> None:
        """Return a connection to the pool; one that is broken or inside a transaction is closed."""
        if connection.info.transaction_status == pq.TransactionStatus.IDLE:
            self._idle.put(connection)
        else:
            connection.close()

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Yield a connection for the length of a block."""
        connection = self.acquire()
        try:
            yield connection
        finally:
            self.release(connection)

    def _next(self) -> Connection | None:
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            return None


def _answers(connection: Connection) -> bool:
    """Return whether a connection executes an empty transaction; otherwise close it."""
    answered = False
    try:
        with bounded_transaction(connection):
            pass
        answered = True
    except psycopg.Error:
        pass
    finally:
        if not answered:
            connection.close()
    return answered
