"""What billing must do, said a second time: hour by hour, in plain Python, without a line of the product.

This is the oracle that random histories are compared with, so it is written to be believed and not to be fast. An
instant is a whole number of microseconds, money is a Decimal, and everything that is charged is a `Unit`: one started
hour of one instance at one rate. The rules are those of the design, in its own order:

* A change of an instance closes the stretch since its watermark; an open stretch grows until somebody looks.
* Whole hours of an open stretch and all of a closed one are due, each hour at the price at its start.
* Old debts and new units are paid together, by hour start and then by instance, up to the first that does not fit.
* A wallet is debited whole cents; what is below a cent is carried on.

Nothing here imports anything but the standard library; tools/tidy.py sees to that.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import ROUND_FLOOR, ROUND_HALF_UP, Context, Decimal, localcontext
from uuid import UUID

SECOND = 1_000_000
HOUR = 3600 * SECOND
CENT = Decimal("0.01")
EIGHT_DIGITS = Decimal("0.00000001")
SINCE_EVER = -math.inf


@dataclass(frozen=True)
class Policy:
    """What is billable, and how a started hour ends, from an instant on."""

    valid_from: float
    statuses: frozenset[str]
    partial_hour: str

    def bills(self, status: str) -> bool:
        """Whether an instance of this status is charged."""
        return "*" in self.statuses or status in self.statuses


@dataclass(frozen=True)
class Terms:
    """The settings of a run."""

    statuses: frozenset[str] = frozenset({"running"})
    partial_hour: str = "prorate"
    hours_per_month: int = 730
    max_catch_up_hours: int = 72


@dataclass
class Wallet:
    """Money of one organization: whole cents, and what was billed but not debited yet."""

    balance: Decimal
    carry: Decimal = Decimal(0)


@dataclass
class Instance:
    """An instance as it is now; everything before its watermark is rated or closed."""

    organization: UUID
    plan: str
    status: str
    watermark: int


@dataclass
class Segment:
    """A closed stretch: what the instance was, and until when it is to be charged."""

    organization: UUID
    instance: UUID
    plan: str
    start: int
    until: int
    closed_at: int
    due: bool


@dataclass
class Unit:
    """One hour of one instance, or the last part of one: charged, and paid or past due."""

    organization: UUID
    instance: UUID
    start: int
    end: int
    hourly_rate: Decimal
    amount: Decimal
    status: str = "failed"


@dataclass
class Statement:
    """What one run did: the exact amount that it billed."""

    amount: Decimal = Decimal(0)


def hourly_rate(monthly: Decimal, hours_per_month: int) -> Decimal:
    """Divide a monthly price by the hours of a month, rounded half up to eight digits."""
    with localcontext(Context(prec=60)):
        return (monthly / hours_per_month).quantize(EIGHT_DIGITS, ROUND_HALF_UP)


def amount_of(rate: Decimal, microseconds: int) -> Decimal:
    """Price a part of an hour, rounded half up to eight digits."""
    with localcontext(Context(prec=60)):
        return (rate * microseconds / HOUR).quantize(EIGHT_DIGITS, ROUND_HALF_UP)


def hours_of(start: int, until: int) -> Iterator[tuple[int, int]]:
    """Cut [start, until) into hours counted from its start; the last may be a part of one."""
    while start < until:
        yield start, min(start + HOUR, until)
        start += HOUR


@dataclass
class Model:
    """Everything that billing knows and has done."""

    policies: list[Policy] = field(
        default_factory=lambda: [Policy(SINCE_EVER, frozenset({"running"}), "prorate")]
    )
    prices: dict[str, list[tuple[float, Decimal]]] = field(default_factory=dict)
    wallets: dict[UUID, Wallet] = field(default_factory=dict)
    instances: dict[UUID, Instance] = field(default_factory=dict)
    segments: list[Segment] = field(default_factory=list)
    units: list[Unit] = field(default_factory=list)
    held: dict[UUID, set[UUID]] = field(default_factory=dict)
    approved: dict[tuple[UUID, UUID], int] = field(default_factory=dict)
    has_billed: bool = False

    # What the host application does.

    def price(self, plan: str, monthly: Decimal, now: int) -> None:
        """Set a monthly price: the first is in force since ever, a later one for hours that start from now on."""
        versions = self.prices.setdefault(plan, [])
        versions.append((now if versions else SINCE_EVER, monthly))

    def create(self, instance: UUID, organization: UUID, plan: str, status: str, now: int) -> None:
        """Create an instance; its first hour starts now."""
        self.instances[instance] = Instance(organization, plan, status, now)

    def change(self, identifier: UUID, now: int, **columns: object) -> None:
        """Change organization, plan or status; what ran until now is closed as it was."""
        instance = self.instances[identifier]
        before = (instance.organization, instance.plan, instance.status)
        organization = columns.get("organization", instance.organization)
        plan = columns.get("plan", instance.plan)
        status = columns.get("status", instance.status)
        if (organization, plan, status) == before:
            return
        self._close(identifier, now)
        instance.organization, instance.plan, instance.status = organization, plan, status  # type: ignore[assignment]

    def delete(self, identifier: UUID, now: int) -> None:
        """Delete an instance; its last minutes stay due."""
        self._close(identifier, now, keep_empty=True)
        del self.instances[identifier]

    def delete_organization(self, organization: UUID, now: int) -> None:
        """Delete an organization with its instances and its wallet; what it still owes cannot be paid any more."""
        for identifier in [
            i for i, instance in self.instances.items() if instance.organization == organization
        ]:
            self.delete(identifier, now)
        self.wallets.pop(organization, None)

    def policy_at(self, instant: float) -> Policy:
        """Return the policy in force at an instant."""
        return [policy for policy in self.policies if policy.valid_from <= instant][-1]

    def _close(self, identifier: UUID, now: int, keep_empty: bool = False) -> None:
        """Close the stretch since the watermark, by the policy in force when it began, and move the watermark."""
        instance = self.instances[identifier]
        start = instance.watermark
        policy = self.policy_at(start)
        billable = policy.bills(instance.status)
        end = max(start, now)
        if billable and policy.partial_hour == "full" and end > start:
            end = list(hours_of(start, end))[-1][0] + HOUR
        until = end
        if billable and policy.partial_hour == "free":
            until = start + sum(HOUR for begin, stop in hours_of(start, end) if stop - begin == HOUR)
        if end > start or keep_empty:
            self.segments.append(
                Segment(
                    instance.organization,
                    identifier,
                    instance.plan,
                    start,
                    until,
                    closed_at=now,
                    due=billable and until > start,
                )
            )
        instance.watermark = end

    # What a run does.

    def bill(self, terms: Terms, as_of: int, organization: UUID | None = None) -> Statement:
        """Charge everything that is due as of an instant, for all organizations or one."""
        self._agree_on_policy(terms, as_of)
        statement = Statement()
        for each, wallet in self.wallets.items():
            if organization in (None, each):
                statement.amount += self._bill_organization(each, wallet, terms, as_of)
        for each in self.held.keys() - self.wallets.keys():
            if organization in (None, each):
                self.held[each] = set()
        self.has_billed = True
        return statement

    def _agree_on_policy(self, terms: Terms, as_of: int) -> None:
        """Let new settings hold from this run on; before anything was metered or billed they simply hold."""
        current = self.policies[-1]
        if (current.statuses, current.partial_hour) == (terms.statuses, terms.partial_hour):
            return
        if len(self.policies) == 1 and not self.has_billed and not self.segments:
            self.policies = [Policy(SINCE_EVER, terms.statuses, terms.partial_hour)]
            return
        new = Policy(as_of, terms.statuses, terms.partial_hour)
        for identifier, instance in self.instances.items():
            if current.bills(instance.status) != new.bills(instance.status):
                self._close(identifier, as_of)
        self.policies.append(new)

    def _bill_organization(self, organization: UUID, wallet: Wallet, terms: Terms, as_of: int) -> Decimal:
        self.held[organization] = set()
        fresh: list[Unit] = []
        for identifier in self._instances_of(organization):
            units = self._due_units(organization, identifier, terms, as_of)
            if units is None:
                self.held[organization].add(identifier)
            else:
                fresh += units
        self.units += fresh
        return self._pay(organization, wallet)

    def _instances_of(self, organization: UUID) -> set[UUID]:
        """Return the instances that an organization has, or once had and still has to pay for."""
        here = {i for i, instance in self.instances.items() if instance.organization == organization}
        return here | {s.instance for s in self.segments if s.organization == organization and s.due}

    def _due_units(self, organization: UUID, identifier: UUID, terms: Terms, as_of: int) -> list[Unit] | None:
        """Charge what one instance owes one organization, as units; None when it is too much to charge unasked."""
        closed = [
            segment
            for segment in self.segments
            if (segment.organization, segment.instance) == (organization, identifier)
            and segment.due
            and segment.closed_at <= as_of
        ]
        instance = self.instances.get(identifier)
        open_hours: list[int] = []
        if instance and instance.organization == organization and self.policies[-1].bills(instance.status):
            hour = instance.watermark
            while hour + HOUR <= as_of:
                open_hours.append(hour)
                hour += HOUR

        approved = self.approved.get((organization, identifier), SINCE_EVER)
        unapproved = sum(1 for hour in open_hours if hour + HOUR > approved) * HOUR
        for segment in closed:
            unapproved += segment.until - int(max(segment.start, min(approved, segment.until)))
        if unapproved > terms.max_catch_up_hours * HOUR:
            return None

        units = []
        for segment in closed:
            for start, end in hours_of(segment.start, segment.until):
                units.append(self._unit(organization, identifier, segment.plan, start, end, terms))
            segment.due = False
        for start in open_hours:
            assert instance is not None
            units.append(self._unit(organization, identifier, instance.plan, start, start + HOUR, terms))
            instance.watermark = start + HOUR
        return units

    def _unit(
        self, organization: UUID, instance: UUID, plan: str, start: int, end: int, terms: Terms
    ) -> Unit:
        """Price one hour at its start."""
        monthly = [price for valid_from, price in self.prices[plan] if valid_from <= start][-1]
        rate = hourly_rate(monthly, terms.hours_per_month)
        return Unit(organization, instance, start, end, rate, amount_of(rate, end - start))

    def _pay(self, organization: UUID, wallet: Wallet) -> Decimal:
        """Pay units in their order until one does not fit, then debit the whole cents."""
        owed = [u for u in self.units if u.organization == organization and u.status == "failed"]
        charged = Decimal(0)
        for unit in sorted(owed, key=lambda unit: (unit.start, unit.instance.int)):
            if wallet.carry + charged + unit.amount > wallet.balance:
                break
            unit.status = "billed"
            charged += unit.amount
        exact = wallet.carry + charged
        debit = exact.quantize(CENT, ROUND_FLOOR)
        wallet.balance -= debit
        wallet.carry = exact - debit
        return charged
