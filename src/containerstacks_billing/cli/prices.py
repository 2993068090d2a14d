"""`prices`: list, set, announce and correct the prices of plans."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from containerstacks_billing.cli.arguments import AMOUNT, json_option
from containerstacks_billing.cli.confirm import require_confirmation
from containerstacks_billing.cli.main import app, configured
from containerstacks_billing.identity import operator_name

if TYPE_CHECKING:
    from datetime import datetime
    from decimal import Decimal

    from containerstacks_billing.database.connection import Connection
    from containerstacks_billing.pricing.model import Plan, Price, PriceVersion
    from containerstacks_billing.settings import Settings

_EXAMPLES = """
\b
Examples:
  containerstacks-billing prices list
  containerstacks-billing prices set vc2-1c-1gb --base 5.00 --markup 1.00
"""


@app.group("prices", epilog=_EXAMPLES)
def verbs() -> None:
    """Show, announce, set and correct the prices of plans."""


_LIST_EXAMPLES = """
\b
Examples:
  containerstacks-billing prices list
  containerstacks-billing prices list vc2-1c-1gb
  containerstacks-billing prices list --json | jq '.plans[].versions[-1].base'
"""
_SET_EXAMPLES = """
\b
Examples, now, later, and for hours that were charged already:
  containerstacks-billing prices set vc2-1c-1gb --base 5.00 --markup 1.00
  containerstacks-billing prices set vc2-1c-1gb --base 6.00 --markup 1.00 \\
      --from 2027-01-01T00:00Z --reason "announced on 1 December"
  containerstacks-billing prices set vc2-1c-1gb --base 6.00 --markup 1.00 \\
      --from 2027-01-01T00:00Z --dry-run
  containerstacks-billing prices set "Small VPS" --base 4.50 --markup 1.00 \\
      --from 2026-11-01T00:00Z --correct --dry-run

