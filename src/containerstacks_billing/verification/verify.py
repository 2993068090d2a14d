"""Compare the books in one snapshot; what each comparison means stands in verify.sql.

The work is the server's. It hands back a bounded number of discrepancies and counts, so our memory stays flat whatever
the size of the fleet and of the damage.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from containerstacks_billing.database.connection import Connection, connect
from containerstacks_billing.database.ids import FIRST_UUID, LAST_UUID
from containerstacks_billing.database.statements import one_row, query
from containerstacks_billing.manuals import manual
from containerstacks_billing.schema.diagnose import diagnosed
from containerstacks_billing.schema.drift import expected_schema_problem
from containerstacks_billing.schema.row_security import hidden_rows_problem
from containerstacks_billing.verification.model import (
    SHOWN_PER_CHECK,
    Check,
    Discrepancy,
    HostRows,
    OpenItems,
    Settled,
    Verification,
)

# Bounds are for connections that others wait for, and none waits for a reader.
_READ_EVERYTHING = """
    select set_config('statement_timeout', '0', true), set_config('lock_timeout', '0', true),
        set_config('idle_in_transaction_session_timeout', '0', true),
        set_config('work_mem', '128MB', true), set_config('jit', 'off', true), set_config('TimeZone', 'UTC', true),
        set_config('DateStyle', 'ISO', true)
"""


@dataclass(frozen=True, slots=True)
class _Comparison:
    """A check, what `verify_scope` counts for it, and the statements that find its discrepancies."""

    name: str
    description: str
    scope: str
    statements: tuple[str, ...]
    hint: str | None = None


_COMPARISONS = (
    _Comparison(
        "charged-once", "No hour of an instance is charged twice", "charges", ("find_overlaps_and_gaps",)
    ),
    _Comparison(
        "one-biller",
        "No hour is charged by the host as well",
        "charges",
        ("find_hours_charged_by_both",),
        f"Switch the hourly billing of the host application off ({manual('hosts')}), or refuse its debits: "
        "containerstacks-billing migrate --fence-host-billing. What it took twice is the customers'.",
    ),
    _Comparison(
        "gaps",
        "Every hour is charged, past due or explained",
        "instances",
        ("find_overlaps_and_gaps", "find_vanished_instances"),
    ),
    _Comparison(
        "watermarks", "No watermark stands behind a charge", "instances", ("find_misplaced_watermarks",)
    ),
    _Comparison(
        "amounts",
        "Every amount is hours times hourly rate",
        "charges",
        ("find_wrong_amounts", "find_wrong_adjustments"),
    ),
    _Comparison("reversals", "Orders give back what stood, once", "adjustments", ("find_wrong_orders",)),
    _Comparison("rates", "Every hourly rate is the price in force", "charges", ("find_wrong_rates",)),
    _Comparison("carries", "Charges billed are debits and carry", "wallets", ("find_wrong_carries",)),
    _Comparison("balances", "Balances are opening and ledger entries", "wallets", ("find_wrong_balances",)),
    _Comparison(
        "entries",
        "Ledger entries are the cents of their charges",
        "entries",
        ("find_wrong_entries", "find_dangling_links"),
    ),
    _Comparison("runs", "Runs recorded what they billed", "runs", ("find_wrong_runs",)),
    _Comparison("past-due", "A wallet is marked past due if it owes", "wallets", ("find_wrong_marks",)),
    _Comparison("below-zero", "No debit took a balance below zero", "entries", ("find_overdrafts",)),
    _Comparison(
        "metering",
        "Every change of an instance was metered",
        "segments",
        ("find_metering_failures", "find_unnoticed_stops"),
        "Look at billing_metering_failures: enter the segments that its rows name into billing_usage_segments, "
        "or refund them, and delete the rows.",
    ),
    _Comparison("prices", "Prices of a plan follow each other", "prices", ("find_broken_prices",)),
    _Comparison("policies", "Billing policies follow each other", "policies", ("find_broken_policies",)),
)
CHECKS = tuple(comparison.name for comparison in _COMPARISONS)


def verify(
    conninfo: str,
    *,
    organization: UUID | None = None,
    shown: int = SHOWN_PER_CHECK,
    progressed: Callable[[str], None] = lambda _: None,
) -> Verification:
    """Compare the books as they stand at one instant, reading only; `shown` bounds the discrepancies kept per check.

    With an organization, its own rows are compared, and the hours of its instances wherever they were. `progressed` is
    told what is being compared. Raises SchemaMismatch, RightsMissing, DatabaseUnavailable.
    """
    with diagnosed(conninfo), connect(conninfo, purpose="reading") as connection:
        if problem := expected_schema_problem(connection) or hidden_rows_problem(connection):
            raise problem
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        with connection.transaction():
            connection.execute(_READ_EVERYTHING)
            return _compare(connection, organization, shown, progressed)


def _compare(
    connection: Connection, organization: UUID | None, shown: int, progressed: Callable[[str], None]
) -> Verification:
    values: dict[str, Any] = {
        "whole": organization is None,
        "first_organization": organization or FIRST_UUID,
        "last_organization": organization or LAST_UUID,
        "shown": shown,
    }
    scope = one_row(connection, "verify_scope", dict_row, values)
    values["read_at"] = scope["read_at"]
    accepted = set(connection.execute(query("accepted_fingerprints")).fetchall())
    # Accepted discrepancies are found again each time; room for them beside those that are shown.
    values["shown"] = shown + len(accepted)
    found: Counter[str] = Counter()
    kept: dict[str, list[Discrepancy]] = defaultdict(list)
    asked: set[str] = set()
    for comparison in _COMPARISONS:
        for statement in comparison.statements:
            if statement in asked:
                continue
            asked.add(statement)
            progressed(comparison.description)
            counted: dict[str, int] = {}
            for discrepancy, total in _discrepancies(connection, comparison.name, statement, values):
                counted.setdefault(discrepancy.check, total)
                if (discrepancy.check, discrepancy.fingerprint) in accepted:
                    counted[discrepancy.check] -= 1
                else:
                    kept[discrepancy.check].append(discrepancy)
            found.update(counted)
    checks = tuple(
        Check(
            one.name,
            one.description,
            scope[one.scope],
            one.scope,
            found[one.name],
            min(len(kept[one.name]), shown),
            one.hint,
        )
        for one in _COMPARISONS
    )
    return Verification(
        read_at=scope["read_at"],
        checks=checks,
        discrepancies=tuple(one for check in checks for one in kept[check.name][:shown]),
        host=HostRows(**one_row(connection, "verify_host_rows", dict_row, values)),
        open_items=OpenItems(**one_row(connection, "count_open_items", dict_row, values)),
        settled=tuple(Settled(*row) for row in connection.execute(query("verify_accepted"), values)),
    )


def _discrepancies(
    connection: Connection, check: str, statement: str, values: dict[str, Any]
) -> Iterator[tuple[Discrepancy, int]]:
    """Yield what a statement found, and of how many; the columns besides message and found identify the place."""
    with connection.cursor(row_factory=dict_row) as cursor:
        for row in cursor.execute(query(statement), values):
            total, message = row.pop("found"), row.pop("message")
            name = row.pop("check_name", check)
            identifiers = {
                kind: value if isinstance(value, int) else str(value)
                for kind, value in row.items()
                if value is not None
            }
            yield Discrepancy(name, message, identifiers), total
