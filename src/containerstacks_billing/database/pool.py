"""Read-only connection pool of the web application: bounded connections, waiting time and statement time.

Pages and probes read all the time, most of all when something is wrong. However many there are, they take no more than
these connections and no more than seconds of the server from billing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout, TooManyRequests

from containerstacks_billing.database.connection import (
    ConfirmingConnection,
    Connection,
    bounded_transaction,
    connect,
    connection_arguments,
    read_pipeline,
)
from containerstacks_billing.database.errors import translate
from containerstacks_billing.errors import BillingError, DatabaseUnavailable

CONNECTIONS = 4
WAITING = 50
WAIT_SECONDS = 3.0
READ_TIMEOUT = "3s"


class PoolExhausted(DatabaseUnavailable):
    """All connections of the pool are in use; the database itself may be healthy."""


class ReadingPool:
    """Pool of lazily opened connections to the primary; a standby lags, and figures shown must be current."""

    def __init__(self, conninfo: str, *, connections: int = CONNECTIONS) -> None:
        self._conninfo = conninfo
        self._connections = connections
        self._lent = 0
        self._counting = threading.Lock()
        self._pool: ConnectionPool[ConfirmingConnection] = ConnectionPool(
            "",
            connection_class=ConfirmingConnection,
            kwargs=connection_arguments(conninfo, "web"),
            min_size=0,
            max_size=connections,
            max_waiting=WAITING,
            timeout=WAIT_SECONDS,
            max_idle=60.0,
            reconnect_timeout=5.0,
            check=ConnectionPool.check_connection,
            name="billing-web",
            open=False,
        )

    def open(self) -> None:
        """Open the pool; the database need not be reachable."""
        self._pool.open()

    def close(self) -> None:
        """Close every connection."""
        self._pool.close()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Yield a connection inside a bounded read-only transaction in pipeline mode; raises BillingError.

        See `read_pipeline`.
        """
        with self._connection() as connection, read_pipeline(connection, READ_TIMEOUT):
            yield connection

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """Yield a connection inside one bounded read-only snapshot, for statements that depend on each other.

        Raises BillingError.
        """
        with self._connection() as connection:
            connection.isolation_level, connection.read_only = psycopg.IsolationLevel.REPEATABLE_READ, True
            try:
                with bounded_transaction(connection, READ_TIMEOUT):
                    yield connection
            finally:
                # A connection that broke is thrown away; it refuses to be changed.
                if not connection.broken:
                    connection.isolation_level = connection.read_only = None

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Yield a connection inside a bounded transaction; raises BillingError."""
        with self._connection() as connection, bounded_transaction(connection, READ_TIMEOUT):
            yield connection

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        try:
            with self._pool.connection() as connection, self._counted():
                yield connection
        except (PoolTimeout, PoolClosed, TooManyRequests):
            raise self._why() from None
        except psycopg.Error as error:
            raise translate(error, self._conninfo) from error

    @contextmanager
    def _counted(self) -> Iterator[None]:
        # The pool's own figure counts connections that it only tries to open, as it does all through an outage.
        with self._counting:
            self._lent += 1
        try:
            yield
        finally:
            with self._counting:
                self._lent -= 1

    def _why(self) -> BillingError:
        """Return why no connection was available, which the pool does not report."""
        if self._lent >= self._connections:
            return PoolExhausted("Every connection for reading is in use.", "Try again in a few seconds.")
        try:
            connect(self._conninfo, purpose="reading").close()
        except BillingError as error:
            return error
        return DatabaseUnavailable("The database gave no connection in time.", "Try again in a few seconds.")
