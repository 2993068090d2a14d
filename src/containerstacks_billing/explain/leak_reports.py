"""Storage of what leaks found, for the page, the metrics and alerts."""

from __future__ import annotations

import json

from containerstacks_billing.database.reports import keep_report
from containerstacks_billing.explain.leak_schemas import LeakSumDocument
from containerstacks_billing.explain.leaks import Leaks


def record_leaks(conninfo: str, found: Leaks, found_by: str) -> bool:
    """Keep the sums of the whole fleet; return False where they may not be written, which is no error."""
    values = {
        "read_at": found.read_at,
        "found_by": found_by,
        "currency": found.currency,
        "has_inventory": found.inventory is not None,
        "reasons": json.dumps([LeakSumDocument.of(one).as_json() for one in found.by_reason]),
    }
    return keep_report(
        conninfo,
        "billing_leak_reports",
        insert="insert_leak_report",
        remove_old="remove_old_leak_reports",
        values=values,
    )
