"""Connections to PostgreSQL: opened in one way, with time limits per transaction and translated errors.

Everything here works behind PgBouncer in transaction mode: no session SET, no startup options, no prepared
statements. So a bound that matters is set inside the transaction that it bounds, and an operator who put a
pooler in between loses none of them.

COMMIT is outside every limit: one that waits for a synchronous standby waits as long as that takes. When the wait is
cancelled, the server reports the transaction as committed, and only a notice says that it may be on one server alone.
`transaction` raises OutcomeUnknown for that. It also counts the COMMITs in progress: a thread that waits in one is not
stuck, and a process restarted there would leave its server process behind, waiting.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Literal, LiteralString

import psycopg
from psycopg import Transaction, pq
from psycopg.abc import Buffer
from psycopg.adapt import AdaptersMap
from psycopg.types.datetime import TimestamptzLoader

from containerstacks_billing.database.conninfo import read
from containerstacks_billing.database.errors import translate
from containerstacks_billing.errors import OutcomeUnknown

Purpose = Literal["billing", "reading", "maintenance"]
Connection = psycopg.Connection[tuple[Any, ...]]

CONNECT_TIMEOUT_SECONDS = 5
LOCK_TIMEOUT = "5s"
STATEMENT_TIMEOUT = "30s"
IDLE_IN_TRANSACTION_TIMEOUT = "15s"

# A peer that vanished is noticed within half a minute, also while we wait for an answer.
_TRANSPORT = {
    "connect_timeout": str(CONNECT_TIMEOUT_SECONDS),
    "keepalives": "1",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "25000",
    "client_encoding": "UTF8",
}


class _InstantLoader(TimestamptzLoader):
    """Loads timestamps in UTC, whatever the time zone of the session.

    Python subtracts and adds two times of one zone by the clock on the wall. In the night when clocks change, a
    heartbeat would be an hour older or younger than it is, and the next run an hour early or late.
    """

    def load(self, data: Buffer) -> datetime:
        return super().load(data).astimezone(UTC)


class _Reading:
    """Adapters from database values to Python values, on every connection."""

    adapters = AdaptersMap(psycopg.adapters)
    connection = None


_Reading.adapters.register_loader("timestamptz", _InstantLoader)


_committing: set[int] = set()


def commits_under_way() -> bool:
    """Return whether a connection of this process waits for the answer to a COMMIT."""
    return bool(_committing)


class ConfirmingConnection(psycopg.Connection[tuple[Any, ...]]):
    """Connection that reports a COMMIT as unknown when its wait for the synchronous standby was cancelled."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._wait_cancelled = cancelled = threading.Event()

        def note(notice: psycopg.errors.Diagnostic) -> None:
            # By the place that it comes from: its text is translated, its SQLSTATE that of any warning.
            if notice.source_function == "SyncRepWaitForLSN":
                cancelled.set()

        self.add_notice_handler(note)

    @contextmanager
    def transaction(
        self, savepoint_name: str | None = None, force_rollback: bool = False
    ) -> Iterator[Transaction]:
        """Begin a transaction, and commit it at the end; raises OutcomeUnknown where that is not certain."""
        self._wait_cancelled.clear()
        try:
            with super().transaction(savepoint_name, force_rollback) as transaction:
                yield transaction
                _committing.add(id(self))
        finally:
            _committing.discard(id(self))
        if self._wait_cancelled.is_set():
            raise OutcomeUnknown(
                "A COMMIT is not confirmed by the synchronous standby: the wait for it was cancelled.",
                "Bring the standby back, or change synchronous_standby_names; billing starts again from the rows.",
            )


def connect(conninfo: str, *, purpose: Purpose) -> Connection:
    """Open an autocommit connection for a purpose; what the connection string sets itself is kept.

    "billing" and "maintenance" ask several hosts for the one that accepts writes. "reading" takes any host
    and opens its transactions read-only. Raises DatabaseUnavailable, LoginRefused or ConfigurationError.
    """
    try:
        connection = ConfirmingConnection.connect(**connection_arguments(conninfo, purpose))
    except psycopg.Error as error:
        raise translate(error, conninfo) from None
    if purpose == "reading":
        connection.read_only = True
    else:
        # Whatever the role's default is: each statement has to see what those before it waited for, and writes.
        connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        connection.deferrable = False
        # A standby refuses to begin such a transaction in words that say nothing of a standby; its statements do.
        if connection.info.parameter_status("in_hot_standby") != "on":
            connection.read_only = False
    return connection


