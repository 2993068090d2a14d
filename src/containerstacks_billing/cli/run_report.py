"""Report of a finished run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from rich.console import Console

from containerstacks_billing.charging.model import Outcome, RunResult
from containerstacks_billing.cli.render import facts, printable
from containerstacks_billing.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED
from containerstacks_billing.money import display, plain
from containerstacks_billing.text import counted, hours, moment


@dataclass(frozen=True, slots=True)
class Finished:
    """A run's result with its holder, the debited amount, and quarantined instances by reason.

    `billable` is the number of billable instances, counted up to one more than are past due, quarantined or held.
    """

    result: RunResult
    holder: str
    currency: str
    debited: Decimal = Decimal(0)
    reasons: Mapping[str, int] = field(default_factory=dict)
    billable: int = 0


def exit_code(outcome: Outcome, asked: int | None) -> int:
    """Return the exit code of a run; `asked` is that of the signal, if there was one."""
    if outcome is Outcome.COMPLETED:
        return EXIT_DONE
    if outcome is Outcome.INTERRUPTED:
        return asked or EXIT_INTERRUPTED
    return EXIT_FAILED


def show(console: Console, finished: Finished) -> None:
    """Write what a run did."""
    result = finished.result
    console.print(headline(finished), style=_STYLES[result.outcome])
    console.print(facts(_facts(finished)))
    for line in _advice(result):
        console.print(line)


_STYLES = {
    Outcome.COMPLETED: "bold",
    Outcome.INTERRUPTED: "yellow",
    Outcome.FAILED: "red",
    Outcome.HELD: "yellow",
}


def headline(finished: Finished) -> str:
    """Return the one sentence that says how the run ended."""
    result = finished.result
    charged = f"{counted(result.instances_billed, 'instance')} charged for {hours(result.hours)}"
    reason = printable((result.error_message or "the reason is not recorded").rstrip("."))
    match result.outcome:
        case Outcome.COMPLETED if result.instances_billed:
            return f"Run {result.run_id} completed: {charged}."
        case Outcome.COMPLETED:
            why = nothing_due(
                finished.billable,
                result.past_due_instances,
                quarantined=result.quarantined_instances,
                held=result.held_instances,
            )
            return f"Run {result.run_id} completed: 0 charged{f'; {why}' if why else ', all already billed'}."
        case Outcome.INTERRUPTED:
            return f"Run {result.run_id} stopped after the batches under way: {charged}."
        case Outcome.HELD:
            return f"Run {result.run_id} is held and charged nothing: {reason}."
        case _:
            return f"Run {result.run_id} failed: {reason}."


def nothing_due(billable: int, past_due: int, *, quarantined: int, held: int) -> str | None:
    """Return why nothing was charged; None where everything is billed already.

    An instance may be both past due and held, so the counts may add up to more than there are: then None is returned
    rather than a sentence that may be false.
    """
    aside = quarantined + held
    if billable > past_due + aside:
        return None
    parts = []
    if past_due:
        parts.append(f"{counted(past_due, 'instance')} {'is' if past_due == 1 else 'are'} past due")
    if aside:
        what = " or ".join([*(["a decision"] if held else []), *(["a repair"] if quarantined else [])])
        parts.append(f"{counted(aside, 'instance')} {'waits' if aside == 1 else 'wait'} for {what}")
    return ", ".join(parts) or "there is no instance to bill"


def _facts(finished: Finished) -> list[tuple[str, str]]:
    result = finished.result
    found = [
        ("Started by", f"{_triggers(result.trigger)} on {finished.holder}"),
        ("As of", moment(result.as_of)),
    ]
    if result.outcome is Outcome.FAILED:
        found.append(("Charged", f"{counted(result.instances_billed, 'instance')} for {hours(result.hours)}"))
    if result.amount:
        found.append(("Amount", amounts(result.amount, finished.debited, finished.currency)))
    if result.past_due_instances:
        found.append(
            ("Past due", f"{counted(result.past_due_instances, 'instance')}, which stay due until a top-up")
        )
    if result.quarantined_instances:
        reasons = ", ".join(
            f"{reason} ({count:,})" for reason, count in finished.reasons.items() if reason != "held"
        )
        found.append(("Quarantined", f"{counted(result.quarantined_instances, 'instance')}: {reasons}"))
    if result.held_instances:
        found.append(
            (
                "Held",
                f"{counted(result.held_instances, 'instance')}, decide with containerstacks-billing release",
            )
        )
    found.append(("Took", f"{result.duration_seconds:.1f} s, {counted(result.batches, 'batch')}"))
    return found


def _advice(result: RunResult) -> list[str]:
    match result.outcome:
        case Outcome.INTERRUPTED:
            return ["Nothing is half charged; the next run charges the rest."]
        case Outcome.FAILED:
            return ["Nothing is half charged; the next run tries the rest again."]
        case Outcome.HELD:
            return [
                "Look first:  containerstacks-billing run --dry-run",
                "Then decide: containerstacks-billing release",
            ]
        case _:
            return []


def amounts(exact: Decimal, debited: Decimal, currency: str) -> str:
    """Say an exact amount and what became of it: debited in whole cents, the rest carried by the wallets."""
    carried = exact - debited
    if carried > 0:
        rest = f", {plain(carried)} carried on"
    elif carried < 0:
        rest = f", {plain(-carried)} of it carried from before"
    else:
        rest = ""
    return f"{display(exact, currency)} exactly: {plain(debited)} debited{rest}"


def _triggers(trigger: str) -> str:
    return {"manual": "hand", "up": "up"}.get(trigger, trigger)
