"""A statement as CSV: one row for each line of both accounts, safe to open in a spreadsheet.

A cell of text that begins with = + - @ or a control character would be run as a formula by the spreadsheet that
opens it, so it gets an apostrophe in front. Cells of numbers are ours and stay numbers.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import TextIO

from containerstacks_billing.explain.statement_schema import Statement
from containerstacks_billing.money import plain

COLUMNS = (
    "month",
    "organizationId",
    "organization",
    "account",
    "kind",
    "instanceId",
    "label",
    "plan",
    "from",
    "until",
    "hours",
    "hourlyRate",
    "amount",
    "currency",
    "note",
)
_FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%", "＝", "＋", "－", "＠")
Row = dict[str, object]


def write_csv(statements: Iterable[Statement], file: TextIO) -> None:
    """Write statements below one heading; the file has to be opened with newline=""."""
    out = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\r\n")
    out.writeheader()
    for statement in statements:
        for row in rows_of(statement):
            out.writerow({name: cell(value) for name, value in row.items()})


def rows_of(statement: Statement) -> Iterator[Row]:
    """Yield the rows of a statement: cash, usage, what the host billed, and the reconciling block."""
    base: Row = {
        "month": statement.month,
        "organizationId": statement.organization_id,
        "organization": statement.organization,
        "currency": statement.currency,
    }
    if statement.opening is not None and statement.closing is not None:
        yield base | {"account": "cash", "kind": "opening balance", "amount": statement.opening}
        for entry in statement.entries:
            note = f"{entry.entries} {'entry' if entry.entries == 1 else 'entries'}"
            yield base | {"account": "cash", "kind": entry.kind, "amount": entry.amount, "note": note}
        yield base | {"account": "cash", "kind": "closing balance", "amount": statement.closing}
    yield from _usage(statement, base)
    if statement.reconciling is not None:
        for name, value in statement.reconciling.steps():
            yield base | {"account": "reconciling", "kind": name.replace("_", " "), "amount": value}


def _usage(statement: Statement, base: Row) -> Iterator[Row]:
    for line in statement.usage.lines:
        notes = [
            f"{plain(amount)} {text}"
            for amount, text in ((line.past_due, "past due"), (line.debited_later, "charged after the month"))
            if amount
        ]
        yield base | {
            "account": "usage",
            "kind": "hours",
            "instanceId": line.instance_id,
            "label": line.label,
            "plan": line.plan,
            "from": f"{line.first_at:%Y-%m-%dT%H:%M:%SZ}",
            "until": f"{line.last_at:%Y-%m-%dT%H:%M:%SZ}",
            "hours": line.hours,
            "hourlyRate": line.hourly_rate,
            "amount": line.amount,
            "note": "; ".join(notes),
        }
    for one in statement.usage.adjustments:
        yield base | {
            "account": "usage",
            "kind": one.kind,
            "instanceId": one.instance_id,
            "label": one.label,
            "from": f"{one.first_at:%Y-%m-%dT%H:%M:%SZ}",
            "until": f"{one.last_at:%Y-%m-%dT%H:%M:%SZ}",
            "hours": one.hours,
            "amount": one.amount,
            "note": one.reason,
        }
    for host in statement.usage.by_the_host:
        yield base | {
            "account": "by the host",
            "kind": "hours",
            "instanceId": host.instance_id,
            "label": host.label,
            "from": f"{host.first_at:%Y-%m-%dT%H:%M:%SZ}",
            "until": f"{host.last_at:%Y-%m-%dT%H:%M:%SZ}",
            "hours": host.hours,
            "amount": host.amount,
        }


def cell(value: object) -> str:
    """Write a number as it is and a text so that no spreadsheet takes it for a formula."""
    if value is None:
        return ""
    if isinstance(value, Decimal):
        return plain(value)
    text = "".join(character if character.isprintable() else " " for character in str(value))
    return f"'{text}" if text.lstrip().startswith(_FORMULAS) else text
