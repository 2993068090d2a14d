"""What comparing the books found, as values.

A discrepancy is one thing that should not be, with the identifiers to find it by. A check is one statement about the
books, how much was examined for it, and how many discrepancies there are: all of them are counted, a bounded number
shown. What the host application wrote beside us is counted separately and is never a discrepancy.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

SHOWN_PER_CHECK = 1000


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """One difference: the check that found it, a sentence, and whatever identifies the place, by kind of identifier.

    Kinds are organization_id, instance_id, wallet_id, charge_id, entry_id, run_id, plan_id, adjustment_id, failure_id,
    and the instants hours_from and hours_until.
    """

    check: str
    message: str
    identifiers: Mapping[str, str | int]

    @property
    def fingerprint(self) -> str:
        """SHA-256 over check, message and identifiers: it changes as soon as the facts of the discrepancy do."""
        facts = json.dumps([self.check, self.message, dict(self.identifiers)], sort_keys=True)
        return hashlib.sha256(facts.encode()).hexdigest()

    def __str__(self) -> str:
        """Return the one line that a person reads, and may search for."""
        places = (f"{kind.removesuffix('_id')} {value}" for kind, value in self.identifiers.items())
        return (
            f"{self.check}: {self.message} ({', '.join(places)})"
            if self.identifiers
            else f"{self.check}: {self.message}"
        )


@dataclass(frozen=True, slots=True)
class Check:
    """One statement about the books, how many of what were examined for it, and how many discrepancies were found."""

    name: str
    description: str
    examined: int
    unit: str
    found: int
    shown: int
    hint: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the statement holds."""
        return self.found == 0

    @property
    def remedy(self) -> str | None:
        """What to do about its discrepancies; None where it holds."""
        if self.ok:
            return None
        settle = f"containerstacks-billing reconcile --check {self.name}"
        return self.hint or f"Causes and the way back to right books: {settle}"


@dataclass(frozen=True, slots=True)
class HostRows:
    """What the host application billed by itself.

    `cycles` are its billed rows; `doubled` start where another of the same instance starts, `overlapped` begin
    inside one. Since our first run: `charged_by_both` are those over hours that we charged too, `hours_charged_by_both`
    and `amount_charged_by_both` what the host took in them, `unkeyed_debits` hourly debits without a key of ours.
    """

    cycles: int
    doubled: int
    overlapped: int
    charged_by_both: int
    hours_charged_by_both: Decimal
    amount_charged_by_both: Decimal
    unkeyed_debits: int


@dataclass(frozen=True, slots=True)
class OpenItems:
    """What is as it should be and still worth knowing.

    `unposted_adjustments` are charges, of all organizations, that a price correction changes once wallets can bear it.
    `hours_passed_by_host` are those over which the host moved a watermark and that it did not bill itself: paid to it
    in another way, or waived by it. `amount_passed_by_host` is what they cost at the prices of then.
    `charges_without_organization` belong to deleted organizations: their wallets are gone, so sums cannot be compared.
    """

    quarantined_instances: int
    held_instances: int
    past_due_instances: int
    past_due_amount: Decimal
    unposted_adjustments: int
    unsettled_segments: int
    charges_without_organization: int
    hours_passed_by_host: Decimal = Decimal(0)
    amount_passed_by_host: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class Settled:
    """Discrepancies of one check that were accepted or restored; `amount` is the sum of their absolute amounts."""

    check: str
    decision: str
    decisions: int
    amount: Decimal
    decided_by: str
    decided_at: datetime


@dataclass(frozen=True, slots=True)
class Verification:
    """The books, compared as they stood at one instant."""

    read_at: datetime
    checks: tuple[Check, ...]
    discrepancies: tuple[Discrepancy, ...]
    host: HostRows
    open_items: OpenItems
    settled: tuple[Settled, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every check holds."""
        return all(check.ok for check in self.checks)

    @property
    def found(self) -> int:
        """How many discrepancies there are, shown or not."""
        return sum(check.found for check in self.checks)
