"""Closing of a month: its totals are frozen, range by range, and then its hash.

What is frozen is a function of rows that do not change any more, so a process that dies in between loses nothing:
given again, closing freezes what is missing. Two at once freeze the same.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from psycopg.rows import dict_row

from containerstacks_billing.database.connection import Connection, bounded_transaction, connect
from containerstacks_billing.database.statements import ask
from containerstacks_billing.errors import WorkFailed
from containerstacks_billing.explain.month import Month
from containerstacks_billing.explain.snapshot import snapshot
from containerstacks_billing.months.model import FrozenSums, KnownMonth, MonthState, Span
from containerstacks_billing.months.ranges import ORGANIZATIONS_AT_ONCE, STATEMENT_TIMEOUT, ranges
from containerstacks_billing.months.read import known_months, list_months
from containerstacks_billing.schema.diagnose import diagnosed
from containerstacks_billing.schema.row_security import hidden_rows_problem
from containerstacks_billing.text import counted
from containerstacks_billing.verification.verify import verify


def require_closable(conninfo: str, month: Month) -> None:
    """Raise WorkFailed with the reason where a month cannot be closed; compares all the books, as `verify` does."""
    with snapshot(conninfo) as connection:
        months = list_months(connection)[1]
    found = next((one for one in months if one.sums.name == month.name), None)
    if found is None:
        raise WorkFailed(f"Nothing is charged in {month.name} or before it; there is nothing to close.")
    if found.state in (MonthState.CLOSING, MonthState.CLOSED):
        return
    earlier = [
        one.sums.name for one in months if one.sums.name < month.name and one.state is not MonthState.CLOSED
    ]
    if earlier:
        raise WorkFailed(
            f"{earlier[0]} is not closed, and older months come first.",
            f"containerstacks-billing months close {earlier[0]}",
        )
    if found.waiting:
        raise WorkFailed(
            f"{month.name} is not complete: {'; '.join(found.waiting)}.",
            "containerstacks-billing run charges what is due, quarantine and release decide about what is held.",
        )
    if discrepancies := verify(conninfo).found:
        raise WorkFailed(
            f"verify finds {counted(discrepancies, 'discrepancy')}; {month.name} was not closed.",
            "containerstacks-billing verify names them, reconcile settles them.",
        )


def preview(conninfo: str, month: Month) -> FrozenSums:
    """Return what closing a month would freeze; reads only, and leaves out nothing that runs have billed by now."""
    with snapshot(conninfo) as connection:
        span = Span(month.name, month.starts_at, month.ends_at, 2**62)
        parts = [
            _row(connection, "preview_of_month", span.values(first, last))
            for first, last in ranges(connection)
        ]
    return _sums({name: sum(part[name] for part in parts) for name in parts[0]})


def close(conninfo: str, month: Month, closed_by: str, *, at_once: int = ORGANIZATIONS_AT_ONCE) -> KnownMonth:
    """Close a month and return it; one that is closed already is returned as it is. Raises WorkFailed."""
    require_closable(conninfo, month)
    with diagnosed(conninfo), connect(conninfo, purpose="billing") as connection:
        if problem := hidden_rows_problem(connection):
            raise problem
        with bounded_transaction(connection):
            values = {
                "month": month.name,
                "from": month.starts_at,
                "until": month.ends_at,
                "closed_by": closed_by,
            }
            ask(connection, "begin_closing", values=values)
        known = _known(connection, month.name)
        if known.state == MonthState.CLOSED:
            return known
        for first, last in ranges(connection, at_once):
            with bounded_transaction(connection, STATEMENT_TIMEOUT):
                ask(connection, "freeze_month_totals", values=known.span.values(first, last))
        with bounded_transaction(connection, STATEMENT_TIMEOUT):
            ask(connection, "end_closing", values=known.span.values())
        return _known(connection, month.name)


def frozen_sums(conninfo: str, month: str) -> FrozenSums:
    """Return what is frozen of a month."""
    with snapshot(conninfo) as connection:
        return _sums(_row(connection, "frozen_sums_of_month", {"month": month}))


def _known(connection: Connection, month: str) -> KnownMonth:
    return next(one for one in known_months(connection) if one.month == month)


def _row(connection: Connection, statement: str, values: dict[str, Any]) -> dict[str, Any]:
    return ask(connection, statement, dict_row, values).fetchall()[0]


def _sums(found: dict[str, Any]) -> FrozenSums:
    return FrozenSums(hours=Decimal(found.pop("seconds")) / 3600, **found)
