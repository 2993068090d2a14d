"""The output of `run --dry-run`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rich.console import Console

from containerstacks_billing.charging.dry_run import dry_run
from containerstacks_billing.charging.forecast import (
    DryRunResult,
    Limits,
)
from containerstacks_billing.charging.model import Outcome
from containerstacks_billing.charging.run import RunOrder
from containerstacks_billing.charging.schemas import DryRun
from containerstacks_billing.cli import render
from containerstacks_billing.cli.progress import RunDisplay
from containerstacks_billing.cli.run_report import amounts, exit_code, nothing_due
from containerstacks_billing.daemon.signals import interruptible
from containerstacks_billing.money import display
from containerstacks_billing.status.model import RunRecord
from containerstacks_billing.text import counted, hour_digits, hours, moment

_SHOWN_SHORT = 20
_SHOWN_QUARANTINE = 10


def dry_run_and_show(order: RunOrder, *, every: bool, as_json: bool) -> int:
    """Make a dry run with a display, write its result, and return the exit code."""
    limits = Limits(None, None, None) if every else Limits()
    with (
        interruptible() as asked,
        RunDisplay(render.stderr(), order.terms.currency, asked.stopping, "Adding up") as shown,
    ):
        found = dry_run(replace(order, stopping=asked.stopping, progressed=shown.progressed), limits)
    if as_json:
        render.emit_json(DryRun.model_validate(found))
    else:
        show(render.stdout(), found, order.terms.currency, every=every)
    return exit_code(found.outcome, asked.exit_code)


def show(console: Console, found: DryRunResult, currency: str, *, every: bool) -> None:
    """Write what a run would do, for people."""
    console.print(_headline(found), style="bold")
    console.print(render.facts(_facts(found, currency)))
    if found.outcome is Outcome.HELD:
        console.print(f"\nA run would be held now: {render.printable(found.error_message)}.", style="yellow")
        console.print("The figures are what it would charge after containerstacks-billing release.")
    elif found.error_message:
        console.print(
            f"\nNot everything could be added up: {render.printable(found.error_message)}", style="red"
        )
    _show_lists(console, found, every=every)
    console.print("\nThis was a dry run: nothing was changed.")


def _headline(found: DryRunResult) -> str:
    if found.outcome is Outcome.INTERRUPTED:
        return f"Stopped after {counted(found.batches, 'batch')}; this is a part of what a run would do."
    if not found.instances_billed:
        why = nothing_due(
            found.billable_instances,
            found.past_due_instances,
            quarantined=found.quarantined_instances,
            held=found.held_instances,
        )
        return f"A run would charge nothing now: {why or 'all is already billed'}."
    return f"A run would charge {counted(found.instances_billed, 'instance')} for {hours(found.hours)}."


def _facts(found: DryRunResult, currency: str) -> list[tuple[str, str]]:
    facts = [("As of", moment(found.as_of))]
    if found.amount:
        facts.append(("Amount", amounts(found.amount, found.debited, currency)))
    if found.past_due_instances:
        facts.append(
            (
                "Past due",
                f"{counted(found.past_due_instances, 'instance')}; {_wallets(found.organizations_short)}",
            )
        )
    reasons = ", ".join(
        f"{reason} ({count:,})" for reason, count in found.reasons.items() if reason != "held"
    )
    if found.quarantined_instances:
        facts.append(("Quarantined", f"{counted(found.quarantined_instances, 'instance')}: {reasons}"))
    if found.held_instances:
        facts.append(("Held", counted(found.held_instances, "instance")))
    facts += [("Change", sentence) for sentence in found.changes]
    if found.last_run:
        facts.append(("Compared", _difference(found, found.last_run, currency)))
    return facts


def _wallets(count: int) -> str:
    return "1 wallet falls short" if count == 1 else f"{count:,} wallets fall short"


def _difference(found: DryRunResult, last: RunRecord, currency: str) -> str:
    instances = found.instances_billed - last.instances_billed
    amount = found.amount - last.amount
    if not (instances or amount):
        return f"the same as run {last.run_id}"
    more = "more" if amount >= 0 else "less"
    noun = "instance" if abs(instances) == 1 else "instances"
    return f"with run {last.run_id}: {instances:+,} {noun}, {display(abs(amount), currency)} {more}"


def _show_lists(console: Console, found: DryRunResult, *, every: bool) -> None:
    """Write the largest organizations, those that would fall short, and the instances that would not be billed."""
    _show(
        console,
        ("Organization", "Instances", "Hours", "Amount", "Debit", "Balance"),
        [
            (
                one.name or one.organization,
                f"{one.instances:,}",
                hour_digits(one.hours),
                one.amount,
                one.debit,
                one.balance,
            )
            for one in found.largest
        ],
        (found.organizations_billed, "organization"),
    )
    _show(
        console,
        ("Would fall short", "Past due", "Balance", "Missing"),
        [
            (one.name or one.organization, one.owed, one.balance, one.missing)
            for one in found.short[: None if every else _SHOWN_SHORT]
        ],
        (found.organizations_short, "organization"),
    )
    _show(
        console,
        ("Quarantined or held", "Why"),
        [
            (one.label or one.instance, one.detail)
            for one in found.quarantine[: None if every else _SHOWN_QUARANTINE]
        ],
        (found.quarantined_instances + found.held_instances, "instance"),
        right=(),
    )


def _show(
    console: Console,
    headings: Sequence[str],
    rows: Sequence[Sequence[object]],
    total: tuple[int, str],
    right: Sequence[str] | None = None,
) -> None:
    """Write a table, numbers on the right, and how many rows of the total it leaves out."""
    if not rows:
        return
    console.print()
    console.print(render.table(headings, rows, right=headings[1:] if right is None else right))
    hidden, noun = total[0] - len(rows), total[1]
    if hidden > 0:
        console.print(f"and {counted(hidden, noun)} more; --all lists every one")
