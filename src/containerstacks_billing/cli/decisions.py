"""`decisions`: who decided what about whose money, when and why."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import click

from containerstacks_billing.cli.arguments import (
    WholeNumber,
    json_option,
    organization_option,
    require_organization,
)
from containerstacks_billing.cli.main import app, configured

_EXAMPLES = """
\b
Examples:
  containerstacks-billing decisions
  containerstacks-billing decisions --organization ID
  containerstacks-billing decisions --limit 500 --json | jq '.data[].reason'
"""


@app.command(epilog=_EXAMPLES)
@organization_option("Only about the money of this organization.")
@click.option("--limit", type=WholeNumber(1, 10_000), metavar="N", default=50, help="At most so many.")
@json_option
@click.pass_context
def decisions(ctx: click.Context, organization: UUID | None, limit: int, as_json: bool) -> None:
    """List who decided what about whose money, newest first.

    Released or waived hours, settled discrepancies, corrected prices, reversals, credits and released runs, each with
    author, time and reason. The amount is what it changed so far; a positive one costs the customer more.
    """
    from containerstacks_billing.cli import render
    from containerstacks_billing.config.target import target
    from containerstacks_billing.database.connection import connect
    from containerstacks_billing.records import read
    from containerstacks_billing.schema.diagnose import diagnosed
    from containerstacks_billing.text import minute

    conninfo = target(configured(ctx).settings).conninfo
    with diagnosed(conninfo), connect(conninfo, purpose="reading") as connection:
        page = read.decisions(connection, limit, organization=organization)
        if organization is not None and not page.rows:
            # Decisions outlive their organization, so one that has some is known.
            require_organization(connection, organization)
    if as_json:
        from containerstacks_billing.records.schemas import DecisionDocument, Listed

        data = [DecisionDocument.model_validate(row) for row in page.rows]
        has_more = page.next_cursor is not None
        render.emit_json(Listed[DecisionDocument](data=data, has_more=has_more, next_cursor=page.next_cursor))
        return
    console = render.stdout()
    if not page.rows:
        console.print("Nothing was decided yet.")
        return
    headings = ("When (UTC)", "By", "Decision", "About", "Amount", "Reason")
    rows = [
        (
            minute(row["decided_at"]),
            row["decided_by"],
            row["decision"],
            _about(row),
            _amount(row),
            row["reason"] or "",
        )
        for row in page.rows
    ]
    console.print(render.table(headings, rows, right=("Amount",)))
    if page.next_cursor is not None:
        console.print(f"\nThere are older ones than these {limit:,}; --limit shows more.")


def _about(row: dict[str, Any]) -> str:
    """Return what a decision is about: a run, a plan, an instance, a check of an organization."""
    if row["kind"] == "run":
        return f"run {row['run_id']}"
    if row["kind"] == "price":
        return f"price of {row['plan'] or row['plan_id']}"
    if row["kind"] in {"reversal", "credit", "audit"}:
        return f"{row['kind']} {row['decision_id']}"
    owner = row["organization"] or str(row["organization_id"] or "")
    subject = row["label"] or str(row["instance_id"] or "") if row["kind"] == "hours" else row["check_name"]
    return f"{subject}, {owner}" if owner else str(subject)


def _amount(row: dict[str, Any]) -> str:
    """Return the exact amount of a decision that moved one; of hours only the charges have it."""
    from containerstacks_billing.money import plain

    return "" if row["amount"] is None else plain(row["amount"])