\b
A correction reaches from --from to the next recorded price. Charges that were
billed get adjustments, one ledger entry per wallet; past-due hours are rated
anew; no balance falls below zero. Given again, it posts what is missing.
"""


@verbs.command("list", epilog=_LIST_EXAMPLES)
@click.argument("plan", required=False, metavar="[PLAN]", help="Its id, provider_plan_id or exact name.")
@json_option
@click.pass_context
def show(ctx: click.Context, plan: str | None, as_json: bool) -> None:
    """List the prices of every plan, or of one, and hourly rates."""
    from containerstacks_billing.cli import prices_report as price_tables
    from containerstacks_billing.cli import render
    from containerstacks_billing.config.target import target
    from containerstacks_billing.database.connection import connect
    from containerstacks_billing.pricing import versions as prices
    from containerstacks_billing.schema.diagnose import diagnosed

    settings = configured(ctx).settings
    conninfo = target(settings).conninfo
    with diagnosed(conninfo), connect(conninfo, purpose="reading") as connection:
        plans = [one_plan(connection, plan)] if plan is not None else prices.find_plans(connection, None)
        versions = prices.price_versions(connection, plans, settings.hours_per_month)
    if as_json:
        from containerstacks_billing.pricing.schemas import Prices

        render.emit_json(Prices.of(settings.hours_per_month, plans, versions))
    else:
        price_tables.show_plans(plans, versions, settings.hours_per_month)


@verbs.command("set", epilog=_SET_EXAMPLES)
@click.argument("plan", metavar="PLAN", help="Its id, provider_plan_id or exact name.")
@click.option("--base", type=AMOUNT, metavar="AMOUNT", required=True, help="The monthly base price.")
@click.option(
    "--markup", type=AMOUNT, metavar="AMOUNT", required=True, help="What is put on top; negative: a discount."
)
@click.option(
    "--from", "begin", metavar="INSTANT", help="ISO 8601, UTC unless it says otherwise. [default: now]"
)
@click.option("--reason", metavar="TEXT", help="Why; kept with the price.")
@click.option(
    "--correct", is_flag=True, help="Let --from lie in the past, and adjust what was charged since."
)
@click.option("--dry-run", is_flag=True, help="Only show what it would do to each customer.")
@click.option("--yes", is_flag=True, help="Post a correction without asking.")
@json_option
@click.pass_context
def set_price(
    ctx: click.Context,
    plan: str,
    base: Decimal,
    markup: Decimal,
    begin: str | None,
    reason: str | None,
    correct: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Set, announce or correct the price of a plan.

    It holds from now on, from a later instant, or in the place of a past one.
    Each hour is charged at the price in force at its start, so hours that were charged keep theirs unless
    --correct is given.
    """
    from containerstacks_billing.config.target import target
    from containerstacks_billing.database.connection import connect
    from containerstacks_billing.pricing import versions as prices
    from containerstacks_billing.schema.diagnose import diagnosed

    at = _instant(begin)
    _refuse_contradictions(begin, correct=correct, dry_run=dry_run, yes=yes)
    if reason is not None and (len(reason) > 500 or "\0" in reason):
        raise click.BadParameter("a reason has at most 500 characters.", param_hint="--reason")
    settings = configured(ctx).settings
    conninfo = target(settings).conninfo
    with diagnosed(conninfo), connect(conninfo, purpose="billing") as connection:
        chosen = one_plan(connection, plan)
        price = checked_price(base, markup, prices.price_columns(connection))
        if correct and at is not None:
            _refuse_future(at, prices.database_clock(connection))
            _correct(
                connection,
                conninfo,
                settings,
                chosen,
                price,
                at,
                reason,
                dry_run=dry_run,
                yes=yes,
                as_json=as_json,
            )
            return
        if at is not None and at <= prices.database_clock(connection):
            raise click.BadParameter(
                f"{begin} has passed. Hours since then were charged already: --correct --dry-run shows what would be"
                " adjusted, --correct adjusts it.",
                param_hint="--from",
            )
        if dry_run:
            _foretell(connection, settings, chosen, price, at, as_json=as_json)
            return
        version = prices.set_price(connection, chosen, price, at, by=operator_name(), reason=reason)
        shown = prices.price_versions(connection, [chosen], settings.hours_per_month)[chosen.plan_id]
    _show_set(chosen, version, shown, as_json=as_json)


def _refuse_contradictions(begin: str | None, *, correct: bool, dry_run: bool, yes: bool) -> None:
    if correct and begin is None:
        raise click.BadParameter(
            "a correction needs the instant from which it corrects.", param_hint="--from"
        )
    if yes and not correct:
        raise click.BadParameter("it belongs to --correct.", param_hint="--yes")
    if dry_run and yes:
        raise click.BadParameter("--dry-run and --yes exclude each other.")


def _foretell(
    connection: Connection,
    settings: Settings,
    plan: Plan,
    price: Price,
    at: datetime | None,
    *,
    as_json: bool,
) -> None:
    """Show what a price would do to each customer, from an instant on or from now; nothing is changed."""
    from containerstacks_billing.charging.run import terms_of
    from containerstacks_billing.cli import render
    from containerstacks_billing.cli.what_if_report import show_what_if
    from containerstacks_billing.pricing.what_if import Supposed, what_if_priced
    from containerstacks_billing.pricing.what_if_schemas import WhatIfDocument

    found = what_if_priced(connection, terms_of(settings), Supposed(plan, price), at)
    if as_json:
        render.emit_json(WhatIfDocument.of(found))
    else:
        show_what_if(render.stdout(), found)
        render.stdout().print("\nNothing was changed.")


def _refuse_future(at: datetime, now: datetime) -> None:
    if at > now:
        raise click.BadParameter("it lies in the future: leave --correct out.", param_hint="--from")


