"""`audit`: what the host's own program took from each customer, beside what was due."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import click

from containerstacks_billing.cli.arguments import INSTANT, json_option, organization_option
from containerstacks_billing.cli.main import app, configured

if TYPE_CHECKING:
    from containerstacks_billing.explain.audit import AuditOrder, AuditRow

_EXAMPLES = """
\b
Examples:
  containerstacks-billing audit                     by customer
  containerstacks-billing audit --csv overcharged.csv
  containerstacks-billing audit --since 2026-01-01 --json
  containerstacks-billing audit post --file overcharged.csv --reason agreed
"""
POST_EXAMPLES = """
\b
Examples:
  containerstacks-billing audit post --file overcharged.csv \\
      --reason "agreed with the customers" --dry-run
  containerstacks-billing audit post --file overcharged.csv --reason x --yes

\b
The file is one of `audit --csv`. Lines may be deleted and `proposed` may be
lowered; a raised one is not posted. Given again, it posts what is missing.
"""
_SHOWN = 50
_RIGHT = ("Due", "Ledger", "Wallet moved", "Doubled", "Creation", "Rounding", "Unknown", "Net", "Proposed")


@app.group(epilog=_EXAMPLES, invoke_without_command=True)
@click.option("--since", type=INSTANT, metavar="T", help="Only what was debited from then on; default all.")
@organization_option("Only this organization.")
@click.option(
    "--csv",
    "csv_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write every customer to a file, for review.",
)
@json_option
@click.pass_context
def audit(
    ctx: click.Context,
    since: datetime | None,
    organization: UUID | None,
    csv_file: Path | None,
    as_json: bool,
) -> None:
    """Show what the host's own billing took, by customer.

    Hours that its rows cover at its own rates are due. Its debits beyond that were doubled, for the hour of
    creation, or rounding; the net counts what the wallet really lost. A positive net is proposed as a
    credit. What is not known any more is said to be unknown, and nothing is proposed for it. Reads one
    snapshot and changes nothing.
    """
    if ctx.invoked_subcommand is not None:
        if since or organization or csv_file:
            raise click.UsageError(f"`audit {ctx.invoked_subcommand}` takes its options behind its name.")
        return
    from containerstacks_billing.cli import render
    from containerstacks_billing.cli.arguments import require_organization
    from containerstacks_billing.config.target import target
    from containerstacks_billing.database.statements import one_row
    from containerstacks_billing.explain.audit import AuditOrder, audit_rows
    from containerstacks_billing.explain.audit_schemas import audit_csv, audit_document
    from containerstacks_billing.explain.snapshot import snapshot
    from containerstacks_billing.explain.statement_files import write_file

    settings = configured(ctx).settings
    order = AuditOrder(since, organization, settings.currency)
    with snapshot(target(settings).conninfo) as connection:
        if organization is not None:
            require_organization(connection, organization)
        as_of: datetime = one_row(connection, "database_clock")[0]
        rows = audit_rows(connection, order)
    if csv_file is not None:
        write_file(csv_file, audit_csv(rows, order, as_of))
    if as_json:
        render.emit_json(audit_document(rows, order, as_of))
    elif csv_file is None or not rows:
        _show(rows, order, as_of)
    else:
        _show_sums(rows, order, as_of)


def _show(rows: list[AuditRow], order: AuditOrder, as_of: datetime) -> None:
    from containerstacks_billing.cli import render

    console = render.stdout()
    if not rows:
        console.print("The host's own billing debited nothing that is known here.")
        return
    ordered = sorted(rows, key=lambda one: (-one.proposed, one.net is None, one.net or 0))
    listed = [
        (
            render.shortened(one.organization or str(one.organization_id)),
            *(render.printable(amount) for amount in _amounts(one)),
        )
        for one in ordered[:_SHOWN]
    ]
    console.print(render.table(("Customer", *_RIGHT), listed, right=_RIGHT))
    if len(rows) > _SHOWN:
        console.print(f"… and {len(rows) - _SHOWN:,} more: audit --json has all")
    for one in [one for one in ordered if one.note][:_SHOWN]:
        console.print(
            render.printable(f"{one.organization or one.organization_id}: {one.note}."), soft_wrap=True
        )
    console.print()
    _show_sums(rows, order, as_of)


def _amounts(one: AuditRow) -> Iterator[object]:
    yield from (one.due, one.ledger, one.wallet_moved, one.doubled, one.creation_hours, one.rounding)
    yield from (one.unknown, one.net, one.proposed)


def _show_sums(rows: list[AuditRow], order: AuditOrder, as_of: datetime) -> None:
    from containerstacks_billing.cli import render
    from containerstacks_billing.explain.audit import sums_of
    from containerstacks_billing.money import plain
    from containerstacks_billing.text import counted, minute

    sums = sums_of(rows)
    since = f" since {minute(order.since)} UTC" if order.since else ""
    console = render.stdout()
    console.print(
        f"{counted(sums.organizations, 'customer')}: due {plain(sums.due)}, ledger {plain(sums.ledger)}, wallets moved"
        f" {plain(sums.wallet_moved)} {order.currency.upper()}{since}. Doubled {plain(sums.doubled)}, creation hours"
        f" {plain(sums.creation_hours)}, rounding {plain(sums.rounding)}, unknown {plain(sums.unknown)}.",
        soft_wrap=True,
    )
    unknown = counted(sums.unknown_organizations, "customer")
    console.print(
        f"Proposed to give back: {plain(sums.proposed)} {order.currency.upper()}; credited before:"
        f" {plain(sums.credited)}; net unknown of {unknown}. As of {minute(as_of)} UTC.",
        soft_wrap=True,
    )
