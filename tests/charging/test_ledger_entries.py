"""The debit of a run: its metadata lead to what each instance cost, by the statement that the documentation gives."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
from tests.fleet import Fleet

_SCHEMA = Path(__file__).parents[2] / "docs" / "database-schema.md"
_TITLE = "## From a ledger entry to what each instance cost"


def documented_statement() -> str:
    """Return the statement of docs/database-schema.md that finds the charges of an entry."""
    section = _SCHEMA.read_text(encoding="utf-8").split(_TITLE, 1)[1]
    (statement,) = re.findall(r"```sql\n(.*?);\n```", section.split("\n## ", 1)[0], re.DOTALL)
    return statement.replace("'00000000-0000-0000-0000-000000000000'", "%s")


def test_an_entry_leads_to_what_each_instance_cost(conn: psycopg.Connection[Any]) -> None:
    """One hour, then two and a half with an instance deleted in the middle, then what was past due: three kinds of batches."""
    fleet = Fleet(conn)
    acme = fleet.organization("0.03")
    small, large = fleet.plan("7.30"), fleet.plan("14.60")
    web, db = fleet.instance(acme, small), fleet.instance(acme, large)
    fleet.hours(1)
    fleet.bill()
    fleet.hours(1.5)
    fleet.delete(db)
    fleet.hours(1.5)
    fleet.bill()
    fleet.top_up(acme, "1.00")
    fleet.bill()

    entries = fleet.rows(
        "select id, metadata ->> 'period_start' as first, metadata ->> 'period_end' as last"
        " from payment_transactions where payment_method = 'wallet_debit' order by created_at, provider_transaction_id"
    )
    cost = [
        (
            entry.first[11:16],
            entry.last[11:16],
            {
                row.vps_instance_id: (row.hours, row.cost)
                for row in fleet.rows(documented_statement(), entry.id)
            },
        )
        for entry in entries
    ]
    assert [
        ("00:00", "01:00", {web: (1, Decimal("0.01")), db: (1, Decimal("0.02"))}),
        ("01:00", "04:00", {web: (3, Decimal("0.03")), db: (Decimal("1.5"), Decimal("0.03"))}),
    ] == cost
