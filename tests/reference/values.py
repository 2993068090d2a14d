"""What the reference model speaks of: instants, prices, wallets, segments and hours, and how one hour is priced.

An instant is a whole number of microseconds, money is a Decimal, and everything that is charged is a `Unit`: one started
hour of one instance at one rate.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Context, Decimal, localcontext
from uuid import UUID

SECOND = 1_000_000
HOUR = 3600 * SECOND
CENT = Decimal("0.01")
EIGHT_DIGITS = Decimal("0.00000001")
SINCE_EVER = -math.inf
FOR_EVER = math.inf
# What continues the status before it, unless it is billable by name.
TRANSIENT = frozenset(
    {
        "booting",
        "rebooting",
        "shutting_down",
        "migrating",
        "resizing",
        "rebuilding",
        "restoring",
        "cloning",
    }
)
FIRST, LAST = UUID(int=0), UUID(int=2**128 - 1)


@dataclass(frozen=True)
class Policy:
    """What is billable, and how a started hour ends, from an instant on."""

    valid_from: float
    statuses: frozenset[str]
    partial_hour: str

    def bills(self, status: str) -> bool:
        """Whether an instance of this status is charged."""
        return "*" in self.statuses or status in self.statuses

    def lasts(self, status: str, before: str) -> str:
        """Return the status that an instance is billed by: a transient one continues the one before."""
        return before if status in TRANSIENT - self.statuses else status


@dataclass(frozen=True)
class Terms:
    """The settings of a run."""

    statuses: frozenset[str] = frozenset({"running"})
    partial_hour: str = "prorate"
    hours_per_month: int = 730
    max_catch_up_hours: int = 72
    currency: str = "USD"


@dataclass(frozen=True)
class Price:
    """What a plan costs from an instant on: a month of it, and an hour of backups."""

    valid_from: float
    monthly: Decimal
    backup: Decimal = Decimal(0)

    def hourly(self, hours_per_month: int, backups: bool) -> Decimal:
        """Return the hourly rate, rounded once, half up to eight digits."""
        with localcontext(Context(prec=60)):
            exact = self.monthly / hours_per_month + (self.backup if backups else 0)
            return exact.quantize(EIGHT_DIGITS, ROUND_HALF_UP)


@dataclass
class Wallet:
    """Money of one organization: whole cents, and what was billed but not debited yet."""

    organization: UUID
    balance: Decimal
    currency: str
    created_at: int
    carry: Decimal = Decimal(0)


@dataclass
class Instance:
    """An instance as it is now; everything before its watermark is rated or closed.

    It is billed by `lasting`, which is its status or the one before a transient one.
    """

    organization: UUID
    plan: str
    status: str
    watermark: int
    backups: bool = False
    lasting: str = ""

    def __post_init__(self) -> None:
        """Begin with a status that lasts."""
        self.lasting = self.lasting or self.status


@dataclass
class Segment:
    """A closed segment: what the instance was, when it ended, and until when it is to be charged."""

    organization: UUID
    instance: UUID
    plan: str
    backups: bool
    start: int
    until: int
    closed_at: int
    due: bool
    status: str
    end: int


@dataclass
class Unit:
    """One hour of one instance, or the last part of one: charged, and paid or past due; corrected, perhaps, since.

    `ordered` says that a reversal or a credit set its rate, `credited` that it was a credit.
    """

    organization: UUID
    instance: UUID
    plan: str
    backups: bool
    hours_per_month: int
    start: int
    end: int
    hourly_rate: Decimal
    amount: Decimal
    status: str = "failed"
    rate_now: Decimal = Decimal(0)
    adjustment: Decimal = Decimal(0)
    credited: bool = False
    ordered: bool = False


def amount_of(rate: Decimal, microseconds: int) -> Decimal:
    """Price a part of an hour, rounded half up to eight digits."""
    with localcontext(Context(prec=60)):
        return (rate * microseconds / HOUR).quantize(EIGHT_DIGITS, ROUND_HALF_UP)


def hours_of(start: int, until: int) -> Iterator[tuple[int, int]]:
    """Cut [start, until) into hours counted from its start; the last may be a part of one."""
    while start < until:
        yield start, min(start + HOUR, until)
        start += HOUR
