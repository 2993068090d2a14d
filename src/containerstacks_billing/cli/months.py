"""`months`: what stands in each month of charges, and whether it is complete."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from containerstacks_billing.cli.arguments import json_option
from containerstacks_billing.cli.main import app, configured

if TYPE_CHECKING:
    from containerstacks_billing.months.model import MonthStatus

_EXAMPLES = """
\b
Examples:
  containerstacks-billing months list
  containerstacks-billing months list --json | jq '.months[].state'
"""
_KIB = 1024
_RIGHT = ("Rows", "Size", "Hours", "Amount", "Past due")


@app.group("months", epilog=_EXAMPLES)
def verbs() -> None:
    """Show the months of charges, and what each waits for."""


@verbs.command("list", epilog=_EXAMPLES)
@json_option
@click.pass_context
def list_(ctx: click.Context, as_json: bool) -> None:
    """List every month since the first charge: state, rows, sums.

    An hour belongs to the month in which it starts, in UTC. A month is closable when it has ended,
    everything of it is charged or decided, and verify found nothing since. Reads one snapshot.
    """
    from containerstacks_billing.cli import render
    from containerstacks_billing.config.target import target
    from containerstacks_billing.explain.snapshot import snapshot
    from containerstacks_billing.months.read import list_months
    from containerstacks_billing.months.schemas import MonthsDocument

    with snapshot(target(configured(ctx).settings).conninfo) as connection:
        as_of, months = list_months(connection)
    if as_json:
        render.emit_json(MonthsDocument.of(as_of, months))
    else:
        _show(months)


def _show(months: list[MonthStatus]) -> None:
    from containerstacks_billing.cli import render
    from containerstacks_billing.money import plain
    from containerstacks_billing.text import hour_digits

    console = render.stdout()
    if not months:
        console.print("Nothing was charged yet; there are no months.")
        return
    rows = [
        (
            one.sums.name,
            str(one.state),
            f"{one.sums.rows:,}",
            _size(one.sums.bytes),
            hour_digits(one.sums.hours),
            plain(one.sums.amount),
            plain(one.sums.past_due_amount) if one.sums.past_due_rows else None,
        )
        for one in months
    ]
    console.print(render.table(("Month", "State", *_RIGHT), rows, right=_RIGHT))
    for one in months:
        for sentence in one.waiting:
            console.print(render.printable(f"{one.sums.name}: {sentence}."), soft_wrap=True)


def _size(size: int) -> str:
    """Return a number of bytes in the largest unit of which there is one: `358.2 MiB`."""
    amount, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if amount < _KIB:
            break
        amount, unit = amount / _KIB, larger
    return f"{amount:,.1f} {unit}" if unit != "B" else f"{size} B"
