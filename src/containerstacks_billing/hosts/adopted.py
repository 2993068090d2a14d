"""Host application of a database, and the decision about BILLABLE_STATUSES that adoption asks for.

Both hosts charge every instance whatever its status, and neither keeps the status current: it is what the provider said
when a page was opened last. The default of BILLABLE_STATUSES would silently stop charging a part of such a fleet. So,
before the first completed run, the default is compared with what the host billed; where they differ, billing refuses
until the operator has set the value, whichever it is.
"""

from __future__ import annotations

from psycopg.rows import args_row

from containerstacks_billing.database.connection import (
    Connection,
    bounded_transaction,
    connect,
    translate_errors,
)
from containerstacks_billing.database.statements import query
from containerstacks_billing.errors import ConfigurationError
from containerstacks_billing.hosts.model import Host, LeftOut, describe
from containerstacks_billing.settings import Settings

EVERY_STATUS = ("*",)
_WEEK_OF_LEDGER = "60s"


def host_of(connection: Connection) -> Host:
    """Return which host application the tables are of."""
    with translate_errors():
        row = connection.execute(query("host_tables")).fetchone()
    successor, host = row if row is not None else (False, False)
    return Host.SUCCESSOR if successor else Host.CONTAINERSTACKS if host else Host.NONE


def left_out(connection: Connection, settings: Settings) -> tuple[LeftOut, ...]:
    """Return what the host bills and the configured statuses leave out; empty once a run has completed."""
    if settings.billable_statuses == EVERY_STATUS:
        return ()
    values = {"statuses": list(settings.billable_statuses), "hours_per_month": settings.hours_per_month}
    with translate_errors(), connection.cursor(row_factory=args_row(LeftOut)) as cursor:
        return tuple(cursor.execute(query("statuses_left_out"), values).fetchall())


def statuses_problem(connection: Connection, settings: Settings) -> ConfigurationError | None:
    """Return the refusal to guess BILLABLE_STATUSES; None where it is set, or agrees with what the host bills."""
    if "billable_statuses" in settings.model_fields_set:
        return None
    found = left_out(connection, settings)
    if not found:
        return None
    default = ",".join(settings.billable_statuses)
    return ConfigurationError(
        f"{describe(found, settings.billable_statuses, settings.currency)}. Nothing is charged until that is decided.",
        hint="Set BILLABLE_STATUSES=* to charge every instance, as the host does; "
        f"or BILLABLE_STATUSES={default} to charge no others.",
    )


def require_statuses(conninfo: str, settings: Settings) -> None:
    """Raise ConfigurationError where BILLABLE_STATUSES has to be set before anything is charged."""
    if "billable_statuses" in settings.model_fields_set:
        return
    with (
        connect(conninfo, purpose="reading") as connection,
        bounded_transaction(connection, _WEEK_OF_LEDGER),
    ):
        problem = statuses_problem(connection, settings)
    if problem:
        raise problem
