"""The output of `run --dry-run`."""

from __future__ import annotations

from dataclasses import replace

from rich.console import Console

from containerstacks_billing.charging.dry_run import dry_run
from containerstacks_billing.charging.forecast import (
    DryRunResult,
    Limits,
    OrganizationForecast,
    QuarantineEntry,
)
from containerstacks_billing.charging.model import Outcome
from containerstacks_billing.charging.run import RunOrder
from containerstacks_billing.cli import render
from containerstacks_billing.cli.progress import RunDisplay
from containerstacks_billing.cli.run_report import amounts, nothing_due
from containerstacks_billing.daemon.signals import interruptible
from containerstacks_billing.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED
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
        render.emit_json(as_document(found))
    else:
        show(render.stdout(), found, order.terms.currency, every=every)
    if found.outcome is Outcome.INTERRUPTED:
        return asked.exit_code or EXIT_INTERRUPTED
    return EXIT_DONE if found.outcome is Outcome.COMPLETED else EXIT_FAILED


def as_document(found: DryRunResult) -> dict[str, object]:
    """Return the keys of a run's document, and what only a dry run has."""
    last = found.last
    return {
        "runId": None,
        "dryRun": True,
        "outcome": found.outcome.value,
        "trigger": "manual",
        "asOf": found.as_of,
        "instancesBilled": found.instances_billed,
        "hours": found.hours,
        "amount": found.amount,
        "pastDueInstances": found.past_due_instances,
        "quarantinedInstances": found.quarantined_instances,
        "heldInstances": found.held_instances,
        "batches": found.batches,
        "durationSeconds": round(found.duration_seconds, 3),
        "errorMessage": found.error_message,
        "debited": found.debited,
        "changes": found.changes,
        "lastRun": last
        and {"runId": last.run_id, "instancesBilled": last.instances_billed, "amount": last.amount},
        "organizationsBilled": found.organizations_billed,
        "organizationsShort": found.organizations_short,
        "organizations": [_organization(one) for one in found.largest],
        "short": [_organization(one) for one in found.short],
        "setAside": [
            {
                "organizationId": one.organization,
                "instanceId": one.instance,
                "label": one.label,
                "reason": one.reason,
                "detail": one.detail,
            }
            for one in found.quarantine
        ],
    }


def _organization(one: OrganizationForecast) -> dict[str, object]:
    return {
        "organizationId": one.organization,
        "name": one.name,
        "instances": one.instances,
        "hours": one.hours,
        "amount": one.amount,
        "debit": one.debit,
        "balance": one.balance,
        "carry": one.carry,
        "owed": one.owed,
        "missing": one.missing,
    }


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
    _show_largest(console, found)
    _show_short(console, found, every=every)
    _show_quarantine(
        console, found.quarantine, found.quarantined_instances + found.held_instances, every=every
    )
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
    if found.last:
        facts.append(("Compared", _difference(found, found.last, currency)))
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


def _show_largest(console: Console, found: DryRunResult) -> None:
    if not found.largest:
        return
    headings = ("Organization", "Instances", "Hours", "Amount", "Debit", "Balance")
    rows = [
        (
            one.name or one.organization,
            f"{one.instances:,}",
            hour_digits(one.hours),
            one.amount,
            one.debit,
            one.balance,
        )
        for one in found.largest
    ]
    console.print()
    console.print(render.table(headings, rows, right=headings[1:]))
    hidden = found.organizations_billed - len(rows)
    if hidden:
        console.print(f"and {counted(hidden, 'organization')} more; --all lists every one")


def _show_short(console: Console, found: DryRunResult, *, every: bool) -> None:
    if not found.short:
        return
    shown = found.short if every else found.short[:_SHOWN_SHORT]
    headings = ("Would fall short", "Past due", "Balance", "Missing")
    rows = [(one.name or one.organization, one.owed, one.balance, one.missing) for one in shown]
    console.print()
    console.print(render.table(headings, rows, right=headings[1:]))
    hidden = found.organizations_short - len(rows)
    if hidden:
        console.print(f"and {counted(hidden, 'organization')} more; --all lists every one")


def _show_quarantine(
    console: Console, found: tuple[QuarantineEntry, ...], count: int, *, every: bool
) -> None:
    if not found:
        return
    shown = found if every else found[:_SHOWN_QUARANTINE]
    console.print()
    rows = [(one.label or one.instance, one.detail) for one in shown]
    console.print(render.table(("Quarantined or held", "Why"), rows))
    if count > len(rows):
        console.print(f"and {counted(count - len(rows), 'instance')} more; --all lists every one")
