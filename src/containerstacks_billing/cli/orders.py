"""What `reverse` and `credit` share: which hours are meant, the preview, the question, the lists and the undo."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

import click

from containerstacks_billing.cli.arguments import (
    INSTANCE_ID,
    INSTANT,
    WholeNumber,
    json_option,
    organization_option,
)
from containerstacks_billing.cli.main import configured
from containerstacks_billing.errors import EXIT_FAILED
from containerstacks_billing.identity import operator_name

if TYPE_CHECKING:
    from containerstacks_billing.adjustments.model import Order, Scope
    from containerstacks_billing.database.connection import Connection

_Verb = TypeVar("_Verb", bound=Callable[..., object])
LONGEST_REASON = 500
MOST_INSTANCES = 100_000


def scope_options(verb: _Verb) -> _Verb:
    """Add the options that say which hours are meant, and those of every order."""
    for add in reversed(
        (
            click.option(
                "--from", "begin", type=INSTANT, metavar="INSTANT", help="Hours from here, ISO 8601."
            ),
            click.option("--until", "end", type=INSTANT, metavar="INSTANT", help="Hours up to here."),
            click.option("--plan", metavar="PLAN", help="Only of a plan: id, provider_plan_id or name."),
            click.option("--instance", type=INSTANCE_ID, metavar="ID", help="Only of one instance."),
            organization_option("Only of one organization."),
            click.option(
                "--file",
                type=click.Path(exists=True, dir_okay=False, path_type=Path),
                metavar="CSV",
                help="Only of the instances whose ids stand in a file.",
            ),
        )
    ):
        verb = add(verb)
    return verb


def decision_options(verb: _Verb) -> _Verb:
    """Add the options of every verb that decides about money."""
    for add in reversed(
        (
            click.option("--reason", metavar="TEXT", help="Why; it is kept and shown."),
            click.option("--by", metavar="NAME", help="Who. [default: user@host]"),
            click.option("--dry-run", is_flag=True, help="Only show what it would do."),
            click.option("--yes", is_flag=True, help="Do not ask."),
            json_option,
        )
    ):
        verb = add(verb)
    return verb


def checked_reason(reason: str | None) -> str:
    """Return the reason of a decision; a usage error where there is none."""
    text = (reason or "").strip()
    if not text:
        raise click.UsageError("A decision about money needs --reason: it is kept with the books.")
    if len(text) > LONGEST_REASON or "\0" in text:
        raise click.BadParameter(f"a reason has at most {LONGEST_REASON} characters.", param_hint="--reason")
    return text


def checked_span(begin: datetime | None, end: datetime | None) -> None:
    """Refuse half a span, and one that ends before it begins."""
    if (begin is None) != (end is None):
        raise click.UsageError("A span needs both --from and --until.")
    if begin is not None and end is not None and begin >= end:
        raise click.BadParameter(
            f"it has to lie after --from, {begin:%Y-%m-%dT%H:%MZ}.", param_hint="--until"
        )


def scope_of(
    connection: Connection,
    *,
    run: int | None = None,
    begin: datetime | None,
    end: datetime | None,
    plan: str | None,
    instance: UUID | None,
    organization: UUID | None,
    file: Path | None,
    region: str | None = None,
) -> Scope:
    """Return the scope that options name; a usage error where a plan, an organization or an instance is not known."""
    from containerstacks_billing.adjustments.model import Scope
    from containerstacks_billing.adjustments.orders import instances_in
    from containerstacks_billing.cli.prices import one_plan

    if sum(one is not None for one in (instance, file, region)) > 1:
        raise click.UsageError("--instance, --file and --region exclude each other.")
    plan_id = one_plan(connection, plan).plan_id if plan is not None else None
    instances: tuple[UUID, ...] | None = (instance,) if instance is not None else None
    if file is not None:
        instances = instances_of(file)
    if region is not None:
        instances = instances_in(connection, region)
        if not instances:
            raise click.BadParameter(f"no instance is in the region {region!r}.", param_hint="--region")
    return Scope(run, begin, end, plan_id, organization, region, instances=instances)


def instances_of(file: Path) -> tuple[UUID, ...]:
    """Return the ids of instances in a CSV file: its column `instance_id`, `instanceId` or `id`, else its first."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            rows = [row for row in csv.reader(lines) if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise click.BadParameter(f"{file} cannot be read: {error}.", param_hint="--file") from None
    place, first = 0, 1
    heading = [cell.strip() for cell in rows[0]] if rows else []
    for name in ("instance_id", "instanceId", "id"):
        if name in heading:
            place, rows, first = heading.index(name), rows[1:], 2
            break
    found = []
    for number, row in enumerate(rows, first):
        text = row[place].strip() if place < len(row) else ""
        try:
            found.append(UUID(text))
        except ValueError:
            raise click.BadParameter(
                f"{text!r} in row {number} of {file} is no id of an instance.", param_hint="--file"
            ) from None
    if not found:
        raise click.BadParameter(f"{file} names no instance.", param_hint="--file")
    if len(found) > MOST_INSTANCES:
        raise click.BadParameter(f"{file} names more than {MOST_INSTANCES:,} instances.", param_hint="--file")
    return tuple(sorted(set(found)))


