"""What an operator decides, on the reference model: prices for later and for the past, and what becomes of held hours."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from uuid import UUID

from tests.reference.model import HELD, Model
from tests.reference.values import FOR_EVER, HOUR, SINCE_EVER, Price, Segment, Terms, Unit, amount_of


def announce(model: Model, plan: str, monthly: Decimal, at: int, now: int) -> None:
    """Enter a price that begins later; backups go on costing what they cost."""
    model.show_prices(now)
    model.enter(plan, Price(at, monthly, model.price_at(plan, at).backup))


def correction_reaches(model: Model, plan: str, at: float, now: int) -> float:
    """Return until when a correction from an instant on counts: the next recorded price, at most now."""
    return min([now, *(price.valid_from for price in model.prices[plan] if price.valid_from > at)])


def differences(
    model: Model, plan: str, monthly: Decimal, at: int, now: int
) -> list[tuple[Unit, Decimal, Decimal]]:
    """Return the hours that a correction changes, each with its new rate and what that adds to its amount."""
    until = correction_reaches(model, plan, at, now)
    changed = []
    for unit in model.units:
        if unit.plan == plan and at <= unit.start < until:
            old = model.price_at(plan, unit.start)
            rate = replace(old, monthly=monthly).hourly(unit.hours_per_month, unit.backups)
            length = unit.end - unit.start
            changed.append((unit, rate, amount_of(rate, length) - amount_of(unit.rate_now, length)))
    return changed


def correct(model: Model, plan: str, monthly: Decimal, at: int, now: int, currency: str) -> None:
    """Put another price where one began or held in the past; the wallets are taken to hold what it adds.

    What was paid is adjusted beside it, what is past due is rated anew, and what costs nothing any more is paid by that.
    """
    model.show_prices(now)
    found = differences(model, plan, monthly, at, now)
    model.enter(plan, Price(at, monthly, model.price_at(plan, at).backup))
    model.show_prices(now)
    added: dict[UUID, Decimal] = {}
    for unit, rate, difference in found:
        if unit.status == "failed":
            unit.hourly_rate = unit.rate_now = rate
            unit.amount += difference
            unit.status = "failed" if unit.amount else "billed"
        elif difference and model.payer(unit.organization, currency):
            unit.rate_now = rate
            unit.adjustment += difference
            added[unit.organization] = added.get(unit.organization, Decimal(0)) + difference
    for organization, difference in added.items():
        payer = model.payer(organization, currency)
        assert payer is not None
        model.debit(payer, difference)


def release(model: Model, terms: Terms, now: int, kept_hours: float = FOR_EVER, **only: object) -> None:
    """Decide about held instances: keep the most recent hours of each due, and waive the older ones.

    `only` may name an organization or an instance. Kept hours are approved until now.
    """
    for organization in sorted({*model.organizations, *(s.organization for s in model.segments)}):
        for identifier in sorted(model.instances_of(organization)):
            named = {"organization": organization, "instance": identifier}
            chosen = all(named[name] == value for name, value in only.items())
            if chosen and model.is_held(organization, identifier, terms, now):
                _decide(model, organization, identifier, terms, now, kept_hours)
                if model.quarantine.get((organization, identifier)) == HELD:
                    del model.quarantine[organization, identifier]


def _decide(
    model: Model, organization: UUID, identifier: UUID, terms: Terms, now: int, kept_hours: float
) -> None:
    closed, open_hours = model.due(organization, identifier, terms, now)
    key = (organization, identifier)
    left = kept_hours * HOUR
    approved = SINCE_EVER
    if open_hours:
        instance = model.instances[identifier]
        until = open_hours[-1] + HOUR
        kept = min(until - instance.watermark, left)
        if kept > 0:
            approved = max(approved, now, until)
        left -= kept
        instance.watermark = until - int(kept)
    for segment in sorted(closed, key=lambda one: one.start, reverse=True):
        kept = min(segment.until - segment.start, left)
        if kept > 0:
            approved = max(approved, now, segment.until)
        left -= kept
        _waive(model, segment, segment.until - int(kept))
    if approved > SINCE_EVER:
        model.approved[key] = int(max(approved, model.approved.get(key, SINCE_EVER)))


def _waive(model: Model, segment: Segment, until: int) -> None:
    """Split a closed segment: before the instant nothing is due, from there on all of it."""
    if until == segment.start:
        return
    if until < segment.until:
        model.segments.append(replace(segment, start=until))
    segment.until, segment.due = until, False
