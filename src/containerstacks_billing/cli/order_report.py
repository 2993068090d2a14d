"""Tables of reversals and credits: what an order does to whom, and the orders that were recorded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal

from containerstacks_billing.adjustments.model import Answers, Effect, Mode, Outcome
from containerstacks_billing.adjustments.records import MovedOrganization, RecordedOrder
from containerstacks_billing.cli import render
from containerstacks_billing.money import plain
from containerstacks_billing.text import counted, hour_digits, minute

LINES = 25
_ZERO = Decimal(0)


def show_outcome(outcome: Outcome, currency: str) -> None:
    """Write what an order does to each organization, and the sums sorted by what happens."""
    console = render.stdout()
    order = outcome.order
    what = f"{order.kind} {order.order_id}" if order.order_id is not None else f"a new {order.kind}"
    if order.mode is Mode.UNDO:
        what = f"undo of {order.kind} {order.undoes}"
    console.print(render.printable(f"{what.capitalize()}: {scope_in_words(json.loads(order.document()))}."))
    effects = outcome.effects
    found = [one for one in effects.largest if one.charges or one.past_due_amount]
    if found:
        headings = ("Organization", "Hours", "Charged", "Stands at", "Moves", "Balance", "After", "Runway")
        rows = [_row(one) for one in found[:LINES]]
        console.print(render.table(headings, rows, right=headings[1:]))
        if effects.organizations > LINES:
            more = counted(effects.organizations - len(rows), "organization")
            console.print(f"… and {more} more; --json lists the largest 1,000.")
    _show_answers(effects.answers, currency)
    if outcome.uncharged.instances:
        hours = hour_digits(outcome.uncharged.hours)
        console.print(
            f"Not charged yet, and left out: {hours} hours of {counted(outcome.uncharged.instances, 'instance')}."
        )


def _row(one: Effect) -> tuple[str, ...]:
    runway = one.runway_after_hours
    return (
        one.name if len(one.name) <= 18 else f"{one.name[:17]}…",
        hour_digits(one.hours + one.past_due_hours),
        _cents(one.charged),
        _cents(one.stands_at),
        _cents(-one.posted),
        "-" if one.balance is None else str(one.balance),
        "-" if one.balance_after is None else str(one.balance_after),
        "-" if runway is None else f"{hour_digits(runway, 0)} h",
    )


def _cents(amount: Decimal) -> str:
    """Return an amount for a column, rounded to cents; --json has it exactly."""
    return f"{amount:.2f}"


def _show_answers(answers: Answers, currency: str) -> None:
    console = render.stdout()
    lines = []
    moved = -answers.now
    word = "given back" if moved >= 0 else "charged on top"
    lines.append(
        ("now", f"{plain(abs(moved))} {currency} {word}, to {counted(answers.organizations, 'organization')}")
    )
    if answers.past_due:
        verb = "cancelled" if answers.past_due < 0 else "put back"
        lines.append(("past due", f"{plain(abs(answers.past_due))} {currency} {verb}; no money moves"))
    if answers.already_charges:
        lines.append(
            (
                "already",
                f"{hour_digits(answers.already_hours)} hours were adjusted before and are left as they are",
            )
        )
    if answers.changed_charges:
        lines.append(
            ("changed since", f"{counted(answers.changed_charges, 'charge')} were adjusted again and stay")
        )
    if answers.no_wallet_organizations:
        many = counted(answers.no_wallet_organizations, "organization")
        lines.append(("no wallet", f"{plain(abs(answers.no_wallet))} {currency} of {many} can go nowhere"))
    if answers.wallet_short_organizations:
        many = counted(answers.wallet_short_organizations, "organization")
        lines.append(("wallet short", f"{plain(answers.wallet_short)} {currency} that {many} cannot bear"))
    if answers.by_hand:
        lines.append(
            (
                "by hand",
                f"{plain(answers.by_hand)} {currency} were credited by hand since, and are not subtracted",
            )
        )
    console.print(render.facts(lines))


def show_posted(outcome: Outcome) -> None:
    """Write what was posted, and what to do about the rest."""
    console = render.stdout()
    order = outcome.order
    adjusted = "1 adjustment was" if outcome.adjustments == 1 else f"{outcome.adjustments:,} adjustments were"
    console.print(f"\n{order.kind.capitalize()} {order.order_id}: {adjusted} posted.")
    if outcome.repriced:
        console.print(f"{counted(outcome.repriced, 'past-due charge')} rated anew.")
    for one in outcome.effects.left[:LINES]:
        why = "it has no wallet any more" if one.has_no_wallet else f"its wallet holds {one.balance}"
        console.print(render.printable(f"not posted: {plain(one.unposted_amount)} of {one.name}: {why}"))
    if outcome.effects.answers.wallet_short_organizations:
        console.print("Give the same command again after a top-up: it posts what is missing, nothing twice.")


def show_orders(orders: Sequence[RecordedOrder], kind: str) -> None:
    """Write recorded orders, the newest first."""
    console = render.stdout()
    if not orders:
        console.print(f"There is no {kind} yet.")
        return
    headings = ("Id", "When (UTC)", "By", "What", "Moved", "Reason")
    rows = [
        (
            str(one.id),
            minute(one.decided_at),
            one.decided_by,
            _what(one),
            plain(-one.amount),
            one.reason,
        )
        for one in orders
    ]
    console.print(render.table(headings, rows, right=("Moved",)))


def show_order(order: RecordedOrder, moved: Sequence[MovedOrganization]) -> None:
    """Write one order and what it moved by organization."""
    console = render.stdout()
    console.print(render.printable(f"{order.kind.capitalize()} {order.id}: {_what(order)}"))
    facts = [
        ("decided", f"{minute(order.decided_at)} UTC by {order.decided_by}"),
        ("reason", order.reason),
        ("moved", f"{plain(-order.amount)} to {counted(order.organizations, 'organization')}"),
    ]
    if order.unposted_charges is None:
        facts.append(("state", "it was not finished: give the command again"))
    elif order.unposted_charges:
        facts.append(("open", f"{counted(order.unposted_charges, 'charge')} that wallets could not bear"))
    console.print(render.facts(facts))
    if moved:
        headings = ("Organization", "Charges", "Instances", "Hours", "Moved")
        rows = [
            (one.name, str(one.charges), str(one.instances), hour_digits(one.hours), plain(-one.amount))
            for one in moved
        ]
        console.print(render.table(headings, rows, right=headings[1:]))


def _what(order: RecordedOrder) -> str:
    if order.undoes is not None:
        return f"undoes {order.undoes}"
    suffix = f"; undone by {order.undone_by}" if order.undone_by is not None else ""
    return f"{order.mode} {scope_in_words(order.scope)}{suffix}"


def scope_in_words(scope: dict[str, object]) -> str:
    """Return a scope as words: `run 812`, `2026-11-14T03:00 to 2026-11-14T09:00 of plan …`."""
    parts = [f"run {scope['run']}"] if "run" in scope else []
    if "from" in scope:
        parts.append(f"{_short(scope['from'])} to {_short(scope['until'])}")
    parts += [f"of {name} {scope[name]}" for name in ("plan", "organization", "region") if name in scope]
    instances = scope.get("instances")
    if isinstance(instances, list):
        parts.append(
            f"of instance {instances[0]}" if len(instances) == 1 else f"of {len(instances):,} instances"
        )
    if "factor" in scope and scope["factor"] != "1":
        parts.append(f"by {Decimal(str(scope['factor'])) * 100:f} %")
    return " ".join(parts) or "all that it did"


def _short(at: object) -> str:
    return str(at).removesuffix("+00:00").removesuffix(":00")
