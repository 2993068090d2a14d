"""Orders that adjust charges, as values: what is asked for, and what it does to each organization."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from decimal import ROUND_FLOOR, Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID

ZERO = Decimal(0)
# So many organizations are kept of an order, so that memory does not grow with the fleet.
MOST_SHOWN = 1000
_CENT = Decimal("0.01")
# Wide enough for every charge; PostgreSQL cannot subtract an instant from infinity before version 17.
ALWAYS_FROM, ALWAYS_UNTIL = datetime(1970, 1, 1, tzinfo=UTC), datetime(2300, 1, 1, tzinfo=UTC)


class OrderKind(StrEnum):
    """Kind of an order; its entries are called `billing-KIND-N`."""

    REVERSAL = "reversal"
    CREDIT = "credit"
    AUDIT = "audit"


class Mode(StrEnum):
    """What an order makes of hours."""

    WAIVE = "waive"
    RERATE = "rerate"
    CREDIT = "credit"
    AUDIT = "audit"
    UNDO = "undo"


@dataclass(frozen=True, slots=True)
class Cap:
    """Bound of a credit: a share of what each instance's charges of a span before its end stand at."""

    percent: Decimal
    of: timedelta


@dataclass(frozen=True, slots=True)
class Scope:
    """Which charges are meant: those of a run, or the hours of a span; of a plan, an organization, some instances."""

    run: int | None = None
    begin: datetime | None = None
    end: datetime | None = None
    plan_id: UUID | None = None
    organization: UUID | None = None
    region: str | None = None
    file_sha256: str | None = None
    instances: tuple[UUID, ...] | None = None

    def document(self) -> dict[str, Any]:
        """Return it as values of JSON; what is not bounded is left out, so equal scopes are equal documents."""
        found = {
            "run": self.run,
            "from": self.begin and self.begin.isoformat(),
            "until": self.end and self.end.isoformat(),
            "plan": self.plan_id and str(self.plan_id),
            "organization": self.organization and str(self.organization),
            "region": self.region,
            "fileSha256": self.file_sha256,
            "instances": None if self.instances is None else sorted(str(one) for one in self.instances),
        }
        return {key: value for key, value in found.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Order:
    """An order: what it is about, what it makes of it, and who wants it why.

    `factor` is the share of what hours stand at that a credit takes off. `undoes` names the order that is undone;
    `order_id` is None while it is only looked at.
    """

    kind: OrderKind
    mode: Mode
    scope: Scope
    by: str = ""
    reason: str = ""
    hours_per_month: int = 730
    currency: str = "USD"
    factor: Decimal = Decimal(1)
    cap: Cap | None = None
    undoes: int | None = None
    order_id: int | None = None

    @property
    def pro_rata(self) -> bool:
        """Whether hours that the span covers in part count with that part."""
        return self.mode is Mode.CREDIT

    def document(self) -> str:
        """Return what makes two orders the same order, as a JSON object."""
        found = self.scope.document()
        if self.mode is Mode.CREDIT:
            found["factor"] = f"{self.factor.normalize():f}"
        if self.cap is not None:
            found["capPercent"] = f"{self.cap.percent.normalize():f}"
            found["capOfHours"] = int(self.cap.of.total_seconds() // 3600)
        return json.dumps(found, sort_keys=True)


@dataclass(frozen=True, slots=True)
class Effect:
    """What an order changes for one organization, in exact amounts; a negative one goes to the customer.

    `amount` is the difference of billed charges, of which `unposted_amount` is not moved because the wallet cannot bear
    it, or because there is none (`balance` None). Past-due charges lose `past_due_amount`; no money moves for them.
    """

    organization_id: UUID
    charges: int
    instances: int
    hours: Decimal
    charged: Decimal
    stands_at: Decimal
    amount: Decimal
    past_due_hours: Decimal
    past_due_amount: Decimal
    already_charges: int
    already_hours: Decimal
    changed_charges: int
    name: str
    unposted_charges: int
    unposted_amount: Decimal
    wallet_id: UUID | None
    balance: Decimal | None
    billing_carry: Decimal | None
    burn_per_hour: Decimal | None
    by_hand: Decimal

    @property
    def posted(self) -> Decimal:
        """The exact amount that moves."""
        return self.amount - self.unposted_amount

    @property
    def balance_after(self) -> Decimal | None:
        """The balance afterwards, in whole cents."""
        if self.balance is None or self.billing_carry is None or not self.balance.is_finite():
            return self.balance
        return self.balance - (self.billing_carry + self.posted).quantize(_CENT, ROUND_FLOOR)

    @property
    def runway_after_hours(self) -> Decimal | None:
        """The hours that the balance lasts for afterwards; None where nothing is burnt or that is not known."""
        if not self.burn_per_hour or self.balance_after is None or not self.balance_after.is_finite():
            return None
        return max(ZERO, self.balance_after / self.burn_per_hour)

    @property
    def has_no_wallet(self) -> bool:
        """Whether something is left because no wallet could take it."""
        return self.wallet_id is None and self.unposted_charges > 0

    @property
    def changes_anything(self) -> bool:
        """Whether there is something to post or to rate anew."""
        return bool(self.charges > self.unposted_charges or self.past_due_amount)

    @property
    def is_worth_telling(self) -> bool:
        """Whether anything is to be said about it."""
        return bool(self.charges or self.past_due_amount or self.already_charges or self.changed_charges)

    def rank(self) -> tuple[Decimal, str]:
        """Return the key that puts the largest amounts first."""
        return -abs(self.amount + self.past_due_amount), str(self.organization_id)


@dataclass(frozen=True, slots=True)
class Answers:
    """The sum of all organizations, sorted by what happens to each part of it."""

    organizations: int = 0
    charges: int = 0
    hours: Decimal = ZERO
    now: Decimal = ZERO
    past_due: Decimal = ZERO
    already_charges: int = 0
    already_hours: Decimal = ZERO
    changed_charges: int = 0
    no_wallet_organizations: int = 0
    unposted_charges: int = 0
    no_wallet: Decimal = ZERO
    wallet_short_organizations: int = 0
    wallet_short: Decimal = ZERO
    by_hand: Decimal = ZERO

    @classmethod
    def of(cls, effects: Iterable[Effect]) -> Answers:
        """Return the sums of these organizations."""
        total: dict[str, Any] = {one.name: one.default for one in fields(cls)}
        for effect in effects:
            short = effect.unposted_charges > 0 and not effect.has_no_wallet
            found = {
                "organizations": int(effect.changes_anything),
                "charges": effect.charges - effect.unposted_charges,
                "hours": effect.hours,
                "now": effect.posted,
                "past_due": effect.past_due_amount,
                "already_charges": effect.already_charges,
                "already_hours": effect.already_hours,
                "changed_charges": effect.changed_charges,
                "no_wallet_organizations": int(effect.has_no_wallet),
                "unposted_charges": effect.unposted_charges,
                "no_wallet": effect.unposted_amount if effect.has_no_wallet else ZERO,
                "wallet_short_organizations": int(short),
                "wallet_short": effect.unposted_amount if short else ZERO,
                "by_hand": effect.by_hand,
            }
            for name, value in found.items():
                total[name] += value
        return cls(**total)

    def __add__(self, other: Answers) -> Answers:
        """Return the sums of both."""
        return Answers(
            **{one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(self)}
        )

    @property
    def is_left_open(self) -> bool:
        """Whether something could not be moved."""
        return bool(self.no_wallet_organizations or self.wallet_short_organizations)


@dataclass(frozen=True, slots=True)
class Uncharged:
    """Hours of a span that are not charged yet, and so are left out."""

    instances: int = 0
    hours: Decimal = ZERO


@dataclass(slots=True)
class Effects:
    """Effects of an order on a fleet of any size: the sums of all, and the organizations with the largest amounts."""

    answers: Answers = field(default_factory=Answers)
    largest: list[Effect] = field(default_factory=list)
    organizations: int = 0

    def add(self, effects: Iterable[Effect]) -> None:
        """Add the organizations of a range."""
        found = list(effects)
        self.answers += Answers.of(found)
        told = [one for one in found if one.is_worth_telling]
        self.organizations += len(told)
        self.largest = sorted([*self.largest, *told], key=Effect.rank)[:MOST_SHOWN]

    @property
    def left(self) -> list[Effect]:
        """Those of the largest of which something could not be moved."""
        return [one for one in self.largest if one.unposted_charges]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an order did, or would do: the order as recorded, its effects, the rows it wrote, and what it left out."""

    order: Order
    effects: Effects
    adjustments: int = 0
    repriced: int = 0
    uncharged: Uncharged = Uncharged()
