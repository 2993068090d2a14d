"""Report of a decision about held hours."""

from __future__ import annotations

from decimal import Decimal

from containerstacks_billing.cli import render
from containerstacks_billing.holds.model import HELD, HeldHours, ReleaseDecision, ReleaseResult
from containerstacks_billing.money import display
from containerstacks_billing.text import counted, hour_digits

_MOST_SHOWN = 50


def show(released: ReleaseResult, currency: str, order: ReleaseDecision) -> None:
    """Write what becomes of which instance; first those that `quarantine` shows under another reason, or not at all."""
    console = render.stdout()
    if not released.instances:
        nothing = "No such hour was passed over" if order.passed_over else "No such instance is held"
        console.print(f"{nothing}; there is nothing to decide.")
        return
    for one in sorted(released.listed, key=lambda one: one.quarantine_reason == HELD)[:_MOST_SHOWN]:
        _show_one(one, currency)
    if released.instances > _MOST_SHOWN:
        console.print(f"and {counted(released.instances - _MOST_SHOWN, 'instance')} more")
    console.print(f"\n{counted(released.instances, 'instance')}")
    approved = display(released.amount_approved, currency)
    waived = display(released.amount_waived, currency)
    console.print(f"To charge: {hour_digits(released.hours_approved, 4)} hours, {approved}")
    console.print(f"Waived:    {hour_digits(released.hours_waived, 4)} hours, {waived}")
    if released.unpriced_instances:
        verb = "has" if released.unpriced_instances == 1 else "have"
        console.print(f"{released.unpriced_instances:,} of them {verb} no usable price at present.")
    if others := sum(released.other_reasons.values()):
        reasons = ", ".join(f"{reason} ({count:,})" for reason, count in released.other_reasons.items())
        verb = "is" if others == 1 else "are"
        console.print(f"{others:,} of them {verb} not listed as held: {reasons}.")


def _show_one(one: HeldHours, currency: str) -> None:
    console = render.stdout()
    approved = _worth(one.hours_approved, one.amount_approved, currency)
    waived = _worth(one.hours_waived, one.amount_waived, currency)
    console.print(f"{one.instance}  {render.printable(one.label or '')[:40]}")
    console.print(f"  charge {approved}; waive {waived}")
    if one.quarantine_reason != HELD:
        console.print(f"  not listed as held: {one.other_reason}")


def _worth(hours: Decimal, amount: Decimal | None, currency: str) -> str:
    money = "no price" if amount is None else display(amount, currency)
    return f"{hour_digits(hours, 4)} h ({money})"


def conclude(released: ReleaseResult, order: ReleaseDecision) -> None:
    """Say whether it was decided, and what comes next."""
    console = render.stdout()
    if not released.instances:
        return
    if order.dry_run:
        console.print("Nothing was changed.")
    elif released.hours_approved:
        console.print(
            "Decided. The next run charges what was approved; containerstacks-billing run starts one now.",
            soft_wrap=True,
        )
    else:
        console.print("Decided.")