def carry_out(
    ctx: click.Context, make: Callable[[Connection], Order], *, dry_run: bool, yes: bool, as_json: bool
) -> None:
    """Preview an order, ask, and post it; exits with 1 where something is left that no wallet could take or bear."""
    from containerstacks_billing.adjustments.orders import post_order, preview
    from containerstacks_billing.adjustments.schemas import OrderResult
    from containerstacks_billing.cli import order_report, render
    from containerstacks_billing.cli.confirm import require_confirmation
    from containerstacks_billing.config.target import target
    from containerstacks_billing.database.connection import connect
    from containerstacks_billing.schema.diagnose import diagnosed

    if dry_run and yes:
        raise click.BadParameter("--dry-run and --yes exclude each other.")
    settings = configured(ctx).settings
    conninfo = target(settings).conninfo
    with diagnosed(conninfo), connect(conninfo, purpose="reading") as connection:
        order = make(connection)
        shown = preview(connection, order)
    if not as_json:
        order_report.show_outcome(shown, order.currency)
    answers = shown.effects.answers
    nothing = not answers.organizations
    done = None
    if dry_run or nothing:
        if not as_json:
            render.stdout().print("\nNothing was changed." if dry_run else "\nThere is nothing to do.")
    else:
        question = "Post what is missing?" if shown.order.order_id is not None else "Post this?"
        require_confirmation(f"\n{question}", "a decision about money", yes=yes, as_json=as_json)
        done = post_order(conninfo, order, holder=f"{order.kind} by {operator_name()}")
        answers = done.effects.answers
        if not as_json:
            order_report.show_posted(done)
    if as_json:
        render.emit_json(OrderResult.of(shown, done))
    if answers.is_left_open and not dry_run:
        ctx.exit(EXIT_FAILED)


def add_verbs(group: click.Group, kind: str) -> None:
    """Add `list`, `show` and `undo` of this kind of order (`reversal` or `credit`) to the group of its verb."""
    verb = group.name
    number = click.argument(
        "number", type=WholeNumber(1, 2**31 - 1), metavar="N", help=f"Its id, from `{verb} list`."
    )

    def examples(*lines: str) -> str:
        return "\n".join(
            ["", "\b", "Examples:", *(f"  containerstacks-billing {verb} {line}" for line in lines), ""]
        )

    @group.command(
        "list",
        epilog=examples("list", "list --json | jq '.orders[].id'"),
        help=f"List {kind}s, newest first.",
    )
    @json_option
    @click.pass_context
    def show_orders(ctx: click.Context, as_json: bool) -> None:
        _show_list(ctx, kind, as_json=as_json)

    @group.command("show", epilog=examples("show 3"), help=f"Show what a {kind} moved, by customer.")
    @number
    @json_option
    @click.pass_context
    def show_order(ctx: click.Context, number: int, as_json: bool) -> None:
        _show_one(ctx, kind, number, as_json=as_json)

    @group.command(
        "undo",
        epilog=examples("undo 3 --reason mistake --dry-run", "undo 3 --reason mistake --yes"),
        help=f"Undo a {kind}: hours stand as they did before it.\n\nNo balance falls below zero: what a wallet cannot"
        " bear is posted when the command is given again after a top-up.",
    )
    @number
    @decision_options
    @click.pass_context
    def undo_order(
        ctx: click.Context,
        number: int,
        reason: str | None,
        by: str | None,
        dry_run: bool,
        yes: bool,
        as_json: bool,
    ) -> None:
        _undo(ctx, kind, number, reason, by, dry_run=dry_run, yes=yes, as_json=as_json)


def _show_list(ctx: click.Context, kind: str, *, as_json: bool) -> None:
    """Write the recorded orders of a kind, the newest first."""
    from containerstacks_billing.adjustments.model import OrderKind
    from containerstacks_billing.adjustments.records import recorded_orders
    from containerstacks_billing.adjustments.schemas import OrderList
    from containerstacks_billing.cli import order_report, render

    with _reading(ctx) as connection:
        orders = recorded_orders(connection, OrderKind(kind))
    if as_json:
        render.emit_json(OrderList.of(orders))
    else:
        order_report.show_orders(orders, kind)


def _show_one(ctx: click.Context, kind: str, number: int, *, as_json: bool) -> None:
    """Write one order and what it moved by organization; fails where there is none of this kind."""
    from containerstacks_billing.adjustments.model import OrderKind
    from containerstacks_billing.adjustments.records import moved_organizations, recorded_orders
    from containerstacks_billing.adjustments.schemas import OrderDetail
    from containerstacks_billing.cli import order_report, render
    from containerstacks_billing.errors import WorkFailed

    with _reading(ctx) as connection:
        found = recorded_orders(connection, OrderKind(kind), order_id=number)
        if not found:
            verb = "credit" if kind == "credit" else "reverse"
            raise WorkFailed(f"there is no {kind} {number}", f"`{verb} list` shows those that there are")
        moved = moved_organizations(connection, number)
    if as_json:
        render.emit_json(OrderDetail.of(found[0], moved))
    else:
        order_report.show_order(found[0], moved)


@contextmanager
def _reading(ctx: click.Context) -> Iterator[Connection]:
    from containerstacks_billing.config.target import target
    from containerstacks_billing.database.connection import connect
    from containerstacks_billing.schema.diagnose import diagnosed

    conninfo = target(configured(ctx).settings).conninfo
    with diagnosed(conninfo), connect(conninfo, purpose="reading") as connection:
        yield connection


def _undo(
    ctx: click.Context,
    kind: str,
    number: int,
    reason: str | None,
    by: str | None,
    *,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Undo an order: every hour stands again at the rate from before it."""
    from containerstacks_billing.adjustments.model import Mode, Order, OrderKind, Scope

    why = checked_reason(reason)
    settings = configured(ctx).settings
    order = Order(
        OrderKind(kind),
        Mode.UNDO,
        Scope(),
        (by or operator_name())[:255],
        why,
        settings.hours_per_month,
        settings.currency.upper(),
        undoes=number,
    )
    carry_out(ctx, lambda _: order, dry_run=dry_run, yes=yes, as_json=as_json)
