"""Charges, prices and ledger entries as an explanation shows them, and the arithmetic that has to connect them.

Nothing here reads a database or a clock. What does not add up is returned as sentences, never raised: an explanation of
damaged books has to show the damage.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal
from uuid import UUID

from containerstacks_billing.money import floor_to_cent, plain

EIGHT_DIGITS = Decimal("0.00000001")
HOUR = timedelta(hours=1)
_MICROSECOND = timedelta(microseconds=1)
_HOUR_MICROSECONDS = 3_600_000_000
_EXACT = Context(prec=60, rounding=ROUND_HALF_UP)
ZERO = Decimal(0)


def amount_of(rate: Decimal, starts_at: datetime, ends_at: datetime) -> Decimal:
    """Return what [starts_at, ends_at) costs at an hourly rate, rounded once, half up, to eight digits."""
    microseconds = Decimal((ends_at - starts_at) // _MICROSECOND)
    exact = _EXACT.divide(_EXACT.multiply(rate, microseconds), Decimal(_HOUR_MICROSECONDS))
    return exact.quantize(EIGHT_DIGITS, context=_EXACT)


def hours_of(starts_at: datetime, ends_at: datetime) -> Decimal:
    """Return the length of [starts_at, ends_at) in hours, rounded to six digits."""
    return hours_from_seconds(Decimal((ends_at - starts_at) // _MICROSECOND) / 1_000_000)


def hours_from_seconds(seconds: Decimal) -> Decimal:
    """Return seconds in hours, rounded to six digits."""
    return _EXACT.divide(seconds, Decimal(3600)).quantize(Decimal("0.000001"), context=_EXACT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a plan cost per month from when until when; None is unbounded. `corrected_at`: a correction replaced it."""

    plan_id: UUID
    valid_from: datetime | None
    valid_until: datetime | None
    monthly: Decimal
    base: Decimal | None
    markup: Decimal | None
    backup_hourly: Decimal
    recorded_at: datetime | None
    recorded_by: str | None
    reason: str | None
    corrected_at: datetime | None

    def hourly(self, hours_per_month: int, backups: bool) -> Decimal | None:
        """Return the hourly rate, eight digits; None where the price is no number."""
        if not self.monthly.is_finite() or not self.backup_hourly.is_finite():
            return None
        exact = _EXACT.divide(self.monthly, Decimal(hours_per_month))
        return _EXACT.add(exact, self.backup_hourly if backups else ZERO).quantize(
            EIGHT_DIGITS, context=_EXACT
        )

    def holds_at(self, at: datetime) -> bool:
        """Whether an hour that starts at this instant is rated at this price."""
        return (self.valid_from is None or self.valid_from <= at) and (
            self.valid_until is None or at < self.valid_until
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Derivation:
    """How an hourly rate follows from a price: monthly / hours_per_month, plus backups; and the price of before."""

    price: Price
    hours_per_month: int
    backups: bool
    before: Price | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjustment:
    """What a correction or an order changed about hours of a charge; a positive amount: the customer pays more.

    The repayment of an audit names neither charge nor hours.
    """

    adjustment_id: int
    kind: str
    is_undo: bool
    correction_id: int | None
    order_id: int | None
    charge_id: UUID | None
    instance_id: UUID | None
    starts_at: datetime | None
    ends_at: datetime | None
    old_rate: Decimal | None
    new_rate: Decimal | None
    amount: Decimal
    entry_id: UUID | None
    posted_at: datetime
    decided_by: str
    reason: str | None

    @property
    def source(self) -> str:
        """Return what made it, as `reversal 3` or `undo of a credit, 5`."""
        number = self.order_id if self.order_id is not None else self.correction_id
        return f"undo of a {self.kind}, {number}" if self.is_undo else f"{self.kind} {number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """A charge with its run, its usage segment, the derivation of its rate and its adjustments."""

    charge_id: UUID
    organization_id: UUID
    instance_id: UUID
    label: str | None
    plan_id: UUID | None
    plan_name: str | None
    starts_at: datetime
    ends_at: datetime
    hourly_rate: Decimal
    amount: Decimal
    status: str
    set_by: int | None
    entry_id: UUID | None
    past_due_since: datetime | None
    charged_at: datetime | None
    run_id: int | None
    as_of: datetime | None
    trigger: str | None
    holder: str | None
    fencing_token: int | None
    hours_per_month: int | None
    segment_id: int | None
    segment_status: str | None
    segment_reason: str | None
    backups: bool | None
    closed_at: datetime | None
    derivations: tuple[Derivation, ...] = ()
    adjustments: tuple[Adjustment, ...] = ()

    @property
    def by_host(self) -> bool:
        """Whether the host application wrote it, and not a run."""
        return self.run_id is None

    @property
    def hours(self) -> Decimal:
        """Return its hours, rounded to six digits."""
        return hours_of(self.starts_at, self.ends_at)

    @property
    def stands_at(self) -> Decimal:
        """Return what the customer owes for it after all adjustments."""
        return self.amount + sum((one.amount for one in self.adjustments), ZERO)

    @property
    def paid_late_at(self) -> datetime | None:
        """Return when it was paid, if it was past due before."""
        return self.as_of if self.past_due_since is not None and self.status == "billed" else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A ledger entry; `reference` says which run or correction posted it, anything else is the host's."""

    entry_id: UUID
    organization_id: UUID
    organization: str | None
    amount: Decimal
    currency: str | None
    status: str | None
    payment_method: str
    reference: str | None
    description: str | None
    posted_at: datetime | None
    carry_before: Decimal | None
    balance_before: Decimal | None
    balance_after: Decimal | None

    @property
    def is_own(self) -> bool:
        """Whether billing posted it, and not the host application."""
        return (self.reference or "").startswith("billing-")

    @property
    def run_id(self) -> int | None:
        """Return the run that posted it."""
        number = (self.reference or "").removeprefix("billing-run-")
        return int(number) if number.isdecimal() and len(number) < 19 else None

    @property
    def id_range(self) -> tuple[UUID, UUID]:
        """Return the first and the last identifier that a row of the same batch can have."""
        first = self.entry_id.int >> 64 << 64
        return UUID(int=first), UUID(int=first | (1 << 64) - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryExplanation:
    """A ledger entry with the charges and adjustments that it moves money for."""

    entry: Entry
    charges: tuple[Charge, ...]
    adjustments: tuple[Adjustment, ...]

    @property
    def exact(self) -> Decimal:
        """Return the exact sum of its charges and adjustments."""
        charged = sum((charge.amount for charge in self.charges), ZERO)
        return charged + sum((adjustment.amount for adjustment in self.adjustments), ZERO)

    @property
    def due(self) -> Decimal:
        """Return the carry of before and the exact sum: what whole cents are taken from."""
        return (self.entry.carry_before or ZERO) + self.exact

    @property
    def carry_after(self) -> Decimal:
        """Return what is carried on: below a cent if the entry is right."""
        return self.due + self.entry.amount

    @property
    def difference(self) -> Decimal:
        """Return by how much the entry debits more than its charges come to; 0 if it adds up."""
        if self.entry.carry_before is None and abs(self.carry_after) < Decimal("0.01"):
            return ZERO
        return -self.entry.amount - floor_to_cent(self.due)

    def findings(self) -> list[str]:
        """Return what does not add up, in sentences; nothing for the host's entries, which name no charges."""
        if not self.entry.is_own:
            return []
        found = [finding for charge in self.charges for finding in charge_findings(charge)]
        found += adjustment_findings(self.adjustments)
        if self.difference:
            found.append(
                f"The entry debits {plain(-self.entry.amount)}, but {plain(self.entry.carry_before or ZERO)} carried"
                f" and {plain(self.exact)} charged make {plain(floor_to_cent(self.due))}:"
                f" {plain(abs(self.difference))} too {'much' if self.difference > 0 else 'little'}."
            )
        before, after = self.entry.balance_before, self.entry.balance_after
        if before is not None and after is not None and after != before + self.entry.amount:
            found.append(
                f"The balance went from {plain(before)} to {plain(after)}, which is not"
                f" {plain(self.entry.amount)} away: {plain(abs(after - before - self.entry.amount))} differ."
            )
        return found


def charge_findings(charge: Charge) -> list[str]:
    """Return what does not add up about one charge of ours, in sentences."""
    if charge.by_host:
        return []
    found = []
    if not charge.starts_at < charge.ends_at:
        return [f"The charge {charge.charge_id} ends before it starts."]
    expected = amount_of(charge.hourly_rate, charge.starts_at, charge.ends_at)
    if expected != charge.amount:
        found.append(
            f"The charge {charge.charge_id} says {plain(charge.amount)}, but its hours at its rate come to"
            f" {plain(expected)}: {plain(abs(charge.amount - expected))} differ."
        )
    if not charge.derivations and charge.set_by is None:
        found.append(
            f"No recorded price of its plan leads to the hourly rate {plain(charge.hourly_rate)} of the charge"
            f" {charge.charge_id}."
        )
    return found + adjustment_findings(charge.adjustments)


def adjustment_findings(adjustments: Iterable[Adjustment]) -> list[str]:
    """Return the adjustments that are not the difference of their two rates, in sentences."""
    found = []
    for one in adjustments:
        if one.starts_at is None or one.ends_at is None or one.old_rate is None or one.new_rate is None:
            continue
        expected = amount_of(one.new_rate, one.starts_at, one.ends_at) - amount_of(
            one.old_rate, one.starts_at, one.ends_at
        )
        if expected != one.amount:
            found.append(
                f"The adjustment {one.adjustment_id} says {plain(one.amount)}, but its two rates differ by"
                f" {plain(expected)}."
            )
    return found


def derive(
    rate: Decimal,
    starts_at: datetime,
    ends_at: datetime,
    prices: Sequence[Price],
    divisors: Sequence[int],
    backups: bool | None,
) -> tuple[Derivation, ...]:
    """Return the prices that lead to a rate for the hours of a charge, one for each version that was in force.

    `prices` are those of the plan in order, `divisors` the hours per month to try, the likeliest first. A price that a
    correction replaced counts where the one that took its place does not fit: the correction came after the charge.
    """
    found: list[Derivation] = []
    versions = [price for price in prices if price.corrected_at is None]
    for number, price in enumerate(versions):
        first = _first_hour(price, starts_at)
        if first >= ends_at or not price.holds_at(first):
            continue
        replaced = [one for one in prices if one.corrected_at is not None and one.holds_at(first)]
        fitting = _fitting(rate, (price, *replaced), divisors, backups)
        if fitting is None:
            return ()
        before = versions[number - 1] if number else None
        found.append(
            Derivation(price=fitting[0], hours_per_month=fitting[1], backups=fitting[2], before=before)
        )
    return tuple(found)


def _first_hour(price: Price, starts_at: datetime) -> datetime:
    """Return the start of the first hour of a charge that begins while a price is in force."""
    if price.valid_from is None or price.valid_from <= starts_at:
        return starts_at
    return starts_at + -((starts_at - price.valid_from) // HOUR) * HOUR


def _fitting(
    rate: Decimal, prices: Sequence[Price], divisors: Sequence[int], backups: bool | None
) -> tuple[Price, int, bool] | None:
    with_backups = (False, True) if backups is None else (backups,)
    for price in prices:
        for divisor in divisors:
            for one in with_backups:
                if price.hourly(divisor, one) == rate:
                    return price, divisor, one and price.backup_hourly > 0
    return None