def one_plan(connection: Connection, text: str) -> Plan:
    """Return the plan that is meant; a usage error when there is none, or more than one."""
    from containerstacks_billing.pricing import versions as prices

    found = [] if "\0" in text else prices.find_plans(connection, text)
    if not found:
        raise click.BadParameter(
            f"no plan has the id, provider_plan_id or name {text!r}; `prices list` shows them.",
            param_hint="PLAN",
        )
    if len(found) > 1:
        ids = ", ".join(str(one.plan_id) for one in found[:5])
        raise click.BadParameter(
            f"{text!r} names {len(found)} plans; give the id of one: {ids}.", param_hint="PLAN"
        )
    return found[0]


def checked_price(base: Decimal, markup: Decimal, columns: Any) -> Price:
    """Return a price that `vps_plans` can hold; a usage error where it cannot."""
    from containerstacks_billing.pricing.model import Price, price_problem

    price = Price(base, markup)
    if problem := price_problem(price, columns):
        raise click.BadParameter(problem)
    return price


def _instant(text: str | None) -> datetime | None:
    """Read an ISO instant; one without an offset is UTC, and that is said."""
    from datetime import UTC, datetime

    from containerstacks_billing.cli import render

    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
        if at.tzinfo is None:
            at = at.replace(tzinfo=UTC)
            render.stderr().print(f"{at:%Y-%m-%d %H:%M:%S} has no offset and is taken as UTC.")
        return at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{text!r} is no instant; write it like 2027-01-01T00:00Z.", param_hint="--from"
        ) from None


def _show_set(
    plan: Plan, version: PriceVersion | None, versions: list[PriceVersion], *, as_json: bool
) -> None:
    from containerstacks_billing.cli import prices_report as price_tables
    from containerstacks_billing.cli import render

    # Read again with the rates that the settings lead to.
    shown = next((one for one in versions if version and one.version_id == version.version_id), None)
    if as_json:
        from containerstacks_billing.pricing.schemas import PriceSet

        done = {"plan": plan, "changed": shown is not None, "version": shown}
        render.emit_json(PriceSet.model_validate(done))
    elif shown is None:
        render.stdout().print(f"Nothing to do: this is the price of {plan.title} already.")
    else:
        price_tables.show_version(plan, shown)


def _correct(
    connection: Connection,
    conninfo: str,
    settings: Settings,
    plan: Plan,
    price: Price,
    at: datetime,
    reason: str | None,
    *,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Show what a correction changes; post it unless it is only to be shown."""
    from containerstacks_billing.cli import prices_report as price_tables
    from containerstacks_billing.cli import render
    from containerstacks_billing.pricing import corrections
    from containerstacks_billing.pricing.schemas import Corrected

    correction = corrections.draft(connection, plan, price, at)
    if correction is None:
        if as_json:
            render.emit_json(Corrected(correction=None, posted=False))
        else:
            render.stdout().print(f"Nothing to correct: this was the price of {plan.title} then.")
        return
    differences = list(corrections.preview(connection, correction, settings.currency))
    if not as_json:
        price_tables.show_correction(correction, differences, settings.currency)
    if dry_run:
        if as_json:
            render.emit_json(Corrected.of(correction, differences, None))
        else:
            render.stdout().print("\nNothing was changed.")
        return
    question = "Post what is missing?" if correction.correction_id else "Post this?"
    if not any(one.instances or one.past_due_instances or one.unposted_charges for one in differences):
        question = "Record this price?"
    require_confirmation(f"\n{question}", "posting a correction", yes=yes, as_json=as_json)
    adjustments: list[int] = []
    correction, short = corrections.correct(
        conninfo,
        correction,
        settings.currency,
        holder=f"prices on {operator_name()}",
        by=operator_name(),
        reason=reason,
        posted=adjustments.append,
    )
    if as_json:
        render.emit_json(Corrected.of(correction, differences, short, sum(adjustments)))
    else:
        price_tables.show_posted(correction, sum(adjustments), short)
