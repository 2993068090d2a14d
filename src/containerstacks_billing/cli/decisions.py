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
  containerstacks-billing decisions --json | jq '.decisions[].reason'
"""


@app.command(epilog=_EXAMPLES)
@click.option("--limit", type=WholeNumber(1, 10_000), metavar="N", default=50, help="How many, newest first.")
@organization_option("Only about this organization.")
@json_option
@click.pass_context
def decisions(ctx: click.Context, limit: int, organization: UUID | None, as_json: bool) -> None:
    """List decisions about money: who, what, when and why.

    Held hours that were charged, capped or waived, discrepancies that were accepted or restored, corrected
    prices, held runs that were released, and minimum balances; the newest first.
    """
    from containerstacks_billing.cli import render
    from containerstacks_billing.config.target import target
    from containerstacks_billing.database.connection import connect
    from containerstacks_billing.records.read import decided_lately
    from containerstacks_billing.schema.diagnose import diagnosed

    conninfo = target(configured(ctx).settings).conninfo
    with diagnosed(conninfo), connect(conninfo, purpose="reading") as connection:
        if organization is not None:
            require_organization(connection, organization)
        found = decided_lately(connection, limit, organization)
    if as_json:
        from containerstacks_billing.records.schemas import DecidedLately

        render.emit_json(DecidedLately.model_validate({"decisions": found}))
        return
    console = render.stdout()
    if not found:
        console.print("Nothing was decided yet.")
    for one in found:
        console.print(render.printable(_line(one)), soft_wrap=True)
        for text in (one["subject"], f"because: {one['reason']}" if one["reason"] else None):
            if text:
                console.print(render.indented(text, 2))


def _line(one: dict[str, Any]) -> str:
    """Say when, what, about whom, how much, and who decided it."""
    from containerstacks_billing.money import plain
    from containerstacks_billing.text import minute

    about = [
        str(named)
        for named in (
            one["organization"] or one["organization_id"],
            f"instance {one['instance_id']}" if one["instance_id"] else None,
            f"run {one['run_id']}" if one["run_id"] else None,
            plain(one["amount"]) if one["amount"] is not None else None,
        )
        if named
    ]
    return f"{minute(one['decided_at'])} {one['decision']} by {one['decided_by']}" + (
        f": {', '.join(about)}" if about else ""
    )