def connection_arguments(conninfo: str, purpose: str) -> dict[str, Any]:
    """Return the keyword arguments for the driver, for a connection opened here or by a pool."""
    parameters = read(conninfo).parameters
    # The driver reads instants in the ISO style alone. libpq sends that of its environment with the first message
    # of a connection, which poolers in transaction mode keep apart; a SET would stay behind on the pooler's connection.
    os.environ["PGDATESTYLE"] = "ISO"
    defaults: dict[str, Any] = {**_TRANSPORT, "application_name": f"containerstacks-billing {purpose}"}
    several = "," in parameters.get("host", "") or "," in parameters.get("hostaddr", "")
    if several and purpose != "reading":
        defaults["target_session_attrs"] = "read-write"
    return {**defaults, **parameters, "autocommit": True, "prepare_threshold": None, "context": _Reading()}


# What server, database, role or connection string set otherwise, and what would change a result. Row security stays on:
# the policies of `grants` are part of it, and schema/row_security.py refuses a role from which rows may be hidden.
_BOUNDS: LiteralString = (
    "set_config('lock_timeout', %s, true), set_config('statement_timeout', %s, true),"
    " set_config('idle_in_transaction_session_timeout', %s, true), set_config('jit', 'off', true),"
    " set_config('row_security', 'on', true), set_config('IntervalStyle', 'postgres', true),"
    " set_config('extra_float_digits', '1', true), set_config('array_nulls', 'on', true),"
    " set_config('transform_null_equals', 'off', true), set_config('quote_all_identifiers', 'off', true)"
)


def set_timeouts(connection: Connection, statement_timeout: str = STATEMENT_TIMEOUT) -> None:
    """Bound the open transaction: 5 s for a lock, 30 s for a statement, 15 s of idling; no compiling of expressions.

    To compile one of our statements takes longer than to run it, and the server does so from a million rows on.
    Has to be the first statement inside the transaction, and ends with it. COMMIT is outside these bounds.
    """
    status = connection.info.transaction_status
    if status == pq.TransactionStatus.IDLE and connection.pgconn.pipeline_status == pq.PipelineStatus.OFF:
        raise RuntimeError("transaction_bounds() was called outside a transaction and would bound nothing")
    connection.execute("SELECT " + _BOUNDS, (LOCK_TIMEOUT, statement_timeout, IDLE_IN_TRANSACTION_TIMEOUT))


@contextmanager
def bounded_transaction(connection: Connection, statement_timeout: str = STATEMENT_TIMEOUT) -> Iterator[None]:
    """Run a block as one bounded transaction."""
    with connection.transaction():
        set_timeouts(connection, statement_timeout)
        yield


@contextmanager
def read_pipeline(connection: Connection, statement_timeout: str = STATEMENT_TIMEOUT) -> Iterator[None]:
    """Run a block as one bounded transaction that may not write, and whose statements travel together.

    Statements are sent with the first fetch or at the end of the block: fetching after the block costs one round trip
    for all of them. There is no BEGIN: the server ends the transaction of a pipeline with it.
    """
    with connection.pipeline() as pipeline:
        connection.execute(
            "SELECT set_config('transaction_read_only', 'on', true), " + _BOUNDS,
            (LOCK_TIMEOUT, statement_timeout, IDLE_IN_TRANSACTION_TIMEOUT),
        )
        try:
            yield
        except psycopg.Error:
            # What was queued behind the failed statement is aborted with it; the driver would warn of that too.
            with suppress(psycopg.Error):
                pipeline.sync()
            raise


@contextmanager
def translate_errors(conninfo: str | None = None) -> Iterator[None]:
    """Run a block of database work and raise what the driver raises as one of our errors.

    `conninfo` lets the message name the database and the role; it is never quoted.
    """
    try:
        yield
    except psycopg.Error as error:
        raise translate(error, conninfo) from error
