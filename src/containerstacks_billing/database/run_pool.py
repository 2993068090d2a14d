"""The connections of a run, kept open between its steps.

Opening a connection takes both sides milliseconds, and a new one knows nothing of the catalogs yet: with one for every
step these were a fifth of a run over ten thousand instances.
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
    """Lends connections to the steps and threads of a run, and closes what was given back when the run ends.

    One that broke while it lay here, since the server was restarted, is noticed when it is taken, and replaced.
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
        """Return a connection that answers, opened now if there is none; raises what `connect` raises."""
        while (connection := self._next()) is not None:
            if _answers(connection):
                return connection
        return connect(self.conninfo, purpose="billing")

    def release(self, connection: Connection) -> None:
        """Keep a connection for the next step, unless it is broken or in the middle of something."""
        if connection.info.transaction_status == pq.TransactionStatus.IDLE:
            self._idle.put(connection)
        else:
            connection.close()

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Lend a connection for the length of a block."""
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
    """Begin and end a transaction; one that does not answer, or is interrupted, is closed."""
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
