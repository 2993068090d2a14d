"""Statements of account for a terminal: both accounts, and what connects them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING

from containerstacks_billing.cli import render
from containerstacks_billing.money import plain

if TYPE_CHECKING:
    from rich.console import Console

    from containerstacks_billing.explain.statement_schema import Statement

_RIGHT = ("Hours", "Rate", "Amount", "Entries")


def show_statement(console: Console, statement: Statement) -> None:
    """Write a statement."""
    console.print(f"Statement of account, {statement.month}", style="bold")
    console.print(render.facts(_facts(statement)))
    if statement.opening is not None and statement.closing is not None:
        console.print()
        rows: list[tuple[object, ...]] = [("opening balance", None, statement.opening)]
        rows += [(one.kind, one.entries, one.amount) for one in statement.entries]
        rows += [("closing balance", None, statement.closing)]
        console.print(render.table(("Cash", "Entries", "Amount"), rows, right=_RIGHT))
    _show_usage(console, statement)
    if statement.reconciling is not None:
        console.print()
        steps = [(name.replace("_", " "), amount) for name, amount in statement.reconciling.steps()]
        console.print(render.table(("From usage to debits", "Amount"), steps, right=_RIGHT))


def _facts(statement: Statement) -> Iterator[tuple[str, str]]:
    name = statement.organization or "deleted, its charges are left"
    yield "customer", f"{name} {statement.organization_id}"
    yield "month", f"{statement.starts_at:%Y-%m-%d %H:%M} to {statement.ends_at:%Y-%m-%d %H:%M} UTC"
    if statement.timezone != "UTC":
        yield "time zone", statement.timezone
    if statement.number is not None:
        yield "number", f"{statement.number}, issued {statement.issued_at:%Y-%m-%d %H:%M} UTC"
        yield "SHA-256", str(statement.sha256)
    else:
        yield "number", "none: a preview" + ("" if statement.complete else ", and the month is not complete")


def _show_usage(console: Console, statement: Statement) -> None:
    usage = statement.usage
    console.print()
    rows: list[tuple[object, ...]] = [
        (
            line.label or line.instance_id,
            line.plan,
            _hours(line.hours),
            line.hourly_rate,
            line.amount,
            _marks(line.past_due, line.debited_later),
        )
        for line in usage.lines
    ]
    rows += [
        (
            one.label or one.instance_id or "-",
            one.kind,
            _hours(one.hours),
            None,
            one.amount,
            ", ".join(one.months),
        )
        for one in usage.adjustments
    ]
    rows += [("sum", None, _hours(usage.hours), None, usage.amount, None)]
    rows += [
        (one.label or one.instance_id, "by the host", _hours(one.hours), None, one.amount, "not in the sum")
        for one in usage.by_the_host
    ]
    console.print(render.table(("Usage", "Plan", "Hours", "Rate", "Amount", "Of it"), rows, right=_RIGHT))


def _marks(past_due: Decimal, debited_later: Decimal) -> str | None:
    marks = [
        f"{plain(amount)} {text}"
        for amount, text in ((past_due, "past due"), (debited_later, "charged after the month"))
        if amount
    ]
    return ", ".join(marks) or None


def _hours(hours: Decimal) -> str:
    return f"{hours.normalize():f}"


@dataclass(slots=True)
class Totals:
    """The sums over the statements of all organizations, which are those of the ledger."""

    month: str
    timezone: str
    currency: str
    statements: int = 0
    empty: int = 0
    issued: int = 0
    not_issued: Counter[str] = field(default_factory=Counter)
    changed: int = 0
    opening: Decimal = Decimal(0)
    closing: Decimal = Decimal(0)
    usage: Decimal = Decimal(0)
    entries: dict[str, Decimal] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)

    def add(self, statement: Statement) -> None:
        """Count a statement."""
        self.statements += 1
        self.changed += bool(statement.changes)
        self.opening += statement.opening or Decimal(0)
        self.closing += statement.closing or Decimal(0)
        self.usage += statement.usage.amount
        for entry in statement.entries:
            self.entries[entry.kind] = self.entries.get(entry.kind, Decimal(0)) + entry.amount
        if statement.findings and len(self.findings) < 100:
            self.findings.append(f"{statement.organization_id}: {statement.findings[0]}")

    def as_document(self) -> dict[str, object]:
        """Return the sums as a document."""
        return {
            "month": self.month,
            "timezone": self.timezone,
            "currency": self.currency,
            "statements": self.statements,
            "empty": self.empty,
            "issued": self.issued,
            "notIssued": dict(self.not_issued),
            "changed": self.changed,
            "opening": self.opening,
            "entries": [{"kind": kind, "amount": amount} for kind, amount in sorted(self.entries.items())],
            "closing": self.closing,
            "usage": self.usage,
            "findings": self.findings,
        }

    def show(self, console: Console) -> None:
        """Write the sums."""
        console.print(f"{self.statements:,} statements of {self.month}; {self.empty:,} customers had none.")
        rows: list[tuple[object, ...]] = [("opening balances", self.opening)]
        rows += sorted(self.entries.items())
        rows += [("closing balances", self.closing), ("usage", self.usage)]
        console.print(render.table(("Sum", "Amount"), rows, right=_RIGHT))
        if self.issued:
            console.print(f"Issued now: {self.issued:,}.")
        for reason, number in self.not_issued.most_common():
            console.print(f"Not issued, {number:,}: {reason}.")
        if self.changed:
            console.print(f"{self.changed:,} were issued before, and the books say otherwise since.")
