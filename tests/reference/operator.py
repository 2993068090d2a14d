"""What an operator decides, on the reference model: prices for later and for the past, and what becomes of held hours."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from math import ceil
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
        if unit.plan == plan and at <= unit.start < until and not unit.ordered:
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


Changed = list[tuple[Unit, Decimal, Decimal, bool, bool]]


def order_differences(
    model: Model, begin: int, end: int, factor: Decimal | None
) -> list[tuple[Unit, Decimal]]:
    """Return the hours that a reversal (no factor) or a credit changes, each with its new rate.

    A reversal takes the hours that begin in the span, to nothing. A credit takes a multiple of what an hour stands at, as
    far as the span covers it, rounded up to eight digits; an hour is credited once, and what is owed is free at most.
    """
    changed = []
    for unit in model.units:
        rate = unit.rate_now if unit.status == "billed" else unit.hourly_rate
        length = unit.end - unit.start
        if factor is None:
            if begin <= unit.start < end and rate > 0:
                changed.append((unit, Decimal(0)))
        elif (covered := min(end, unit.end) - max(begin, unit.start)) > 0 and rate > 0 and not unit.credited:
            exact = Fraction(rate) * (length - covered * Fraction(factor)) * 10**8 / length
            rate = Decimal(ceil(exact)).scaleb(-8)
            changed.append((unit, max(rate, Decimal(0)) if unit.status == "failed" else rate))
    return [(unit, rate) for unit, rate in changed if rate != unit.rate_now]


def adjust(
    model: Model, changes: list[tuple[Unit, Decimal]], currency: str, is_credit: bool | None
) -> Changed:
    """Put hours to other rates, and return what they were: paid ones get a difference, past-due ones another amount.

    `is_credit` is None where an order is undone. Wallets are taken to hold what is added.
    """
    done: Changed = []
    added: dict[UUID, Decimal] = {}
    for unit, rate in changes:
        length = unit.end - unit.start
        before = unit.rate_now if unit.status == "billed" else unit.hourly_rate
        if unit.status != "billed" or not model.payer(unit.organization, currency):
            if unit.status == "billed":
                continue
            unit.hourly_rate = unit.rate_now = rate
            unit.amount = amount_of(rate, length)
            unit.status = "failed" if unit.amount else "refunded"
        else:
            difference = amount_of(rate, length) - amount_of(before, length)
            if not difference:
                continue
            unit.rate_now = rate
            unit.adjustment += difference
            added[unit.organization] = added.get(unit.organization, Decimal(0)) + difference
        done.append((unit, before, rate, unit.ordered, unit.credited))
        if is_credit is not None:
            unit.ordered, unit.credited = True, unit.credited or is_credit
    for organization, difference in added.items():
        payer = model.payer(organization, currency)
        assert payer is not None
        model.debit(payer, difference)
    return done


def undo_differences(changed: Changed) -> list[tuple[Unit, Decimal]]:
    """Return the hours whose rate is still the one that an order set, each with the rate from before it."""
    return [
        (unit, before)
        for unit, before, after, *_ in changed
        if (unit.rate_now if unit.status == "billed" else unit.hourly_rate) == after
    ]


def undo(model: Model, changed: Changed, currency: str) -> None:
    """Undo an order: every hour stands as before it, where it stands as the order left it."""
    done = adjust(model, undo_differences(changed), currency, None)
    undone = {id(unit) for unit, *_ in done}
    for unit, _, _, ordered, credited in changed:
        if id(unit) in undone:
            unit.ordered, unit.credited = ordered, credited


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
