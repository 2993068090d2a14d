"""Reconciliation as values: open discrepancies with cause and remedies, and what a settlement did."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

from containerstacks_billing.verification.model import Discrepancy, Settled


class Action(StrEnum):
    """Accept the rows as they are, or restore what they should be."""

    ACCEPT = "accept"
    RESTORE = "restore"


# Checks whose discrepancies can be restored; every check can be accepted.
RESTORABLE = frozenset({"balances", "carries", "gaps", "past-due", "watermarks"})

# What an acceptance or a restoration of each check does, for people.
EFFECTS: dict[tuple[str, Action], str] = {
    ("balances", Action.ACCEPT): "moves the difference into the opening of the wallet",
    ("balances", Action.RESTORE): "changes the balance by the difference, never below zero",
    ("carries", Action.ACCEPT): "counts the difference as billed from now on",
    ("carries", Action.RESTORE): "sets the carry, where it stays below one cent",
    ("gaps", Action.ACCEPT): "leaves the hours uncharged for good",
    ("gaps", Action.RESTORE): "charges the hours with the next run, at the plan charged before them",
    ("past-due", Action.RESTORE): "marks or clears the wallet by what is owed",
    ("watermarks", Action.RESTORE): "moves the watermark to the end of what was charged or rated",
}


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the balance of a wallet and its ledger parted: the first entry that does not fit, and the likely cause."""

    entry_id: UUID | None
    since: datetime | None
    cause: str


@dataclass(frozen=True, slots=True)
class OpenItem:
    """One discrepancy that waits for a decision; `amount` is signed and exact, None where it is no amount of money."""

    discrepancy: Discrepancy
    amount: Decimal | None = None
    origin: Origin | None = None

    @property
    def check(self) -> str:
        """The check of `verify` that reports it."""
        return self.discrepancy.check

    def can(self, action: Action) -> bool:
        """Return whether an action is available for this item."""
        return action is Action.ACCEPT or self.check in RESTORABLE


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What waits for a decision as of an instant, how many more there are, and what was settled before."""

    read_at: datetime
    items: tuple[OpenItem, ...]
    more: int = 0
    settled: tuple[Settled, ...] = ()


class Answer(StrEnum):
    """What became of one item."""

    DONE = "done"
    ALREADY_RIGHT = "already right"
    NOT_RESTORABLE = "not restorable"
    WALLET_SHORT = "wallet short"
    CHANGED = "changed meanwhile: look again"
    NO_CARRY = "no carry below one cent"
    NO_NUMBER = "not a number: the host has to write one first"


@dataclass(frozen=True, slots=True)
class SettledItem:
    """An item and what an action did to it; a dry run says what it would do."""

    item: OpenItem
    answer: Answer
    amount: Decimal | None = None

    @property
    def is_open(self) -> bool:
        """Whether the item still waits for a decision."""
        return self.answer not in {Answer.DONE, Answer.ALREADY_RIGHT}
