"""`months`: what stands in each month of charges; closing, proof and export of months."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from containerstacks_billing.cli.arguments import json_option
from containerstacks_billing.cli.confirm import require_confirmation
from containerstacks_billing.cli.main import app, configured
from containerstacks_billing.errors import EXIT_FAILED

if TYPE_CHECKING:
    from containerstacks_billing.months.model import FrozenSums, MonthStatus

_EXAMPLES = """
\b
Examples:
  containerstacks-billing months list
  containerstacks-billing months close 2026-10 --dry-run
  containerstacks-billing months verify
"""
_LIST_EXAMPLES = """
\b
Examples:
  containerstacks-billing months list
  containerstacks-billing months list --json | jq '.months[].state'
"""
_CLOSE_EXAMPLES = """
\b
Examples:
  containerstacks-billing months close 2026-10 --dry-run
  containerstacks-billing months close 2026-10 --yes --json | jq .sha256
"""
_VERIFY_EXAMPLES = """
\b
Examples:
  containerstacks-billing months verify
  containerstacks-billing months verify --month 2026-10 --csv hours.csv
"""
_EXPORT_EXAMPLES = """
\b
Examples:
  containerstacks-billing months export 2026-10 --csv hours-2026-10.csv
"""
_SHOW_EXAMPLES = """
\b
Examples:
  containerstacks-billing months show 2026-10
  containerstacks-billing months show 2026-10 --json | jq '.organizations[]'
