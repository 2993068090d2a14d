"""Storage of the results of verify."""

from __future__ import annotations

import json
from typing import Any

from psycopg.rows import dict_row

from containerstacks_billing.database.connection import (
    Connection,
    bounded_transaction,
    connect,
    translate_errors,
)
from containerstacks_billing.database.statements import ask
from containerstacks_billing.errors import BillingError
from containerstacks_billing.verification.schemas import VerificationDocument

KEPT = 500


def record(conninfo: str, found: VerificationDocument, verified_by: str) -> bool:
    """Keep the result of a comparison of all the books; return False where this role or server may not write.

    A proof needs no right to write, so a result that cannot be kept is no error.
    """
    values = {
        "read_at": found.read_at,
        "discrepancies": sum(check.discrepancies for check in found.checks),
        "document": json.dumps(found.as_json()),
        "verified_by": verified_by,
        "kept": KEPT,
    }
    try:
        with (
            translate_errors(conninfo),
            connect(conninfo, purpose="billing") as connection,
            bounded_transaction(connection),
        ):
            if not ask(connection, "may_record_verification").fetchall()[0][0]:
                return False
            ask(connection, "record_verification", values=values)
            ask(connection, "remove_old_verifications", values=values)
    except BillingError:
        return False
    return True


def last_verification(connection: Connection) -> dict[str, Any] | None:
    """Return the last result by column name; None before the first."""
    return ask(connection, "last_verification", dict_row).fetchone()
