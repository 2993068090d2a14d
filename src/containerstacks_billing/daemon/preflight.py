"""Checks before the daemon reports ready: whether this schema and these rights can bill at all."""

from __future__ import annotations

from containerstacks_billing import logs
from containerstacks_billing.database.connection import Connection, bounded_transaction, connect
from containerstacks_billing.database.inspect import missing_grants, missing_rights
from containerstacks_billing.errors import EXIT_CONFIGURATION, BillingError, RightsMissing
from containerstacks_billing.hosts.adopted import statuses_problem
from containerstacks_billing.schema.diagnose import diagnosed
from containerstacks_billing.schema.drift import expected_schema_problem
from containerstacks_billing.schema.row_security import hidden_rows_problem
from containerstacks_billing.settings import Settings

# Without these rights charges are the same: a status, a webhook or the removal of old rows is missing. Writing events
# and runways is needed, because a past-due event belongs to the transaction of the charge.
_DISPENSABLE = {
    "billing_daemon_status": {"SELECT", "INSERT", "UPDATE", "DELETE"},
    "billing_application_sides": {"SELECT", "INSERT", "UPDATE", "DELETE"},
    "billing_tokens": {"SELECT"},
    "billing_events": {"UPDATE", "DELETE"},
    "billing_runways": {"DELETE"},
    "billing_runs": {"DELETE"},
}


def preflight(conninfo: str, settings: Settings | None = None) -> None:
    """Raise SchemaMismatch, RightsMissing or ConfigurationError where no attempt could charge.

    Other errors may be over by the first attempt and are logged: a database that is away, a refused password, a
    statement that waited too long or was cancelled.
    """
    try:
        with (
            diagnosed(conninfo),
            connect(conninfo, purpose="reading") as connection,
            bounded_transaction(connection),
        ):
            _require_rights(connection)
            if problem := expected_schema_problem(connection) or hidden_rows_problem(connection):
                raise problem
            if settings is not None and (undecided := statuses_problem(connection, settings)):
                raise undecided
    except BillingError as error:
        if error.exit_code == EXIT_CONFIGURATION:
            raise
        logs.logger().warning("The daemon starts without its database and waits for it", reason=str(error))


def _require_rights(connection: Connection) -> None:
    role = connection.info.user
    missing, grants = missing_rights(connection), missing_grants(connection, role)
    needed = [table for table, rights in missing.items() if set(rights) - _DISPENSABLE.get(table, set())]
    if needed:
        raise RightsMissing(f"The role {role} lacks rights on {', '.join(needed)}.", "\n".join(grants))
    if grants:
        logs.logger().warning("Rights are missing that billing can do without", grants=" ".join(grants))
