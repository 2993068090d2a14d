"""Sign of life of an application side, from which it is known what takes over when the daemon is silent."""

from __future__ import annotations

from datetime import timedelta

from containerstacks_billing.database.connection import connect, set_timeouts
from containerstacks_billing.database.statements import query
from containerstacks_billing.schema.diagnose import diagnosed
from containerstacks_billing.settings import Settings

WRITE_TIMEOUT = "5s"


def report(conninfo: str, holder: str, settings: Settings) -> None:
    """Write the sign of life; raises BillingError where that is not possible."""
    values = {
        "holder": holder,
        "setting": settings.built_in_billing,
        "failover_after": timedelta(minutes=settings.failover_after_minutes),
    }
    _execute(conninfo, "report_application_side", values)


def withdraw(conninfo: str, holder: str) -> None:
    """Remove the sign of life, because this application side ends; raises BillingError."""
    _execute(conninfo, "withdraw_application_side", {"holder": holder})


def _execute(conninfo: str, name: str, values: dict[str, object]) -> None:
    with diagnosed(conninfo), connect(conninfo, purpose="billing") as connection, connection.transaction():
        set_timeouts(connection, WRITE_TIMEOUT)
        connection.execute(query(name), values)
