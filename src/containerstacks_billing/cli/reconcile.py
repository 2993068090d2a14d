"""`reconcile`: settlement of discrepancies that `verify` reports, by a decision that it honours."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import click

from containerstacks_billing.cli.arguments import ORGANIZATION_ID, json_option, require_organization
from containerstacks_billing.cli.confirm import require_confirmation
from containerstacks_billing.cli.main import app, configured
from containerstacks_billing.errors import EXIT_FAILED
from containerstacks_billing.identity import operator_name

if TYPE_CHECKING:
    from rich.console import Console

    from containerstacks_billing.reconciliation.model import OpenItem, Reconciliation, SettledItem
    from containerstacks_billing.reconciliation.reconcile import Settlement

_EXAMPLES = """
\b
Examples:
  containerstacks-billing reconcile         what differs, since when, and why
  containerstacks-billing reconcile ID --accept --reason "archived" --dry-run
  containerstacks-billing reconcile ID --restore --reason "lost top-up" --yes
  containerstacks-billing reconcile --accept --check entries --reason moved

\b
  --accept    the rows stay; a difference of a balance becomes its opening
  --restore   balance, carry, mark or lost hours become what they should be
"""


@app.command(epilog=_EXAMPLES)
@click.argument("organization", type=ORGANIZATION_ID, metavar="[ORG]", required=False)
@click.option("--accept", is_flag=True, help="Accept what differs, for good.")
@click.option("--restore", is_flag=True, help="Restore what can be restored.")
@click.option("--check", metavar="NAME", help="Only discrepancies of this check of verify.")
@click.option("--reason", metavar="TEXT", help="Why; it is kept and shown.")
@click.option("--by", metavar="NAME", help="Who. [default: user@host]")
@click.option("--dry-run", is_flag=True, help="Show what it would do; change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@click.pass_context
def reconcile(
    ctx: click.Context,
    organization: UUID | None,
    accept: bool,
    restore: bool,
    check: str | None,
    reason: str | None,
    by: str | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """List discrepancies with their cause, and settle them.

    Without --accept or --restore it only reads. A decision keeps who made it, when, why and about how much; verify
    honours and prints it. Exits 1 while something waits for a decision.
    """
    from containerstacks_billing.config.target import target
    from containerstacks_billing.database.connection import connect
    from containerstacks_billing.reconciliation.model import Action
    from containerstacks_billing.reconciliation.reconcile import Settlement, open_items
    from containerstacks_billing.schema.diagnose import diagnosed
    from containerstacks_billing.verification.verify import CHECKS

    if accept and restore:
        raise click.UsageError("--accept and --restore exclude each other.")
    if check is not None and check not in CHECKS:
        raise click.BadParameter(f"it has to be one of {', '.join(CHECKS)}.", param_hint="--check")
    settles = accept or restore
    if settles and not (reason or "").strip():
        raise click.UsageError("A decision needs --reason: it is kept with the books.")
    if not settles and (reason or dry_run or yes):
        raise click.UsageError("--reason, --dry-run and --yes belong to --accept or --restore.")
    settings = configured(ctx).settings
    conninfo = target(settings).conninfo
    if organization is not None:
        with diagnosed(conninfo), connect(conninfo, purpose="reading") as connection:
            require_organization(connection, organization)
    if not settles:
        found = open_items(conninfo, organization, check=check)
        _list(found, as_json=as_json)
        if found.items or found.more:
            ctx.exit(EXIT_FAILED)
        return
    order = Settlement(
        Action.ACCEPT if accept else Action.RESTORE,
        by or operator_name(),
        (reason or "").strip(),
        organization,
        check,
        dry_run,
        settings.currency,
    )
    if _carry_out(conninfo, order, yes=yes, as_json=as_json):
        ctx.exit(EXIT_FAILED)


def _carry_out(conninfo: str, order: Settlement, *, yes: bool, as_json: bool) -> bool:
    """Preview, ask and settle; return whether something is left open."""
    from dataclasses import replace

    from containerstacks_billing.cli import render
    from containerstacks_billing.reconciliation.reconcile import settle

    changed = 0
    if not (yes or order.dry_run):
        preview = settle(conninfo, replace(order, dry_run=True))
        if preview:
            if not as_json:
                _show_settled(render.stdout(), preview, order, dry_run=True)
            require_confirmation("\nDecide so?", "a decision about discrepancies", yes=yes, as_json=as_json)
        order = replace(order, only=frozenset(one.item.discrepancy.fingerprint for one in preview))
    done = settle(conninfo, order)
    if order.only is not None and len(done) < len(order.only):
        changed = len(order.only) - len(done)
        render.stderr().print(
            f"Changed since they were shown, and left as they are: {changed:,}. List them again."
        )
    if as_json:
        render.emit_json(
            {
                "action": order.action.value,
                "dryRun": order.dry_run,
                "decidedBy": order.decided_by,
                "reason": order.reason,
                "items": [_settled_document(one) for one in done],
                "settled": sum(not one.is_open for one in done),
                "open": sum(one.is_open for one in done),
            }
        )
    else:
        _show_settled(render.stdout(), done, order, dry_run=order.dry_run)
    return bool(changed) or any(one.is_open for one in done)


def _list(found: Reconciliation, *, as_json: bool) -> None:
    from containerstacks_billing.cli import render

    if as_json:
        render.emit_json(
            {
                "readAt": found.read_at,
                "items": [_item_document(one) for one in found.items],
                "more": found.more,
                "settled": [
                    {
                        "check": one.check,
                        "decision": one.decision,
                        "decisions": one.decisions,
                        "amount": one.amount,
                        "decidedBy": one.decided_by,
                        "decidedAt": one.decided_at,
                    }
                    for one in found.settled
                ],
            }
        )
        return
    console = render.stdout()
    for item in found.items:
        _show_item(console, item)
    if found.more:
        console.print(f"… and {found.more:,} more, not shown")
    for one in found.settled:
        console.print(
            f"Settled: {one.decisions:,} {one.check} {one.decision}ed, {one.amount.normalize():f} in all, last by"
            f" {render.printable(one.decided_by)} on {one.decided_at:%Y-%m-%d %H:%M}.",
            soft_wrap=True,
        )
    if not found.items:
        console.print("Nothing waits for a decision: the books are right.")


def _show_item(console: Console, item: OpenItem) -> None:
    from containerstacks_billing.cli.render import indented, printable
    from containerstacks_billing.reconciliation.model import EFFECTS, Action

    console.print(printable(item.discrepancy), soft_wrap=True)
    if item.origin is not None:
        since = f"since {item.origin.since:%Y-%m-%d %H:%M:%S}, " if item.origin.since else ""
        entry = f" (entry {item.origin.entry_id})" if item.origin.entry_id else ""
        console.print(indented(f"{since}{printable(item.origin.cause)}{entry}", 4))
    organization = item.discrepancy.identifiers.get("organization_id", "")
    where = f"{organization} " if organization else ""
    for action in Action:
        if item.can(action):
            effect = EFFECTS.get((item.check, action), "leaves the rows as they are and reports them no more")
            command = f"reconcile {where}--{action.value} --check {item.check} --reason …"
            console.print(indented(f"{command}", 4), soft_wrap=True)
            console.print(indented(effect, 6))


def _show_settled(
    console: Console, done: tuple[SettledItem, ...], order: Settlement, *, dry_run: bool
) -> None:
    from containerstacks_billing.cli.render import printable

    verb = f"would be {order.action.value}ed".replace("eed", "ed") if dry_run else f"{order.action.value}ed"
    verb = verb.replace("restoreed", "restored")
    for one in done:
        amount = "" if one.amount is None else f" {one.amount.normalize():f}"
        answer = f"{verb}{amount}" if not one.is_open else f"{one.answer.value}{amount}"
        console.print(f"{printable(one.item.discrepancy)}: {answer}", soft_wrap=True)
    if not done:
        console.print("Nothing waits for a decision.")
    elif dry_run:
        console.print("Nothing was changed.")


def _item_document(item: OpenItem) -> dict[str, object]:
    from containerstacks_billing.reconciliation.model import Action

    places = {
        "".join(part if i == 0 else part.title() for i, part in enumerate(kind.split("_"))): value
        for kind, value in item.discrepancy.identifiers.items()
    }
    return {
        "check": item.check,
        **places,
        "message": item.discrepancy.message,
        "amount": item.amount,
        "since": item.origin.since if item.origin else None,
        "sinceEntryId": item.origin.entry_id if item.origin else None,
        "cause": item.origin.cause if item.origin else None,
        "actions": [action.value for action in Action if item.can(action)],
    }


def _settled_document(one: SettledItem) -> dict[str, object]:
    return {**_item_document(one.item), "answer": one.answer.value, "settledAmount": one.amount}
