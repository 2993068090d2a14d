"""`reverse`: take back a run, or the hours of a span, with a preview; and undo that."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import click

from containerstacks_billing.cli import orders
from containerstacks_billing.cli.arguments import WholeNumber, require_organization
from containerstacks_billing.cli.main import app, configured
from containerstacks_billing.identity import operator_name

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from containerstacks_billing.adjustments.model import Order
    from containerstacks_billing.database.connection import Connection

_EXAMPLES = """
\b
Examples:
  containerstacks-billing reverse --run 812 --rerate --reason "wrong prices" \\
      --dry-run
  containerstacks-billing reverse --run 812 --waive --reason outage --yes
  containerstacks-billing reverse --from 2026-11-14T03:00Z \\
      --until 2026-11-14T09:00Z --plan vc2-1c-1gb --waive --reason outage
  containerstacks-billing reverse list
  containerstacks-billing reverse undo 3 --reason "it was right after all"

\b
The hours stay charged and are never due again: waived, they cost nothing;
rated again, they cost what the recorded prices come to now.
"""
_NUMBER = WholeNumber(1, 2**31 - 1)


@app.group(epilog=_EXAMPLES, invoke_without_command=True)
@click.option("--run", "run_id", type=_NUMBER, metavar="N", help="The charges of a run.")
@orders.scope_options
@click.option("--waive", is_flag=True, help="The hours cost nothing.")
@click.option("--rerate", is_flag=True, help="The hours cost what recorded prices come to now.")
@orders.decision_options
@click.pass_context
def reverse(
    ctx: click.Context,
    run_id: int | None,
    begin: datetime | None,
    end: datetime | None,
    plan: str | None,
    instance: UUID | None,
    organization: UUID | None,
    file: Path | None,
    waive: bool,
    rerate: bool,
    reason: str | None,
    by: str | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Take back what a run or a span of hours was charged.

    It shows first what each customer gets back. What stands after earlier corrections is given back, and only what was
    charged by billing; past-due hours are cancelled. Given again, it posts what is missing.
    """
    from containerstacks_billing.adjustments.model import Mode, Order, OrderKind

    if ctx.invoked_subcommand is not None:
        if run_id or begin or end or waive or rerate:
            raise click.UsageError(f"`reverse {ctx.invoked_subcommand}` takes its options behind its name.")
        return
    if waive == rerate:
        raise click.UsageError("Say what becomes of the hours: --waive or --rerate.")
    if (run_id is None) == (begin is None and end is None):
        raise click.UsageError("Say which hours: --run N, or --from and --until.")
    orders.checked_span(begin, end)
    why = orders.checked_reason(reason)
    settings = configured(ctx).settings

    def make(connection: Connection) -> Order:
        if organization is not None:
            require_organization(connection, organization)
        scope = orders.scope_of(
            connection,
            run=run_id,
            begin=begin,
            end=end,
            plan=plan,
            instance=instance,
            organization=organization,
            file=file,
        )
        return Order(
            OrderKind.REVERSAL,
            Mode.WAIVE if waive else Mode.RERATE,
            scope,
            (by or operator_name())[:255],
            why,
            settings.hours_per_month,
            settings.currency.upper(),
        )

    orders.carry_out(ctx, make, dry_run=dry_run, yes=yes, as_json=as_json)


orders.add_verbs(reverse, "reversal")
