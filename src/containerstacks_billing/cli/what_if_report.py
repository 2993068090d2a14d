"""The output of what-if: what another price would do, and which instances a run and a dry run charge."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from containerstacks_billing.cli import render
from containerstacks_billing.money import display, plain
from containerstacks_billing.text import counted, moment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from containerstacks_billing.charging.dry_run_diff import ChargeDifference, InstanceDifference
    from containerstacks_billing.pricing.what_if import OrganizationWhatIf, WhatIf

_SHOWN = 20
_NUMBERS = ("A month now", "Then", "Difference", "Runway now", "Runway then")


def show_what_if(console: Console, found: WhatIf, *, every: bool = False) -> None:
    """Write a month and a runway of each organization that the change touches, and the sums."""
    if found.begins_at > found.as_of:
        console.print(f"From {moment(found.begins_at)}, beside what is announced for then:")
    changed = found.changed
    shown = changed if every else changed[:_SHOWN]
    if shown:
        console.print(
            render.table(("Organization", *_NUMBERS, "Short"), [_row(one) for one in shown], right=_NUMBERS)
        )
    if len(changed) > len(shown):
        console.print(
            f"and {counted(len(changed) - len(shown), 'organization')} more; --json lists every one"
        )
    difference = found.monthly_then - found.monthly_now
    sign = "+" if difference >= 0 else "-"
    console.print(
        f"A month: {display(found.monthly_now, found.currency)} now, {display(found.monthly_then, found.currency)} then"
        f" ({sign}{plain(abs(difference))}), of {counted(len(found.organizations), 'organization')};"
        f" {counted(len(changed), 'organization')} would notice.",
        soft_wrap=True,
    )
    falling = counted(len(found.newly_short), "wallet")
    console.print(f"Empty within 72 hours of it, and not without it: {falling}.", soft_wrap=True)


def _row(one: OrganizationWhatIf) -> tuple[object, ...]:
    short = (
        ("now and then" if one.short_now else "then") if one.short_then else ("now" if one.short_now else "")
    )
    return (
        render.shortened(one.organization or str(one.organization_id)),
        one.monthly_now,
        one.monthly_then,
        one.difference,
        _runway(one.runway_now),
        _runway(one.runway_then),
        short,
    )


def _runway(hours: Decimal | None) -> str:
    if hours is None:
        return "no end"
    return f"{hours:,.0f} h" if hours < 1000 else f"{hours / 24:,.0f} d"


def show_charge_difference(console: Console, found: ChargeDifference, *, every: bool = False) -> None:
    """Write which instances the run charged and this would not, and the other way round."""
    console.print(
        f"Run {found.run_id} charged {counted(found.charged_by_run, 'instance')}, this would charge"
        f" {counted(found.charged_now, 'instance')}. Of those of the run {found.not_due_yet:,} have no whole hour"
        " due yet.",
        soft_wrap=True,
    )
    _show(
        console, f"Charged by run {found.run_id} and not now", found.no_longer, found.not_charged_now, every
    )
    _show(console, f"Charged now and not by run {found.run_id}", found.newly, found.newly_charged, every)


def _show(
    console: Console, title: str, listed: Sequence[InstanceDifference], total: int, every: bool
) -> None:
    shown = listed if every else listed[:_SHOWN]
    if not shown:
        return
    console.print()
    rows = [
        (one.label or one.instance_id, render.shortened(one.organization or "-"), one.reason) for one in shown
    ]
    console.print(render.table((title, "Organization", "Why"), rows))
    if total > len(shown):
        console.print(f"and {counted(total - len(shown), 'instance')} more")
