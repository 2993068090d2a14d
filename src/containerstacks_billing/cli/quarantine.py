"""`quarantine`: instances that are quarantined or held, with reason and remedy."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

import click

from containerstacks_billing.cli.arguments import WholeNumber, json_option
from containerstacks_billing.cli.main import app, configured

if TYPE_CHECKING:
    from containerstacks_billing.charging.quarantine import QuarantineEntry

_EXAMPLES = """
\b
Examples:
  containerstacks-billing quarantine
  containerstacks-billing quarantine --json | jq -r '.instances[].detail'
  containerstacks-billing release --all --charge --dry-run   for the held ones
"""


@app.command(epilog=_EXAMPLES)
@click.option("--limit", type=WholeNumber(1, 100_000), metavar="N", default=200, help="Show at most so many.")
@json_option
@click.pass_context
def quarantine(ctx: click.Context, limit: int, as_json: bool) -> None:
    """List quarantined and held instances, and what to do.

    Every run looks at them again; what was repaired is charged and leaves the list.
    """
    from containerstacks_billing.charging.quarantine import quarantine_entries
    from containerstacks_billing.cli import render
    from containerstacks_billing.config.target import target
    from containerstacks_billing.database.connection import connect
    from containerstacks_billing.schema.diagnose import diagnosed

    conninfo = target(configured(ctx).settings).conninfo
    with diagnosed(conninfo), connect(conninfo, purpose="reading") as connection:
        found = quarantine_entries(connection, limit + 1)
    shown = found[:limit]
    if as_json:
        from containerstacks_billing.charging.schemas import Quarantine

        render.emit_json(Quarantine.model_validate({"instances": shown, "more": len(found) > limit}))
        return
    console = render.stdout()
    if not found:
        console.print("Nothing is quarantined or held.")
        return
    for reason, group in groupby(sorted(shown, key=lambda one: one.reason), lambda one: one.reason):
        console.print(reason, style="bold")
        for one in group:
            _show(one)
    if len(found) > limit:
        console.print(f"There are more than {limit}; --limit shows them.")


def _show(one: QuarantineEntry) -> None:
    from containerstacks_billing.cli import render
    from containerstacks_billing.text import hour_digits

    hours = "" if one.due_hours is None else f", {hour_digits(one.due_hours, 4)} hours due"
    whose = one.organization if one.organization is not None else one.organization_id
    console = render.stdout()
    console.print(render.indented(f"{one.instance_id}  {render.printable(one.label or '')[:40]}", 2))
    since = f"{one.first_seen_at:%Y-%m-%d %H:%M}"
    console.print(render.indented(f"{render.printable(whose)[:60]}, since {since}{hours}", 4))
    console.print(render.indented(one.detail, 4))
