"""Tables of prices and of price corrections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from containerstacks_billing import text
from containerstacks_billing.cli import render
from containerstacks_billing.money import plain
from containerstacks_billing.pricing.model import Correction, OrganizationDifference, Plan, PriceVersion
from containerstacks_billing.text import counted, hour_digits

LINES = 25
_ZERO = Decimal(0)


def instant(at: datetime | None, otherwise: str = "always") -> str:
    """Return an instant in UTC, to the minute unless it has seconds; `otherwise` for none."""
    return otherwise if at is None else text.instant(at)


def _amount(amount: Decimal | None) -> str:
    return "-" if amount is None else plain(amount) if amount.is_finite() else str(amount)


def _signed(amount: Decimal) -> str:
    return f"{'+' if amount > 0 else ''}{plain(amount)}"


def show_plans(
    plans: Sequence[Plan], versions: Mapping[UUID, Sequence[PriceVersion]], hours_per_month: int
) -> None:
    """Write one table per plan, oldest price first."""
    console = render.stdout()
    if not plans:
        console.print("There are no plans.")
    for plan in plans:
        state = "" if plan.active else " (not active)" if plan.on_sale else " (deleted)"
        console.print(render.printable(f"{plan.title}{state}"))
        names = f"provider_plan_id {plan.provider_plan_id}, id " if plan.on_sale else "id "
        console.print(f"  {render.printable(names)}{plan.plan_id}", soft_wrap=True)
        backups = any(one.hourly_rate_with_backups is not None for one in versions[plan.plan_id])
        headings = [
            "From (UTC)",
            "Until (UTC)",
            "Base",
            "Markup",
            "Hourly",
            *(["+ backups"] if backups else []),
        ]
        rows = [
            (
                instant(one.valid_from) + (" *" if one.announced else ""),
                instant(one.valid_to),
                _amount(one.base),
                _amount(one.markup),
                "unusable" if one.hourly_rate is None else _amount(one.hourly_rate),
                *([_amount(one.hourly_rate_with_backups)] if backups else []),
            )
            for one in versions[plan.plan_id]
        ]
        console.print(render.table(headings, rows, right=headings[2:]))
        console.print()
    if plans:
        console.print(f"Base and markup are per month of {hours_per_month} hours.")
    if any(one.announced for found in versions.values() for one in found):
        console.print("* announced: vps_plans shows it once it is in force.")


def show_version(plan: Plan, version: PriceVersion) -> None:
    """Write in words what was set."""
    base, markup = _amount(version.base), _amount(version.markup)
    until = (
        f"until {instant(version.valid_to)} UTC, when the next one begins" if version.valid_to else "for ever"
    )
    word = "Announced" if version.announced else "Set"
    console = render.stdout()
    console.print(render.printable(f"{word}: {plan.title} costs {base} + {markup} a month"))
    console.print(f"  from {instant(version.valid_from)} UTC {until};")
    console.print(f"  an hour that starts then costs {_amount(version.hourly_rate)}.")


def show_correction(
    correction: Correction, differences: Sequence[OrganizationDifference], currency: str
) -> None:
    """Write what a correction posts, the largest differences first, and what it cannot post."""
    console = render.stdout()
    old = " + ".join(_amount(part) for part in correction.old)
    new = f"{_amount(correction.new.base)} + {_amount(correction.new.markup)}"
    console.print(render.printable(f"Price of {correction.plan.title}: {new} instead of {old} a month"))
    begins = f"  for hours that start from {instant(correction.corrected_from)} UTC"
    if correction.version_until is None:
        console.print(f"{begins} on, now and later.")
    else:
        word = "begins" if correction.reaches_into_the_future else "began"
        console.print(f"{begins} until the next price")
        console.print(f"  {word} at {instant(correction.version_until)} UTC.")
    if correction.correction_id is not None:
        console.print(
            f"  Correction {correction.correction_id} was recorded before; this is what is missing."
        )
    console.print()
    if correction.correction_id is not None and not differences:
        console.print("Nothing is missing: all of it was posted.")
        return
    _show_billed(differences, currency)
    _show_past_due(differences, currency)
    _show_unposted(differences)


def _show_billed(differences: Sequence[OrganizationDifference], currency: str) -> None:
    console = render.stdout()
    billed = sorted((one for one in differences if one.instances), key=lambda one: -abs(one.difference))
    if not billed:
        console.print("No billed hour is affected: there is nothing to adjust.")
        return
    headings = ("Organization", "Instances", "Hours", "Old", "New", "Difference")
    rows = [_row(one.name, [one]) for one in billed[:LINES]]
    if len(billed) > LINES:
        rows.append(_row(f"{len(billed) - LINES} more", billed[LINES:]))
    if len(billed) > 1:
        rows.append(_row("Total", billed))
    console.print(render.table(headings, rows, right=headings[1:]))
    console.print(f"In {currency}; a positive difference is what the customer pays more.")


def _row(name: str, these: Sequence[OrganizationDifference]) -> tuple[str, ...]:
    return (
        name if len(name) <= 24 else f"{name[:23]}…",
        str(sum(one.instances for one in these)),
        hour_digits(sum((one.hours for one in these), _ZERO)),
        plain(sum((one.old_amount for one in these), _ZERO)),
        plain(sum((one.new_amount for one in these), _ZERO)),
        _signed(sum((one.difference for one in these), _ZERO)),
    )


def _show_past_due(differences: Sequence[OrganizationDifference], currency: str) -> None:
    past_due = [one for one in differences if one.past_due_instances]
    if past_due:
        hours = hour_digits(sum((one.past_due_hours for one in past_due), _ZERO))
        old = plain(sum((one.past_due_old_amount for one in past_due), _ZERO))
        new = plain(sum((one.past_due_new_amount for one in past_due), _ZERO))
        instances = sum(one.past_due_instances for one in past_due)
        console = render.stdout()
        console.print(f"\nPast due: {hours} hours of {counted(instances, 'instance')} are rated anew,")
        console.print(f"  {new} {currency} instead of {old}; no money moves.")


def _show_unposted(differences: Sequence[OrganizationDifference]) -> None:
    console = render.stdout()
    short = [one for one in differences if one.unposted_charges]
    for number, one in enumerate(sorted(short, key=lambda one: -one.unposted_amount)):
        if number == LINES:
            console.print(f"not posted: that of {counted(len(short) - LINES, 'organization')} more")
            break
        if number == 0:
            console.print()
        console.print(
            render.printable(f"not posted: {plain(one.unposted_amount)} of {one.name}: {one.why_unposted}")
        )


def show_posted(correction: Correction, adjustments: int, short: Sequence[OrganizationDifference]) -> None:
    """Write what was posted, and what to do about the rest."""
    console = render.stdout()
    many = "1 adjustment was" if adjustments == 1 else f"{adjustments} adjustments were"
    console.print(f"\nCorrection {correction.correction_id}: {many} posted.")
    _show_unposted(short)
    if short:
        console.print("Give the same command again after a top-up: it posts what is missing, nothing twice.")
