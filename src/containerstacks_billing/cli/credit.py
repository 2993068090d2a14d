"""`credit`: give customers back what hours of an outage cost, wholly or by a share; and undo that."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING
from uuid import UUID

import click

from containerstacks_billing.cli import orders
from containerstacks_billing.cli.arguments import AMOUNT, WholeNumber, require_organization
from containerstacks_billing.cli.main import app, configured
from containerstacks_billing.identity import operator_name

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from containerstacks_billing.adjustments.model import Cap, Order
    from containerstacks_billing.database.connection import Connection

_EXAMPLES = """
\b
Examples:
  containerstacks-billing credit --from 2026-11-14T21:40Z \\
      --until 2026-11-15T04:10Z --region fra --reason outage --dry-run
  containerstacks-billing credit --from 2026-11-14T21:40Z \\
      --until 2026-11-15T04:10Z --file down.csv --factor 10 \\
      --cap-percent 100 --of 30d --reason "service level" --yes
  containerstacks-billing credit list
  containerstacks-billing credit undo 5 --reason "wrong region"

\b
Hours that the span covers in part count with that part. An hour is credited
once; a later credit leaves it out, and so it does what is not charged yet.
"""
_NUMBER = WholeNumber(1, 2**31 - 1)
_LARGEST_FACTOR = 1000


@app.group(epilog=_EXAMPLES, invoke_without_command=True)
@orders.scope_options
@click.option("--region", metavar="NAME", help="Only in a region, as instances are configured.")
@click.option("--percent", type=AMOUNT, metavar="P", help="How much of the charge. [default: 100]")
@click.option("--factor", type=AMOUNT, metavar="F", help="So many times the charge; may exceed 1.")
@click.option("--cap-percent", type=AMOUNT, metavar="P", help="At most so much of the charges of --of.")
@click.option("--of", "of_days", metavar="SPAN", help="The span of the cap before --until, like 30d.")
@orders.decision_options
@click.pass_context
def credit(
    ctx: click.Context,
    begin: datetime | None,
    end: datetime | None,
    plan: str | None,
    instance: UUID | None,
    organization: UUID | None,
    file: Path | None,
    region: str | None,
    percent: Decimal | None,
    factor: Decimal | None,
    cap_percent: Decimal | None,
    of_days: str | None,
    reason: str | None,
    by: str | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Credit the hours of an outage to those who paid for them.

    It shows first what each customer gets. What an hour stands at after earlier corrections is credited; past-due
    hours become cheaper instead. Given again, it posts what is missing.
    """
    from containerstacks_billing.adjustments.model import Mode, Order, OrderKind

    if ctx.invoked_subcommand is not None:
        if begin or end or percent or factor:
            raise click.UsageError(f"`credit {ctx.invoked_subcommand}` takes its options behind its name.")
        return
    if begin is None or end is None:
        raise click.UsageError("Say which hours: --from and --until.")
    orders.checked_span(begin, end)
    share, cap = _share(percent, factor), _cap(cap_percent, of_days)
    why = orders.checked_reason(reason)
    settings = configured(ctx).settings

    def make(connection: Connection) -> Order:
        if organization is not None:
            require_organization(connection, organization)
        scope = orders.scope_of(
            connection,
            begin=begin,
            end=end,
            plan=plan,
            instance=instance,
            organization=organization,
            file=file,
            region=region,
        )
        return Order(
            OrderKind.CREDIT,
            Mode.CREDIT,
            scope,
            (by or operator_name())[:255],
            why,
            settings.hours_per_month,
            settings.currency.upper(),
            share,
            cap,
        )

    orders.carry_out(ctx, make, dry_run=dry_run, yes=yes, as_json=as_json)


def _share(percent: Decimal | None, factor: Decimal | None) -> Decimal:
    """Return how many times the charge is credited."""
    if percent is not None and factor is not None:
        raise click.UsageError("--percent and --factor exclude each other.")
    if percent is not None:
        if not 0 < percent <= 100:
            raise click.BadParameter(
                "it has to be above 0 and at most 100; --factor credits more than was charged.",
                param_hint="--percent",
            )
        return percent / 100
    if factor is not None and not 0 < factor <= _LARGEST_FACTOR:
        raise click.BadParameter(
            f"it has to be above 0 and at most {_LARGEST_FACTOR}.", param_hint="--factor"
        )
    return Decimal(1) if factor is None else factor


def _cap(percent: Decimal | None, span: str | None) -> Cap | None:
    from datetime import timedelta

    from containerstacks_billing.adjustments.model import Cap

    if (percent is None) != (span is None):
        raise click.UsageError("A cap needs both --cap-percent and --of.")
    if percent is None or span is None:
        return None
    if not 0 < percent <= 1000:
        raise click.BadParameter("it has to be above 0 and at most 1000.", param_hint="--cap-percent")
    number, unit = span[:-1], {"d": 24, "h": 1}.get(span[-1:])
    if unit is None or not number.isdecimal() or not 0 < int(number) * unit <= 24 * 366:
        raise click.BadParameter(
            f"{span!r} is no span of at most 366 days; write it like 30d or 72h.", param_hint="--of"
        )
    return Cap(percent, timedelta(hours=int(number) * unit))


orders.add_verbs(credit, "credit")
