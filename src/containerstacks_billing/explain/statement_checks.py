"""The arithmetic of a statement: both accounts close, and the block between them explains their difference exactly."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from containerstacks_billing.explain.statement_schema import Statement, content
from containerstacks_billing.money import plain

ZERO = Decimal(0)


def findings(statement: Statement) -> list[str]:
    """Return what does not add up in a statement by itself, in sentences; nothing where it closes to the last digit."""
    return [*_cash(statement), *_usage(statement), *_reconciling(statement)]


def _cash(statement: Statement) -> Iterator[str]:
    if statement.opening is None or statement.closing is None:
        return
    moved = sum((one.amount for one in statement.entries), ZERO)
    if statement.opening + moved != statement.closing:
        yield (
            f"The opening {plain(statement.opening)} and the entries {plain(moved)} make"
            f" {plain(statement.opening + moved)}, but the closing balance is {plain(statement.closing)}."
        )


def _usage(statement: Statement) -> Iterator[str]:
    usage = statement.usage
    for line in usage.lines:
        expected = line.whole_hours * line.hourly_rate + line.part_amount
        if line.amount != expected:
            yield (
                f"{line.whole_hours} hours of {line.label or line.instance_id} at {plain(line.hourly_rate)} and"
                f" {plain(line.part_amount)} for begun ones make {plain(expected)}, but the line says"
                f" {plain(line.amount)}."
            )
    sums = (
        ("charges", usage.charges, sum((line.amount for line in usage.lines), ZERO)),
        ("adjustments", usage.adjusted, sum((one.amount for one in usage.adjustments), ZERO)),
        ("amount", usage.amount, usage.charges + usage.adjusted),
    )
    for name, said, expected in sums:
        if said != expected:
            yield f"The usage account says {plain(said)} for its {name}, but they come to {plain(expected)}."


def _reconciling(statement: Statement) -> Iterator[str]:
    block = statement.reconciling
    if block is None:
        return
    explained_by = {
        "usage": (block.usage, statement.usage.amount),
        "debited later": (
            block.debited_later,
            sum((one.debited_later for one in statement.usage.lines), ZERO),
        ),
        "past due": (block.past_due, sum((one.past_due for one in statement.usage.lines), ZERO)),
    }
    for name, (said, expected) in explained_by.items():
        if said != expected:
            yield f"The reconciling block says {plain(said)} for {name}, but the lines come to {plain(expected)}."
    expected = (
        block.usage
        - block.debited_later
        - block.past_due
        - block.debited_earlier
        + block.for_earlier_months
        + block.past_due_collected
        + block.ahead_of_month
        + block.carry_in
        - block.carry_out
    )
    if block.debits != expected or block.difference:
        yield (
            f"The usage account explains debits of {plain(expected)}, but {plain(block.debits)} were debited:"
            f" {plain(abs(block.debits - expected))} differ."
        )
    own = ("billing", "correction", "reversal", "credit", "audit", "other billing")
    entries = -sum((one.amount for one in statement.entries if one.kind in own), ZERO)
    if block.debits - block.debits_in_other_currencies != entries:
        yield (
            f"The reconciling block says debits of {plain(block.debits - block.debits_in_other_currencies)}, but the"
            f" ledger entries come to {plain(entries)}."
        )


def changes(before: Statement, now: Statement) -> list[str]:
    """Return what differs between two statements of one month, in sentences; nothing where they are equal."""
    return list(_differences("", content(before), content(now)))


def _differences(place: str, before: object, now: object) -> Iterator[str]:
    if before == now:
        return
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*before, *(key for key in now if key not in before)]:
            yield from _differences(f"{place}.{key}".lstrip("."), before.get(key), now.get(key))
    elif isinstance(before, list) and isinstance(now, list):
        yield from _differences(place, _keyed(before), _keyed(now))
    else:
        yield f"{place}: it was {_shown(before)}, and is {_shown(now)}."


def _keyed(rows: list[object]) -> dict[str, object]:
    """Return rows by what names them, so that a line that is new does not make all later ones differ."""
    keyed: dict[str, object] = {}
    for number, row in enumerate(rows):
        name = str(number)
        if isinstance(row, dict):
            parts = [
                str(row[key])
                for key in ("kind", "label", "instanceId", "hourlyRate", "planId", "correctionId", "postedAt")
                if row.get(key) is not None
            ]
            name = " ".join(parts) or name
        keyed[name if name not in keyed else f"{name} #{number}"] = row
    return keyed


def _shown(value: object) -> str:
    if value is None:
        return "not there"
    if isinstance(value, dict):
        return f"there with {value.get('amount', 'no amount')}"
    return str(value)
