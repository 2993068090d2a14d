"""`leaks`: what exists and is not billed, and what is billed and does not exist."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import click

from containerstacks_billing.cli.arguments import AMOUNT, json_option, organization_option
from containerstacks_billing.cli.main import app, configured
from containerstacks_billing.errors import EXIT_FAILED

if TYPE_CHECKING:
    from containerstacks_billing.explain.leaks import Leaks

_EXAMPLES = """
\b
Examples:
  containerstacks-billing leaks                       money a month, by reason
  containerstacks-billing leaks --inventory nodes.csv with the provider's list
  containerstacks-billing leaks --tolerance 20        exit 1 above 20 a month
  containerstacks-billing leaks --json | jq '.leaks[]'
"""
_SHOWN = 50


@app.command(epilog=_EXAMPLES)
@click.option(
    "--inventory",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.csv",
    help="Compare with the provider's list: a column id, and label, plan, backups.",
)
@click.option("--tolerance", type=AMOUNT, metavar="AMOUNT", help="A month; exits 1 above it (default 0).")
@organization_option("Only this organization.")
@json_option
@click.pass_context
def leaks(
    ctx: click.Context,
    inventory: Path | None,
    tolerance: Decimal | None,
    organization: UUID | None,
    as_json: bool,
) -> None:
    """Find what is not billed, with what it costs a month.

    Statuses that are not billable, instances that were never billed, no price, no wallet, quarantined or held
    or past due for a day, backups and volumes without a price; beside the provider's list also servers
    that have no row, and rows that are charged and have no server. It acts on none of them; the sums are
    kept for the page and the metrics where the role may write. Exits 1 above the tolerance, and without one
    when there is any leak.
    """
    from containerstacks_billing.charging.run import terms_of
    from containerstacks_billing.cli import render
    from containerstacks_billing.cli.arguments import require_organization
    from containerstacks_billing.config.target import target
    from containerstacks_billing.explain.inventory import read_inventory
    from containerstacks_billing.explain.leak_reports import record_leaks
    from containerstacks_billing.explain.leak_schemas import LeaksDocument
    from containerstacks_billing.explain.leaks import find_leaks
    from containerstacks_billing.explain.snapshot import snapshot
    from containerstacks_billing.identity import operator_name

    if tolerance is not None and tolerance < 0:
        raise click.BadParameter("it is an amount a month of 0 or more.", param_hint="--tolerance")
    if inventory is not None and organization is not None:
        raise click.UsageError("--inventory is of the whole fleet; leave out --organization.")
    settings = configured(ctx).settings
    conninfo = target(settings).conninfo
    listed = read_inventory(inventory) if inventory is not None else None
    with snapshot(conninfo) as connection:
        if organization is not None:
            require_organization(connection, organization)
        found = find_leaks(connection, terms_of(settings), listed, organization)
    if organization is None:
        record_leaks(conninfo, found, operator_name())
    exceeds = found.exceeds(tolerance)
    if as_json:
        render.emit_json(LeaksDocument.of(found, exceeds=exceeds))
    else:
        _show(found)
    if exceeds:
        ctx.exit(EXIT_FAILED)


def _show(found: Leaks) -> None:
    from containerstacks_billing.cli import render
    from containerstacks_billing.money import plain
    from containerstacks_billing.text import minute

    console = render.stdout()
    for remark in found.remarks:
        render.stderr().print(render.printable(remark), style="yellow", soft_wrap=True)
    if not found.leaks:
        console.print("Nothing leaks: what exists is billed, as far as these tables know.")
        return
    rows = [
        (str(one.reason), f"{one.leaks:,}", plain(one.monthly), f"{one.unknown:,}" if one.unknown else None)
        for one in found.by_reason
    ]
    numbers = ("Leaks", f"{found.currency} a month", "No price")
    console.print(render.table(("Reason", *numbers), rows, right=numbers))
    console.print()
    for one in found.leaks[:_SHOWN]:
        amount = f"{plain(one.monthly)} a month" if one.monthly is not None else "unknown"
        name = one.label or one.provider_instance_id or str(one.subject_id)
        console.print(
            render.printable(f"{name}, {one.organization or 'no organization'}: {amount}"), soft_wrap=True
        )
        console.print(render.indented(f"{one.reason}: {one.detail}", 2))
        if one.subject_id is not None:
            console.print(render.indented(one.subject_id, 2))
    if len(found.leaks) > _SHOWN:
        console.print(f"… and {len(found.leaks) - _SHOWN:,} more: leaks --json has all")
    console.print()
    console.print(
        f"Not billed: {plain(found.unbilled.monthly)} {found.currency} a month; billed for nothing:"
        f" {plain(found.billed_for_nothing.monthly)}. As of {minute(found.read_at)} UTC.",
        soft_wrap=True,
    )
