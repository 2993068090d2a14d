"""Explanations for a terminal: facts above, the hours that they rest on as a table below, what does not add up last."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from containerstacks_billing.cli import render
from containerstacks_billing.explain.timeline import FOREVER, merged
from containerstacks_billing.money import display, plain

if TYPE_CHECKING:
    from decimal import Decimal

    from rich.console import Console

    from containerstacks_billing.explain.model import Adjustment, Charge, Derivation, EntryExplanation
    from containerstacks_billing.explain.why import (
        ChargeExplanation,
        InstanceExplanation,
        OrganizationExplanation,
    )

ROWS_SHOWN = 50
_RIGHT = ("Hours", "Rate", "Amount", "Was", "Is", "Entries")


def show_entry(console: Console, explanation: EntryExplanation) -> None:
    """Write a ledger entry with the charges and adjustments behind it."""
    entry = explanation.entry
    console.print(f"Ledger entry {entry.entry_id}", style="bold")
    console.print(render.facts(_entry_facts(explanation)))
    _show_charges(console, explanation.charges)
    _show_adjustments(console, explanation.adjustments)


def _entry_facts(explanation: EntryExplanation) -> Iterator[tuple[str, str]]:
    entry = explanation.entry
    yield "customer", entry.organization or str(entry.organization_id)
    moved = display(abs(entry.amount), entry.currency or "").strip()
    balance = ""
    if entry.balance_before is not None and entry.balance_after is not None:
        balance = f"; the balance went from {plain(entry.balance_before)} to {plain(entry.balance_after)}"
    yield "amount", f"{moved} {'taken' if entry.amount < 0 else 'given'}{balance}"
    if entry.posted_at is not None:
        yield "posted", f"{_at(entry.posted_at)} UTC, {entry.status}"
    if entry.description:
        yield "text", entry.description
    if not entry.is_own:
        yield "whose", f"not ours: the host application booked it by {entry.payment_method}"
        return
    carry = plain(entry.carry_before) if entry.carry_before is not None else "unknown"
    yield "carried in", f"{carry}, billed before and not debited yet"
    yield "exactly", f"{plain(explanation.exact)} charged"
    yield "carried out", plain(explanation.carry_after)
    if explanation.charges:
        yield "run", _run(explanation.charges[0])


def show_charge(console: Console, explanation: ChargeExplanation) -> None:
    """Write a charge, and the ledger entry that pays for it."""
    charge = explanation.charge
    console.print(f"Charge {charge.charge_id}", style="bold")
    console.print(render.facts(_charge_facts(charge)))
    _show_adjustments(console, charge.adjustments)
    if explanation.paid_by is not None:
        console.print()
        console.print("It is paid by:")
        show_entry(console, explanation.paid_by)


def _charge_facts(charge: Charge) -> Iterator[tuple[str, str]]:
    yield "instance", f"{charge.label or ''} {charge.instance_id}".strip()
    yield "hours", f"{_hours(charge.hours)} from {_at(charge.starts_at)} to {_at(charge.ends_at)} UTC"
    yield "amount", f"{_hours(charge.hours)} x {plain(charge.hourly_rate)} = {plain(charge.amount)}"
    for derived in charge.derivations:
        yield "rate", _rate(derived)
    if charge.segment_id is not None:
        closed = f", closed at {_at(charge.closed_at)} by {charge.segment_reason}" if charge.closed_at else ""
        yield "segment", f"{charge.segment_id}, status {charge.segment_status}{closed}"
    if charge.by_host:
        yield "whose", "not ours: the host application billed it by itself"
    else:
        yield "run", _run(charge)
    if charge.status == "failed" and charge.past_due_since is not None:
        yield "past due", f"since {_at(charge.past_due_since)}: the wallet could not pay it"
    elif charge.paid_late_at is not None and charge.past_due_since is not None:
        yield "paid late", f"past due since {_at(charge.past_due_since)}, paid at {_at(charge.paid_late_at)}"
    if charge.adjustments:
        yield "stands at", f"{plain(charge.stands_at)} after {len(charge.adjustments)} adjustments"
    if charge.status == "billed" and charge.entry_id is None and not charge.by_host:
        yield "entry", "none: with what was carried it is below a cent, and is carried on"


def show_instance(console: Console, explanation: InstanceExplanation) -> None:
    """Write what became of an instant of an instance, and the periods before it."""
    here = explanation.here
    console.print(f"Instance {explanation.instance_id}", style="bold")
    instance = explanation.instance
    facts = [
        ("label", explanation.label),
        (
            "status",
            f"{instance.status}, plan {instance.plan_name or instance.plan}" if instance else "deleted",
        ),
        (f"at {_at(explanation.at)}", f"{here.state}: {here.detail}"),
    ]
    console.print(render.facts(facts))
    periods = merged(explanation.periods)
    rows = [
        (
            _at(one.starts_at),
            _at(one.ends_at) if one.ends_at < FOREVER else None,
            None if one.hours is None else _hours(one.hours),
            one.state,
            one.hourly_rate,
            one.amount,
            None if one.amount is not None else one.detail,
        )
        for one in periods[-ROWS_SHOWN:]
    ]
    headings = ("From (UTC)", "Until", "Hours", "State", "Rate", "Amount", "Because")
    console.print(render.table(headings, rows, right=_RIGHT))
    if explanation.charge is not None:
        console.print()
        show_charge(console, explanation.charge)


def show_organization(console: Console, explanation: OrganizationExplanation) -> None:
    """Write the wallets of an organization, what moved them, its instances and its last entry."""
    console.print(f"Organization {explanation.organization_id}", style="bold")
    facts = [("name", explanation.name if explanation.exists else "deleted; its charges are left")]
    facts += [("wallet", _wallet(wallet)) for wallet in explanation.wallets]
    owed = explanation.past_due
    if owed.charges:
        facts.append(
            ("past due", f"{plain(owed.amount)}, {owed.instances} instances, since {_at(owed.oldest)}")
        )
    console.print(render.facts(facts))
    if explanation.entries:
        sums = [(one.kind, one.entries, one.amount, one.currency) for one in explanation.entries]
        console.print(render.table(("Moved by", "Entries", "Amount", "Currency"), sums, right=_RIGHT))
    if explanation.instances:
        rows = [
            (one.label, one.status, one.watermark and _at(one.watermark), _because(one))
            for one in explanation.instances[:ROWS_SHOWN]
        ]
        console.print(render.table(("Instance", "Status", "Billed until", "Now"), rows))
        _more(console, len(explanation.instances))
    if explanation.last_entry is not None:
        console.print()
        console.print("The last debit or credit of billing:")
        show_entry(console, explanation.last_entry)


def _wallet(wallet: Any) -> str:
    balance = display(wallet.balance, wallet.currency or "").strip()
    return f"{balance}, opening {plain(wallet.opening)}, carried {plain(wallet.carry)}"


def _because(instance: Any) -> str:
    if instance.reason:
        return f"{instance.reason}: {instance.detail}"
    return (
        "billed by the hour"
        if instance.billable
        else "not billable: its status is not one of BILLABLE_STATUSES"
    )


def _show_charges(console: Console, charges: Sequence[Charge]) -> None:
    if not charges:
        return
    rows = [
        (
            charge.label,
            _at(charge.starts_at),
            _at(charge.ends_at),
            _hours(charge.hours),
            charge.hourly_rate,
            charge.amount,
        )
        for charge in charges[:ROWS_SHOWN]
    ]
    headings = ("Instance", "From (UTC)", "Until", "Hours", "Rate", "Amount")
    console.print(render.table(headings, rows, right=_RIGHT))
    _more(console, len(charges))
    rates = {(derived.price, derived.hours_per_month, derived.backups): derived for charge in charges
             for derived in charge.derivations}  # fmt: skip
    for derived in rates.values():
        rate = derived.price.hourly(derived.hours_per_month, derived.backups)
        console.print(render.facts([(plain(rate) if rate is not None else "-", _rate(derived))]))


def _show_adjustments(console: Console, adjustments: Sequence[Adjustment]) -> None:
    if not adjustments:
        return
    rows = [
        (one.adjustment_id, one.starts_at and _at(one.starts_at), one.ends_at and _at(one.ends_at),
         one.old_rate, one.new_rate, one.amount,
         one.source, f"{one.decided_by}: {one.reason}" if one.reason else one.decided_by)
        for one in adjustments[:ROWS_SHOWN]
    ]  # fmt: skip
    headings = ("Adjustment", "From (UTC)", "Until", "Was", "Is", "Amount", "By", "Decided by")
    console.print(render.table(headings, rows, right=_RIGHT))
    _more(console, len(adjustments))


def _more(console: Console, number: int) -> None:
    if number > ROWS_SHOWN:
        console.print(f"… and {number - ROWS_SHOWN:,} more; --json shows them all.")


def _rate(derived: Derivation) -> str:
    price = derived.price
    parts = (
        f" ({plain(price.base)} + {plain(price.markup)})" if price.base is not None and price.markup else ""
    )
    text = f"{plain(price.monthly)}{parts} a month of {derived.hours_per_month} hours"
    if derived.backups:
        text += f", and {plain(price.backup_hourly)} for backups"
    text += f"; in force since {_at(price.valid_from)}" if price.valid_from else "; in force since ever"
    if price.corrected_at is not None:
        text += f", replaced by a correction at {_at(price.corrected_at)}"
    if price.recorded_by is not None and price.valid_from is not None:
        text += f", set by {price.recorded_by}" + (f": {price.reason}" if price.reason else "")
    if derived.before is not None:
        text += f"; before: {plain(derived.before.monthly)}"
    return text


def _run(charge: Charge) -> str:
    as_of = f" as of {_at(charge.as_of)}" if charge.as_of else ", whose record is gone"
    if charge.holder is None:
        return f"{charge.run_id}{as_of}"
    return f"{charge.run_id}{as_of}, {charge.trigger} by {charge.holder}, lease {charge.fencing_token}"


def _hours(hours: Decimal) -> str:
    return f"{hours.normalize():f}"


def _at(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}" if at.second else f"{at:%Y-%m-%d %H:%M}"