"""
_FILE = click.Path(path_type=Path, dir_okay=False)
_KIB = 1024
_RIGHT = ("Rows", "Size", "Hours", "Amount", "Past due")


@app.group("months", epilog=_EXAMPLES)
def verbs() -> None:
    """List, close, prove and export months of charges."""


@verbs.command("list", epilog=_LIST_EXAMPLES)
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


@verbs.command(epilog=_CLOSE_EXAMPLES)
@click.argument("month", metavar="MONTH", help="Like 2026-10, in UTC.")
@click.option("--dry-run", is_flag=True, help="Show what would be frozen; change nothing.")
@click.option("--by", metavar="NAME", help="Who. [default: user@host]")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@click.pass_context
def close(ctx: click.Context, month: str, dry_run: bool, by: str | None, yes: bool, as_json: bool) -> None:
    """Freeze the totals of a month, chained to the month before.

    Older months come first. Everything of it has to be charged or decided, and all the books are verified
    before. What is paid later for its hours counts in the month in which it is paid. Charges stay as they
    are. Closing may be killed anywhere: given again, it goes on.
    """
    from containerstacks_billing.cli import render
    from containerstacks_billing.config.target import target
    from containerstacks_billing.explain.month import month_named
    from containerstacks_billing.identity import operator_name
    from containerstacks_billing.months import close as closing
    from containerstacks_billing.months.schemas import ClosedMonthDocument

    named = month_named(month)
    conninfo = target(configured(ctx).settings).conninfo
    known = None
    if dry_run:
        closing.require_closable(conninfo, named)
        sums = closing.preview(conninfo, named)
    else:
        require_confirmation(f"Close {named.name} for good?", "closing a month", yes=yes, as_json=as_json)
        known = closing.close(conninfo, named, (by or operator_name())[:255])
        sums = closing.frozen_sums(conninfo, named.name)
    if as_json:
        render.emit_json(ClosedMonthDocument.of(named.name, sums, known))
        return
    console = render.stdout()
    console.print(_frozen(sums), soft_wrap=True)
    if known is None:
        console.print("Nothing was changed.")
    else:
        console.print(f"{named.name} is closed: sha256 {known.sha256}", soft_wrap=True)


def _frozen(sums: FrozenSums) -> str:
    from containerstacks_billing.money import plain
    from containerstacks_billing.text import counted, hours

    late = f", {plain(sums.late_amount)} of months closed before" if sums.late_amount else ""
    return (
        f"{counted(sums.organizations, 'organization')}, {counted(sums.charges, 'charge')}, {hours(sums.hours)}:"
        f" {plain(sums.amount)}{late}; debits {plain(sums.debits)}, credits {plain(sums.credits)}."
    )


@verbs.command(epilog=_VERIFY_EXAMPLES)
@click.option("--month", metavar="MONTH", help="The month of the file.")
@click.option("--csv", "csv_file", type=_FILE, metavar="FILE", help="Prove this export of the month instead.")
@json_option
@click.pass_context
def verify(ctx: click.Context, month: str | None, csv_file: Path | None, as_json: bool) -> None:
    """Prove that closed months are what was frozen.

    Totals and hashes are derived from the charges again, and the chain of hashes is followed. Keep the last
    hash elsewhere too: it proves all months before it. Exits 1 where anything is different.
    """
    from containerstacks_billing.cli import render
    from containerstacks_billing.config.target import target
    from containerstacks_billing.explain.month import month_named
    from containerstacks_billing.months.proof import verify_export, verify_months
    from containerstacks_billing.months.schemas import MonthDifferenceDocument, MonthsProofDocument

    if (month is None) != (csv_file is None):
        raise click.UsageError("--month and --csv belong together.")
    conninfo = target(configured(ctx).settings).conninfo
    last = None
    if month is not None and csv_file is not None:
        names = [month_named(month).name]
        found = verify_export(conninfo, names[0], csv_file)
    else:
        closed, found = verify_months(conninfo)
        names = [one.month for one in closed]
        last = closed[-1].sha256 if closed else None
    if as_json:
        discrepancies = [MonthDifferenceDocument.model_validate(one) for one in found]
        render.emit_json(
            MonthsProofDocument(ok=not found, months=names, sha256=last, discrepancies=discrepancies)
        )
    else:
        console = render.stdout()
        for one in found:
            console.print(
                render.printable(f"{one.month}: {one.organization_id or 'the month'}: {one.message}."),
                soft_wrap=True,
            )
        if not found:
            console.print(
                "As frozen: " + (", ".join(names) or "no month is closed yet") + ".", soft_wrap=True
            )
        if last:
            console.print(f"The last hash: {last}", soft_wrap=True)
    if found:
        ctx.exit(EXIT_FAILED)


@verbs.command(epilog=_EXPORT_EXAMPLES)
@click.argument("month", metavar="MONTH", help="A closed month, like 2026-10.")
@click.option("--csv", "csv_file", type=_FILE, metavar="FILE", required=True, help="The file to write.")
@click.pass_context
def export(ctx: click.Context, month: str, csv_file: Path) -> None:
    """Write the charged hours of a closed month to a file.

    One line for each charge; `months verify --month MONTH --csv FILE` proves the file against what was frozen.
    """
    from containerstacks_billing.cli import render
    from containerstacks_billing.config.target import target
    from containerstacks_billing.explain.month import month_named
    from containerstacks_billing.months.proof import export as write
    from containerstacks_billing.text import counted

    named = month_named(month)
    lines = write(target(configured(ctx).settings).conninfo, named.name, csv_file)
    render.stderr().print(
        render.printable(f"{counted(lines, 'charge')} of {named.name} in {csv_file}."), soft_wrap=True
    )


@verbs.command(epilog=_SHOW_EXAMPLES)
@click.argument("month", metavar="MONTH", help="A closed month, like 2026-10.")
@json_option
@click.pass_context
def show(ctx: click.Context, month: str, as_json: bool) -> None:
    """Show what is frozen of a closed month, by organization."""
    from containerstacks_billing.cli import render
    from containerstacks_billing.config.target import target
    from containerstacks_billing.explain.month import month_named
    from containerstacks_billing.explain.snapshot import snapshot
    from containerstacks_billing.months.proof import closed_month
    from containerstacks_billing.months.read import frozen_totals
    from containerstacks_billing.months.schemas import FrozenMonthDocument, FrozenTotalDocument
    from containerstacks_billing.text import hour_digits, minute

    named = month_named(month)
    with snapshot(target(configured(ctx).settings).conninfo) as connection:
        known = closed_month(connection, named.name)
        totals = [FrozenTotalDocument.model_validate(one) for one in frozen_totals(connection, named.name)]
    if as_json:
        facts = {
            name: getattr(known, name) for name in FrozenMonthDocument.model_fields if hasattr(known, name)
        }
        render.emit_json(FrozenMonthDocument.model_validate({**facts, "organizations": totals}))
        return
    console = render.stdout()
    right = ("Charges", "Hours", "Amount", "Late", "Debits", "Credits", "Carried")
    rows = [
        (
            render.shortened(one.organization or str(one.organization_id)),
            f"{one.charges:,}",
            hour_digits(one.hours),
            one.amount,
            one.late_amount if one.late_charges else None,
            one.debits,
            one.credits or None,
            one.carry_out,
        )
        for one in totals
    ]
    console.print(render.table(("Organization", *right), rows, right=right))
    if known.closed_at is not None:
        console.print(
            f"Closed by {render.printable(known.closed_by)} at {minute(known.closed_at)} UTC.", soft_wrap=True
        )
    console.print(f"sha256 {known.sha256}", soft_wrap=True)


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
        for sentence in [*one.waiting, *([one.unverified] if one.unverified else [])]:
            console.print(render.printable(f"{one.sums.name}: {sentence}."), soft_wrap=True)


def _size(size: int) -> str:
    """Return a number of bytes in the largest unit of which there is one: `358.2 MiB`."""
    amount, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if amount < _KIB:
            break
        amount, unit = amount / _KIB, larger
    return f"{amount:,.1f} {unit}" if unit != "B" else f"{size} B"
