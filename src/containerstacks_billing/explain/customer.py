"""Explanations in three sentences that can be sent to a customer: no ids, no internal words."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

from containerstacks_billing.explain.model import Adjustment, Charge, Entry, EntryExplanation, hours_of
from containerstacks_billing.explain.timeline import State
from containerstacks_billing.explain.why import (
    ChargeExplanation,
    InstanceExplanation,
    OrganizationExplanation,
)
from containerstacks_billing.money import display, plain

_FRACTIONS = (
    "Fractions of a cent are kept and counted together with the next hours, so a line may differ from hours times"
    " price by less than a cent."
)
_NAMES_SHOWN = 3


def entry_sentences(explanation: EntryExplanation) -> list[str]:
    """Return what a line on the balance is for."""
    entry = explanation.entry
    if not entry.is_own:
        booked = (
            f"It was booked as “{_plain_text(entry.description)}”."
            if entry.description
            else ("It was booked without a description.")
        )
        return [_moved(entry), booked, "No server hours are part of it."]
    if explanation.adjustments and not explanation.charges:
        return [_moved(entry), _corrected(explanation.adjustments), _FRACTIONS]
    charges = explanation.charges
    hours = sum((charge.hours for charge in charges), Decimal(0))
    pays = (
        f"It pays for {_count(hours, 'hour')} of {_names([charge.label for charge in charges])} between"
        f" {_date(min(charge.starts_at for charge in charges))} and"
        f" {_date(max(charge.ends_at for charge in charges))}, each hour at the price that held when it began."
        if charges
        else "It pays for server hours."
    )
    late = any(charge.paid_late_at for charge in charges)
    waited = (
        "Some of these hours could not be paid when they were over, because the balance did not suffice then."
    )
    return [_moved(entry), pays, waited if late else _FRACTIONS]


def _moved(entry: Entry) -> str:
    when = f"On {_date(entry.posted_at)}" if entry.posted_at else "Once"
    currency = entry.currency or ""
    amount = display(abs(entry.amount), currency).strip()
    happened = f"{amount} were {'taken from' if entry.amount < 0 else 'added to'} your balance"
    if entry.balance_before is None or entry.balance_after is None:
        return f"{when} {happened}."
    before, after = (display(one, currency).strip() for one in (entry.balance_before, entry.balance_after))
    return f"{when} {happened}, which went from {before} to {after}."


def _corrected(adjustments: Sequence[Adjustment]) -> str:
    spans = [(one.starts_at, one.ends_at) for one in adjustments if one.starts_at and one.ends_at]
    if not spans:
        return "It pays back what was taken too much by an earlier billing program."
    hours = sum((hours_of(begin, end) for begin, end in spans), Decimal(0))
    servers = len({one.instance_id for one in adjustments})
    rates = [
        (one.old_rate, one.new_rate)
        for one in adjustments
        if one.old_rate is not None and one.new_rate is not None
    ]
    old, new = min(rates)
    changed = f" from {plain(old)} to {plain(new)} an hour" if len(set(rates)) == 1 else ""
    happened = {"credit": "was credited", "reversal": "was taken back"}.get(
        adjustments[0].kind, "was corrected"
    )
    if adjustments[0].is_undo:
        happened = "was set back"
    return (
        f"The price of {_count(hours, 'hour')} of {_count(Decimal(servers), 'server')} between"
        f" {_date(min(begin for begin, _ in spans))} and {_date(max(end for _, end in spans))}"
        f" {happened}{changed}."
    )


def charge_sentences(explanation: ChargeExplanation) -> list[str]:
    """Return what one charge is for, what it comes to and how it was paid."""
    charge = explanation.charge
    currency = explanation.paid_by.entry.currency if explanation.paid_by else None
    ran = (
        f"Your server {_name(charge.label)} is billed from {_date(charge.starts_at)} to {_date(charge.ends_at)},"
        f" which is {_count(charge.hours, 'hour')}."
    )
    return [ran, _costs(charge, currency), _paid(explanation)]


def _costs(charge: Charge, currency: str | None) -> str:
    total = f"{plain(charge.amount)} {currency or ''}".strip()
    rate = plain(charge.hourly_rate)
    if not charge.derivations:
        return f"At {rate} an hour that comes to {total}."
    derived = charge.derivations[0]
    backups = f", and {plain(derived.price.backup_hourly)} an hour for backups" if derived.backups else ""
    return (
        f"The price of {plain(derived.price.monthly)} a month of {derived.hours_per_month} hours{backups} is {rate} an"
        f" hour, so that comes to {total}."
    )


def _paid(explanation: ChargeExplanation) -> str:
    charge = explanation.charge
    if charge.by_host:
        return "It was billed by the application itself, before the present billing."
    if charge.status == "failed":
        return "It is not paid yet, because the balance did not suffice."
    adjusted = sum((one.amount for one in charge.adjustments), Decimal(0))
    if adjusted:
        given = "given back" if adjusted < 0 else "added"
        return f"Its price was corrected later, and {plain(abs(adjusted))} of it were {given}."
    if charge.paid_late_at:
        paid_at = _date(charge.paid_late_at)
        return f"It could not be paid when it was over, and was taken from your balance on {paid_at}."
    if explanation.paid_by is None:
        return "It is less than a cent, and is counted together with the next hours."
    posted = explanation.paid_by.entry.posted_at
    taken = f" on {_date(posted)}" if posted else ""
    return f"It was taken from your balance{taken}, together with what else ran then."


_BECAUSE = {
    State.WAIVED: (
        "These hours are not billed: they were waived.",
        "Nothing was taken from your balance for them.",
    ),
    State.NOT_BILLABLE: (
        "A server is billed while it runs, and this one did not.",
        "Nothing was taken from your balance for this time.",
    ),
    State.FREE: ("An hour that was only begun is free.", "Nothing was taken from your balance for it."),
    State.HELD: (
        "Its hours are being looked at before they are billed.",
        "Nothing was taken from your balance for them so far.",
    ),
    State.QUARANTINED: (
        "Its hours cannot be billed at the moment, for a reason on our side.",
        "Nothing was taken from your balance for them so far.",
    ),
    State.DUE: (
        "These hours are over, and will be billed shortly.",
        "Nothing was taken from your balance so far.",
    ),
    State.NOT_DUE_YET: (
        "An hour is billed when it is over, and this one is not.",
        "Nothing was taken from your balance for it so far.",
    ),
    State.DELETED: ("The server was deleted before that.", "Nothing is billed after the deletion."),
    State.NOT_THERE_YET: (
        "The present billing of this server began later.",
        "It took nothing for this time.",
    ),
    State.BY_HOST: (
        "It was billed by the application itself.",
        "The present billing took nothing for this time.",
    ),
    State.UNKNOWN: ("We are looking into this time.", "Nothing was taken from your balance for it."),
}


def instance_sentences(explanation: InstanceExplanation) -> list[str]:
    """Return what became of an instant of a server."""
    if explanation.charge is not None:
        return charge_sentences(explanation.charge)
    asked = f"You asked about your server {_name(explanation.label)} at {_date(explanation.at)}."
    return [asked, *_BECAUSE[explanation.here.state]]


def organization_sentences(explanation: OrganizationExplanation) -> list[str]:
    """Return how a balance stands, what moved it last, and what is billed."""
    balances = [display(one.balance, one.currency or "").strip() for one in explanation.wallets]
    stands = f"Your balance is {' and '.join(balances)}." if balances else "You have no balance with us."
    last = (
        _moved(explanation.last_entry.entry)
        if explanation.last_entry
        else "Nothing was taken from it so far."
    )
    billed = sum(1 for one in explanation.instances if one.billable and not one.reason)
    idle = len(explanation.instances) - billed
    return [
        stands,
        last,
        _billed_now(billed, idle),
    ]


def _billed_now(billed: int, idle: int) -> str:
    servers = f"{_count(Decimal(billed), 'server')} {'is' if billed == 1 else 'are'}"
    return f"{servers} billed by the hour at present, and {idle} {'is' if idle == 1 else 'are'} not."


def _count(number: Decimal, unit: str) -> str:
    text = f"{number.normalize():f}"
    return f"{text} {unit}" if number == 1 else f"{text} {unit}s"


def _names(labels: Sequence[str | None]) -> str:
    names = sorted({_name(label) for label in labels})
    if len(names) > _NAMES_SHOWN:
        return f"{len(names)} servers"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _name(label: str | None) -> str:
    return _plain_text(label) or "without a name"


def _plain_text(text: str | None) -> str:
    return "".join(character for character in text or "" if character.isprintable()).strip()[:100]


def _date(at: datetime) -> str:
    return f"{at.day} {at:%B %Y, %H:%M} UTC"
