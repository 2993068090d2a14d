"""The adoption report: what the host application left in its tables, counted.

One query per kind of finding, each in a file of its name under adoption_report/. A query returns no row, or one: how
many were found, a sentence about them, and the SQL that shows or mends them. Nothing is changed, and nothing found here
stops anything: an instance that cannot be billed is quarantined by the run, and all others are billed.
"""

from __future__ import annotations

from importlib.resources import files

import psycopg

from containerstacks_billing.database.connection import Connection
from containerstacks_billing.schema.model import Finding
from containerstacks_billing.settings import Settings

# The most urgent first; the order in which they are reported.
KINDS = (
    "inexact_amounts",
    "host_still_bills",
    "fleeting_history",
    "positional_copies",
    "row_security",
    "missing_wallets",
    "unknown_plans",
    "ambiguous_plans",
    "nonsense_values",
    "future_watermarks",
    "several_wallets",
    "several_currencies",
    "wallet_drift",
    "doubled_cycles",
    "overlapping_cycles",
    "host_failed_cycles",
    "costly_indexes",
)
COUNTING_TIMEOUT = "60s"


def adoption_findings(connection: Connection, settings: Settings | None) -> tuple[Finding, ...]:
    """Count every kind on a migrated database; a count that takes more than a minute is reported as not taken."""
    currency = settings.currency if settings is not None else "USD"
    found = (_count(connection, kind, currency) for kind in KINDS)
    return tuple(finding for finding in found if finding is not None)


def _count(connection: Connection, kind: str, currency: str) -> Finding | None:
    text = (files("containerstacks_billing.schema") / "adoption_report" / f"{kind}.sql").read_text("utf-8")
    parameters = {"currency": currency} if "%(currency)s" in text else None
    try:
        with connection.transaction():
            connection.execute("SELECT set_config('statement_timeout', %s, true)", (COUNTING_TIMEOUT,))
            row = connection.execute(text, parameters).fetchone()
    except psycopg.errors.QueryCanceled:
        words = kind.replace("_", " ")
        return Finding(
            kind, None, f"Counting {words} took longer than {COUNTING_TIMEOUT} and was given up.", ""
        )
    return Finding(kind, *row) if row is not None else None
