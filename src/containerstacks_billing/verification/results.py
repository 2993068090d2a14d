"""Storage of the results of verify."""

from __future__ import annotations

import json
from typing import Any

from psycopg.rows import dict_row

from containerstacks_billing.database.connection import Connection
from containerstacks_billing.database.reports import keep_report
from containerstacks_billing.database.statements import ask
from containerstacks_billing.verification.schemas import VerificationDocument


def record(conninfo: str, found: VerificationDocument, verified_by: str) -> bool:
    """Keep the result of a comparison of all the books; return False where it may not be written, which is no error."""
    values = {
        "read_at": found.read_at,
        "discrepancies": sum(check.discrepancies for check in found.checks),
        "document": json.dumps(found.as_json()),
        "verified_by": verified_by,
    }
    return keep_report(
        conninfo,
        "billing_verifications",
        insert="insert_verification",
        remove_old="remove_old_verifications",
        values=values,
    )


def last_verification(connection: Connection) -> dict[str, Any] | None:
    """Return the last result by column name; None before the first."""
    return ask(connection, "last_verification", dict_row).fetchone()
