"""Storage of results that commands and the daemon keep for pages and alerts: the newest of each kind.

To find something needs no right to write, so a result that cannot be kept is no error.
"""

from __future__ import annotations

from collections.abc import Mapping

from containerstacks_billing.database.connection import bounded_transaction, connect, translate_errors
from containerstacks_billing.database.statements import ask
from containerstacks_billing.errors import BillingError

KEPT = 500


def keep_report(
    conninfo: str, table: str, *, insert: str, remove_old: str, values: Mapping[str, object]
) -> bool:
    """Insert a result and remove the oldest beyond 500; return False where this role or server may not write.

    `insert` and `remove_old` are the names of statements; the second binds `kept`.
    """
    try:
        with (
            translate_errors(conninfo),
            connect(conninfo, purpose="billing") as connection,
            bounded_transaction(connection),
        ):
            if ask(connection, "may_keep_reports", values={"table": table}).fetchone() != (True,):
                return False
            ask(connection, insert, values=values)
            ask(connection, remove_old, values={"kept": KEPT})
    except BillingError:
        return False
    return True
