"""Storage of what leaks found, for the page, the metrics and alerts."""

from __future__ import annotations

import json

from containerstacks_billing.database.connection import bounded_transaction, connect, translate_errors
from containerstacks_billing.database.statements import ask
from containerstacks_billing.errors import BillingError
from containerstacks_billing.explain.leak_schemas import LeakSumDocument
from containerstacks_billing.explain.leaks import Leaks

KEPT = 500


def record_leaks(conninfo: str, found: Leaks, found_by: str) -> bool:
    """Keep the sums of the whole fleet; return False where this role or server may not write, which is no error."""
    values = {
        "read_at": found.read_at,
        "found_by": found_by,
        "currency": found.currency,
        "has_inventory": found.inventory is not None,
        "reasons": json.dumps([LeakSumDocument.of(one).as_json() for one in found.by_reason]),
        "kept": KEPT,
    }
    try:
        with (
            translate_errors(conninfo),
            connect(conninfo, purpose="billing") as connection,
            bounded_transaction(connection),
        ):
            if not ask(connection, "may_record_leaks").fetchall()[0][0]:
                return False
            ask(connection, "record_leaks", values=values)
            ask(connection, "remove_old_leak_reports", values=values)
    except BillingError:
        return False
    return True
