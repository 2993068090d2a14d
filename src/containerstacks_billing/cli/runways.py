"""`runways`: when each wallet runs empty."""

from __future__ import annotations

from typing import Any

import click

from containerstacks_billing.cli.arguments import Number, WholeNumber, json_option
from containerstacks_billing.cli.main import app, configured

_EXAMPLES = """
\b
Examples:
  containerstacks-billing runways               the next fifty
  containerstacks-billing runways --below 24    who is empty within a day
  containerstacks-billing runways --below 72 --json | jq .runways
"""
_TWO_DAYS = 48


@app.command(epilog=_EXAMPLES)
@click.option("--below", type=Number(0), metavar="HOURS", help="Only those empty within.")
@click.option("--limit", type=WholeNumber(1, 100_000), metavar="N", default=50, help="At most so many.")
@json_option
@click.pass_context
def runways(ctx: click.Context, below: float | None, limit: int, as_json: bool) -> None:
    """Show when each wallet is empty at its present burn.

    As of its last run; those past due come first.
    """
    from containerstacks_billing.cli import render
    from containerstacks_billing.config.target import target
    from containerstacks_billing.database.connection import connect
    from containerstacks_billing.notifications import outbox as events
    from containerstacks_billing.schema.diagnose import diagnosed
    from containerstacks_billing.text import minute

    conninfo = target(configured(ctx).settings).conninfo
    with diagnosed(conninfo), connect(conninfo, purpose="reading") as connection:
        rows = events.list_runways(connection, below_hours=below, limit=limit)
    if as_json:
        from containerstacks_billing.notifications.schemas import Runways

        render.emit_json(Runways.model_validate({"runways": rows}))
        return
    console = render.stdout()
    if not rows:
        console.print("No wallet is used up" + (f" within {below:g} hours." if below is not None else "."))
        return
    headings = ("Organization", "Balance", "Per hour", "Empty at (UTC)", "Left")
    cells = [
        (
            render.shortened(row["name"] or str(row["organization_id"])),
            row["balance"],
            row["burn_per_hour"],
            minute(row["empties_at"]) if row["empties_at"] else None,
            _left(row),
        )
        for row in rows
    ]
    console.print(render.table(headings, cells, right=("Balance", "Per hour", "Left")))
    if len(rows) == limit:
        render.stderr().print(f"The first {limit}; --limit shows more.")


def _left(row: dict[str, Any]) -> str:
    """Say how long it lasts: hours below two days, then days."""
    if row["past_due_since"] is not None:
        return "past due"
    hours = row["hours_left"]
    if hours is None:
        return "no end"
    if hours <= 0:
        return "empty"
    return f"{hours:.1f} h" if hours < _TWO_DAYS else f"{hours / 24:.0f} d"
