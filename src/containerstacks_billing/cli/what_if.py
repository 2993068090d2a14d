"""`run --dry-run --diff --price`: a dry run compared with a run, under supposed prices."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

import click

from containerstacks_billing.charging.dry_run import Supposition, dry_run
from containerstacks_billing.charging.dry_run_diff import (
    ChargeDifference,
    ChargedInstances,
    charged_by_run,
    difference,
)
from containerstacks_billing.charging.forecast import DryRunResult, Limits
from containerstacks_billing.charging.run import RunOrder
from containerstacks_billing.charging.run_record import database_clock
from containerstacks_billing.charging.schemas import DryRun
from containerstacks_billing.cli import render
from containerstacks_billing.cli.dry_run_report import show
from containerstacks_billing.cli.prices import checked_price, one_plan
from containerstacks_billing.cli.progress import RunDisplay
from containerstacks_billing.cli.run_report import exit_code
from containerstacks_billing.cli.what_if_report import show_charge_difference, show_what_if
from containerstacks_billing.daemon.signals import interruptible
from containerstacks_billing.database.connection import Connection, connect
from containerstacks_billing.pricing.versions import price_columns
from containerstacks_billing.pricing.what_if import Supposed, WhatIf, suppose, what_if_run
from containerstacks_billing.pricing.what_if_schemas import ChargeDifferenceDocument, WhatIfDocument
from containerstacks_billing.records.read import run as run_numbered
from containerstacks_billing.schema.diagnose import diagnosed
from containerstacks_billing.status.read import last_success

_PRICE = re.compile(r"(?P<base>\d{1,20}(?:\.\d{1,20})?)(?P<markup>[+-]\d{1,20}(?:\.\d{1,20})?)?", re.ASCII)


class ComparedDryRun(DryRun):
    """A dry run, what it leads to for each customer, and the instances that a run charged otherwise."""

    what_if: WhatIfDocument
    diff: ChargeDifferenceDocument | None


def compare_and_show(order: RunOrder, run: str, prices: Sequence[str], *, every: bool, as_json: bool) -> int:
    """Make a dry run with supposed prices, compare it with a run, write both, and return the exit code."""
    with diagnosed(order.conninfo), connect(order.conninfo, purpose="billing") as connection:
        supposed = [_supposed(connection, text) for text in prices]
        compared = _run_to_compare(connection, run)
        before = charged_by_run(connection, compared[0], order.organization) if compared else set()
        charged = ChargedInstances()
        found = _dry_run(order, supposed, charged, every=every)
        what_if = what_if_run(connection, order.terms, supposed, order.organization)
        diff = None
        if compared:
            limit = None if every else 1000
            diff = difference(connection, compared, before, charged.ids, order.terms, limit)
    if as_json:
        render.emit_json(_document(found, what_if, diff))
    else:
        console = render.stdout()
        show(console, found, order.terms.currency, every=every)
        console.print()
        show_what_if(console, what_if, every=every)
        console.print()
        if diff is not None:
            show_charge_difference(console, diff, every=every)
        else:
            console.print("No run has completed yet, so there are no instances to compare.")
    return exit_code(found.outcome, None)


def _dry_run(
    order: RunOrder, supposed: Sequence[Supposed], charged: ChargedInstances, *, every: bool
) -> DryRunResult:
    def write_prices(connection: Connection) -> None:
        suppose(connection, supposed, order.terms, order.as_of or database_clock(connection))

    limits = Limits(None, None, None) if every else Limits()
    with (
        interruptible() as asked,
        RunDisplay(render.stderr(), order.terms.currency, asked.stopping, "Adding up") as shown,
    ):
        found = dry_run(
            replace(order, stopping=asked.stopping, progressed=shown.progressed),
            limits,
            Supposition(write_prices if supposed else None, charged),
        )
    if asked.exit_code is not None:
        raise click.exceptions.Exit(asked.exit_code)
    return found


def _document(found: DryRunResult, what_if: WhatIf, diff: ChargeDifference | None) -> ComparedDryRun:
    known = DryRun.model_validate(found).model_dump()
    return ComparedDryRun(
        **known,
        what_if=WhatIfDocument.of(what_if),
        diff=ChargeDifferenceDocument.of(diff) if diff else None,
    )


def _supposed(connection: Connection, text: str) -> Supposed:
    plan, equals, amount = text.rpartition("=")
    match = _PRICE.fullmatch(amount)
    if not equals or not plan or match is None:
        raise click.BadParameter(
            f"{text!r} is no price; write it like small=5.00+1.00 or small=6.00.", param_hint="--price"
        )
    price = checked_price(Decimal(match["base"]), Decimal(match["markup"] or "0"), price_columns(connection))
    return Supposed(one_plan(connection, plan), price)


def _run_to_compare(connection: Connection, run: str) -> tuple[int, datetime] | None:
    """Return number and instant of the run that is compared; None where none has completed."""
    if run == "last":
        last = last_success(connection)
        return (last.run_id, last.as_of) if last else None
    if not run.isascii() or not run.isdigit():
        raise click.BadParameter(f"{run!r} is no number of a run.", param_hint="--diff")
    found = run_numbered(connection, int(run)) if len(run) < 19 else None
    if found is None:
        raise click.BadParameter(f"there is no run {run}; `runs` lists them.", param_hint="--diff")
    return found[0].run_id, found[0].as_of
