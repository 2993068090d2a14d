"""`runs`: the last billing runs."""

from __future__ import annotations

import click

from containerstacks_billing.cli.arguments import WholeNumber, json_option
from containerstacks_billing.cli.main import app, configured

_EXAMPLES = """
\b
Examples:
  containerstacks-billing runs
  containerstacks-billing runs --limit 100 --json | jq '.runs[].amount'
"""


@app.command(epilog=_EXAMPLES)
@click.option("--limit", type=WholeNumber(1, 10_000), metavar="N", default=20, help="How many, newest first.")
@json_option
@click.pass_context
def runs(ctx: click.Context, limit: int, as_json: bool) -> None:
    """List the last billing runs, newest first.

    Amounts are rounded down to the cent; --json has them exactly.
    """
    from containerstacks_billing.cli import render
    from containerstacks_billing.config.target import target
    from containerstacks_billing.database.connection import connect
    from containerstacks_billing.money import floor_to_cent
    from containerstacks_billing.schema.diagnose import diagnosed
    from containerstacks_billing.status.read import recent_runs
    from containerstacks_billing.text import hour_digits

    settings = configured(ctx).settings
    conninfo = target(settings).conninfo
    with diagnosed(conninfo), connect(conninfo, purpose="reading") as connection:
        found = recent_runs(connection, limit)
    if as_json:
        from containerstacks_billing.status.schemas import RunList

        render.emit_json(RunList.model_validate({"runs": found}))
        return
    if not found:
        render.stdout().print("No run yet. Look first: containerstacks-billing run --dry-run")
        return
    headings = ("Run", "As of (UTC)", "By", "Outcome", "Instances", "Hours", f"Amount {settings.currency}")
    rows = [
        (
            one.run_id,
            f"{one.as_of:%m-%d %H:%M:%S}",
            one.trigger,
            one.outcome or "under way",
            f"{one.instances_billed:,}",
            hour_digits(one.hours),
            f"{floor_to_cent(one.amount):,}",
        )
        for one in found
    ]
    console = render.stdout()
    console.print(render.table(headings, rows, right=("Run", *headings[4:])))
    for one in found:
        if one.error_message:
            console.print(f"run {one.run_id}: {render.printable(one.error_message)}", soft_wrap=True)
