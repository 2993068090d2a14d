"""Compare the books in one snapshot; what each comparison means stands in verify.sql.

The work is the server's. It hands back a bounded number of discrepancies and counts, so our memory stays flat whatever
the size of the fleet and of the damage.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast
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
from containerstacks_billing.verification.readers import READ_EVERYTHING, Reading, read_all, second_reader

# Below so many charges a second connection costs more than it saves.
SHARED_FROM_CHARGES = 50_000


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
# Each statement once, under the first comparison that asks for it.
_BY_STATEMENT: dict[str, _Comparison] = {}
for _comparison in _COMPARISONS:
    for _statement in _comparison.statements:
        _BY_STATEMENT.setdefault(_statement, _comparison)


def verify(
    conninfo: str,
    *,
    organization: UUID | None = None,
    shown: int = SHOWN_PER_CHECK,
    progressed: Callable[[str], None] = lambda _: None,
    shared_from: int = SHARED_FROM_CHARGES,
) -> Verification:
    """Compare the books as they stand at one instant, reading only; `shown` bounds the discrepancies kept per check.

    With an organization, its own rows are compared, and the hours of its instances wherever they were. From
    `shared_from` charges on two connections read one snapshot; `progressed` gets what is compared next, from either of
    their threads. Raises SchemaMismatch, RightsMissing, DatabaseUnavailable.
    """
    with diagnosed(conninfo), connect(conninfo, purpose="reading") as connection:
        if problem := expected_schema_problem(connection) or hidden_rows_problem(connection):
            raise problem
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        with connection.transaction():
            connection.execute(READ_EVERYTHING)
            values: dict[str, Any] = {
                "whole": organization is None,
                "first_organization": organization or FIRST_UUID,
                "last_organization": organization or LAST_UUID,
                "shown": shown,
            }
            progressed("Counting what there is to compare")
            scope = one_row(connection, "verify_scope", dict_row, values)
            values["read_at"] = scope["read_at"]
            if scope["charges"] < shared_from:
                return _compare(connection, None, scope, values, progressed)
            with second_reader(connection, conninfo) as second:
                return _compare(connection, second, scope, values, progressed)


def _compare(
    first: Connection,
    second: Connection | None,
    scope: dict[str, Any],
    values: dict[str, Any],
    progressed: Callable[[str], None],
) -> Verification:
    shown = values["shown"]
    accepted = set(first.execute(query("accepted_fingerprints")).fetchall())
    # Accepted discrepancies are found again each time; room for them beside those that are shown.
    values = {**values, "shown": shown + len(accepted)}
    answers = read_all(_readings(values, progressed), first, second)
    found: Counter[str] = Counter()
    kept: dict[str, list[Discrepancy]] = defaultdict(list)
    # In the order of the comparisons, whichever reader ended first.
    for statement in _BY_STATEMENT:
        counted: dict[str, int] = {}
        for discrepancy, total in answers[statement]:
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
        host=HostRows(**answers["verify_host_rows"]),
        open_items=OpenItems(**answers["count_open_items"]),
        settled=tuple(Settled(*row) for row in first.execute(query("verify_accepted"), values)),
    )


def _readings(values: dict[str, Any], progressed: Callable[[str], None]) -> dict[str, Reading[Any]]:
    """Return what is to be read, by statement; the one that takes longest is among the first."""

    def compared(comparison: _Comparison, statement: str) -> Reading[Any]:
        def read(connection: Connection) -> list[tuple[Discrepancy, int]]:
            progressed(comparison.description)
            return list(_discrepancies(connection, comparison.name, statement, values))

        return read

    def counted(statement: str, what: str) -> Reading[Any]:
        def read(connection: Connection) -> dict[str, Any]:
            progressed(what)
            return cast("dict[str, Any]", one_row(connection, statement, dict_row, values))

        return read

    readings = {statement: compared(one, statement) for statement, one in _BY_STATEMENT.items()}
    readings["verify_host_rows"] = counted("verify_host_rows", "Counting what the host billed itself")
    readings["count_open_items"] = counted("count_open_items", "Counting what waits")
    return readings


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
