"""What billing must do, said a second time: hour by hour, in plain Python, without a line of the product.

This is the oracle that random histories are compared with, so it is written to be believed and not to be fast. The rules
are those of the design, in its own order:

* A change of an instance closes the segment since its watermark; an open segment grows until a run.
* Whole hours of an open segment and all of a closed one are due, each hour at the price at its start.
* Old debts and new units are paid together, by hour start and then by instance, up to the first that does not fit.
* The oldest wallet in the currency of billing pays whole cents; what is below a cent is carried on.

A run is open_run, then charge for each range of organizations in whatever order, then close_run: what the host changes
between two ranges is met as it is then. Nothing here imports anything but the standard library; tools/tidy.py sees to that.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from decimal import ROUND_FLOOR, Decimal
from uuid import UUID

from tests.reference.values import (
    CENT,
    FIRST,
    HOUR,
    LAST,
    SINCE_EVER,
    Instance,
    Policy,
    Price,
    Segment,
    Terms,
    Unit,
    Wallet,
    amount_of,
    hours_of,
)

HELD, NO_WALLET = "held", "no wallet"


@dataclass
class Model:
    """Everything that billing knows and has done."""

    policies: list[Policy] = field(
        default_factory=lambda: [Policy(SINCE_EVER, frozenset({"running"}), "prorate")]
    )
    prices: dict[str, list[Price]] = field(default_factory=dict)
    shown: dict[str, Price] = field(default_factory=dict)
    organizations: set[UUID] = field(default_factory=set)
    wallets: dict[UUID, Wallet] = field(default_factory=dict)
    instances: dict[UUID, Instance] = field(default_factory=dict)
    segments: list[Segment] = field(default_factory=list)
    units: list[Unit] = field(default_factory=list)
    quarantine: dict[tuple[UUID, UUID], str] = field(default_factory=dict)
    approved: dict[tuple[UUID, UUID], int] = field(default_factory=dict)
    has_billed: bool = False
    left_at: dict[UUID, int] = field(default_factory=dict)
    left_as: dict[UUID, str] = field(default_factory=dict)
    lost_carries: dict[UUID, Decimal] = field(default_factory=dict)

    # What the host application does.

    def new_plan(self, plan: str, monthly: Decimal, backup: Decimal) -> None:
        """Offer a plan: its first price is in force since ever."""
        self.shown[plan] = Price(SINCE_EVER, monthly, backup)
        self.prices[plan] = [self.shown[plan]]

    def reprice(
        self, plan: str, now: int, monthly: Decimal | None = None, backup: Decimal | None = None
    ) -> None:
        """Edit what the host shows; hours that start from now on cost that, and else what was in force anyway."""
        shown, current = self.shown[plan], self.price_at(plan, now)
        edits_month = monthly not in (None, shown.monthly)
        edits_backup = backup not in (None, shown.backup)
        if not (edits_month or edits_backup):
            return
        new = Price(
            now,
            monthly if edits_month and monthly is not None else current.monthly,
            backup if edits_backup and backup is not None else current.backup,
        )
        self.shown[plan] = new
        if (new.monthly, new.backup) != (current.monthly, current.backup):
            later = [replace(p, backup=new.backup) for p in self.prices[plan] if p.valid_from > now]
            self.prices[plan] = [p for p in self.prices[plan] if p.valid_from <= now] + later
            self.enter(plan, new)

    def create(self, instance: UUID, organization: UUID, plan: str, status: str, now: int) -> None:
        """Create an instance; its first hour starts now."""
        self.instances[instance] = Instance(organization, plan, status, now)

    def change(self, identifier: UUID, now: int, **columns: object) -> None:
        """Change organization, plan, status or backups; what ran until now is closed as it was.

        A transient status continues the one before, so it closes nothing by itself.
        """
        instance = self.instances.get(identifier)
        if instance is None or all(getattr(instance, name) == value for name, value in columns.items()):
            return
        new = replace(instance, **columns)  # type: ignore[arg-type]
        if new.status != instance.status:
            new.lasting = self.policies[-1].lasts(new.status, instance.lasting)
        if replace(new, status=instance.status) != instance:
            self.close(identifier, now)
            new.watermark = instance.watermark
        self.instances[identifier] = new

    def delete(self, identifier: UUID, now: int) -> None:
        """Delete an instance; its last minutes stay due."""
        if identifier in self.instances:
            self.close(identifier, now, keep_empty=True)
            left = self.instances.pop(identifier)
            self.left_at[identifier], self.left_as[identifier] = left.watermark, left.lasting

    def put_back(self, identifier: UUID, row: Instance, claimed: int) -> None:
        """Insert the row of an instance again; what it says it was billed until counts only beyond when it left."""
        begins = max(claimed, self.left_at.get(identifier, claimed))
        before = self.left_as.get(identifier, row.lasting)
        lasting = self.policies[-1].lasts(row.status, before)
        self.instances[identifier] = replace(row, watermark=begins, lasting=lasting)

    def rename(self, identifier: UUID, new: UUID, now: int) -> None:
        """Give an instance another id: what ran until now is the old one's, the rest the new one's."""
        row = self.instances[identifier]
        self.delete(identifier, now)
        self.put_back(new, row, self.left_at[identifier])

    def open_wallet(self, identifier: UUID, wallet: Wallet) -> None:
        """Open a wallet; the only one of its organization takes over what others carried that are gone, below a cent."""
        is_alone = all(other.organization != wallet.organization for other in self.wallets.values())
        if is_alone and 0 < self.lost_carries.get(wallet.organization, 0) < CENT:
            wallet.carry = self.lost_carries.pop(wallet.organization)
        self.wallets[identifier] = wallet

    def remove_wallet(self, identifier: UUID) -> None:
        """Remove a wallet with its balance; what it carried was billed and is still owed."""
        wallet = self.wallets.pop(identifier)
        lost = self.lost_carries.get(wallet.organization, Decimal(0))
        self.lost_carries[wallet.organization] = lost + wallet.carry

    def delete_organization(self, organization: UUID, now: int) -> None:
        """Delete an organization with its instances and its wallets; what it still owes cannot be paid any more."""
        for identifier in [i for i, one in self.instances.items() if one.organization == organization]:
            self.delete(identifier, now)
        self.wallets = {i: w for i, w in self.wallets.items() if w.organization != organization}
        self.organizations.discard(organization)

    # What is in force.

    def policy_at(self, instant: float) -> Policy:
        """Return the policy in force at an instant."""
        return [policy for policy in self.policies if policy.valid_from <= instant][-1]

    def price_at(self, plan: str, instant: float) -> Price:
        """Return the price in force at an instant."""
        return [price for price in self.prices[plan] if price.valid_from <= instant][-1]

    def enter(self, plan: str, price: Price) -> None:
        """Let a price begin, until the next one that is recorded."""
        others = [one for one in self.prices[plan] if one.valid_from != price.valid_from]
        self.prices[plan] = sorted([*others, price], key=lambda one: one.valid_from)

    def show_prices(self, now: int) -> None:
        """Bring what the host shows up to what is in force."""
        self.shown = {plan: self.price_at(plan, now) for plan in self.prices}

    def payer(self, organization: UUID, currency: str) -> Wallet | None:
        """Return the wallet that pays: the oldest in the currency of billing."""
        own = [
            (wallet.created_at, identifier.int, wallet)
            for identifier, wallet in self.wallets.items()
            if (wallet.organization, wallet.currency) == (organization, currency)
        ]
        return min(own, key=lambda one: one[:2])[2] if own else None

    def close(self, identifier: UUID, now: int, keep_empty: bool = False) -> None:
        """Close the segment since the watermark, by the policy in force when it began, and move the watermark."""
        instance = self.instances[identifier]
        start = instance.watermark
        policy = self.policy_at(start)
        billable = policy.bills(instance.lasting)
        end = max(start, now)
        if billable and policy.partial_hour == "full" and end > start:
            end = list(hours_of(start, end))[-1][0] + HOUR
        until = self.charged_until(instance.lasting, start, end)
        if end > start or keep_empty:
            self.segments.append(
                Segment(
                    instance.organization,
                    identifier,
                    instance.plan,
                    instance.backups,
                    start,
                    until,
                    closed_at=now,
                    due=billable and until > start,
                    status=instance.lasting,
                    end=end,
                )
            )
        instance.watermark = end

    def charged_until(self, status: str, start: int, end: int) -> int:
        """Return until when a closed segment is to be charged: whole hours only, where the policy says so."""
        policy = self.policy_at(start)
        if not policy.bills(status) or policy.partial_hour != "free":
            return end
        return start + sum(HOUR for begin, stop in hours_of(start, end) if stop - begin == HOUR)

    # What a run does.

    def open_run(self, terms: Terms, as_of: int, now: int) -> None:
        """Let announced prices show, and new settings hold from this run on.

        Before anything was billed the settings simply hold, since ever: what was closed until then is judged by them.
        """
        self.show_prices(max(as_of, now))
        current = self.policies[-1]
        if (current.statuses, current.partial_hour) == (terms.statuses, terms.partial_hour):
            return
        if len(self.policies) == 1 and not self.has_billed:
            self.policies = [Policy(SINCE_EVER, terms.statuses, terms.partial_hour)]
            for segment in self.segments:
                segment.until = self.charged_until(segment.status, segment.start, segment.end)
                segment.due = self.policies[0].bills(segment.status) and segment.until > segment.start
            for instance in self.instances.values():
                instance.lasting = self.policies[0].lasts(instance.status, instance.lasting)
            return
        new = Policy(as_of, terms.statuses, terms.partial_hour)
        for identifier, instance in self.instances.items():
            lasting = new.lasts(instance.status, instance.lasting)
            if current.bills(instance.lasting) != new.bills(lasting) or lasting != instance.lasting:
                self.close(identifier, as_of)
            instance.lasting = lasting
        self.policies.append(new)

    def charge(
        self,
        organizations: Iterable[UUID],
        terms: Terms,
        as_of: int,
        instances: tuple[UUID, UUID] = (FIRST, LAST),
    ) -> Decimal:
        """Charge what organizations owe, or some of their instances; return the exact amount that was billed."""
        return sum(
            (self._charge_one(organization, terms, as_of, instances) for organization in organizations),
            Decimal(0),
        )

    def close_run(self, terms: Terms, as_of: int, organization: UUID | None = None) -> None:
        """Quarantine or hold what could not be charged, with the reason."""
        self.has_billed = True
        reach = {organization} if organization else self.organizations | {key[0] for key in self.quarantine}
        self.quarantine = {key: reason for key, reason in self.quarantine.items() if key[0] not in reach}
        for each in reach & self.organizations:
            for identifier in self.instances_of(each):
                closed, open_hours = self.due(each, identifier, terms, as_of)
                if not closed and not open_hours:
                    continue
                if self.payer(each, terms.currency) is None:
                    self.quarantine[each, identifier] = NO_WALLET
                elif self.is_held(each, identifier, terms, as_of):
                    self.quarantine[each, identifier] = HELD

    def _charge_one(
        self, organization: UUID, terms: Terms, as_of: int, instances: tuple[UUID, UUID]
    ) -> Decimal:
        wallet = self.payer(organization, terms.currency)
        if wallet is None:
            return Decimal(0)
        for identifier in self.instances_of(organization):
            is_here = instances[0] <= identifier <= instances[1]
            if is_here and not self.is_held(organization, identifier, terms, as_of):
                self._owe(organization, identifier, terms, as_of)
        return self._pay(organization, wallet)

    def instances_of(self, organization: UUID) -> set[UUID]:
        """Return the instances that an organization has, or once had and still has to pay for."""
        here = {i for i, instance in self.instances.items() if instance.organization == organization}
        return here | {s.instance for s in self.segments if s.organization == organization and s.due}

    def due(
        self, organization: UUID, identifier: UUID, terms: Terms, as_of: int
    ) -> tuple[list[Segment], list[int]]:
        """Return the closed segments that an instance has due to an organization, and the starts of its open hours."""
        closed = [
            segment
            for segment in self.segments
            if (segment.organization, segment.instance) == (organization, identifier)
            and segment.due
            and segment.closed_at <= as_of
        ]
        instance = self.instances.get(identifier)
        open_hours = []
        billable = Policy(SINCE_EVER, terms.statuses, terms.partial_hour)
        if instance and instance.organization == organization and billable.bills(instance.lasting):
            open_hours = list(range(instance.watermark, as_of - HOUR + 1, HOUR))
        return closed, open_hours

    def is_held(self, organization: UUID, identifier: UUID, terms: Terms, as_of: int) -> bool:
        """Whether an instance has more hours due than are approved and than may be charged without approval."""
        closed, open_hours = self.due(organization, identifier, terms, as_of)
        approved = self.approved.get((organization, identifier), SINCE_EVER)
        unapproved = sum(1 for hour in open_hours if hour + HOUR > approved) * HOUR
        for segment in closed:
            unapproved += segment.until - int(max(segment.start, min(approved, segment.until)))
        return unapproved > terms.max_catch_up_hours * HOUR

    def _owe(self, organization: UUID, identifier: UUID, terms: Terms, as_of: int) -> None:
        """Turn all that one instance has due to one organization into units."""
        closed, open_hours = self.due(organization, identifier, terms, as_of)
        for segment in closed:
            for start, end in hours_of(segment.start, segment.until):
                self._add_unit(organization, identifier, segment, start, end, terms)
            segment.due = False
        for start in open_hours:
            instance = self.instances[identifier]
            self._add_unit(organization, identifier, instance, start, start + HOUR, terms)
            instance.watermark = start + HOUR

    def _add_unit(
        self,
        organization: UUID,
        identifier: UUID,
        used: Segment | Instance,
        start: int,
        end: int,
        terms: Terms,
    ) -> None:
        """Price one hour at its start."""
        rate = self.price_at(used.plan, start).hourly(terms.hours_per_month, used.backups)
        self.units.append(
            Unit(
                organization,
                identifier,
                used.plan,
                used.backups,
                terms.hours_per_month,
                start,
                end,
                rate,
                amount_of(rate, end - start),
                rate_now=rate,
            )
        )

    def _pay(self, organization: UUID, wallet: Wallet) -> Decimal:
        """Pay units in their order until one does not fit, then debit the whole cents; what costs nothing is always paid."""
        owed = [u for u in self.units if u.organization == organization and u.status == "failed"]
        for unit in owed:
            if not unit.hourly_rate:
                unit.status = "billed"
        charged = Decimal(0)
        for unit in sorted(owed, key=lambda unit: (unit.start, unit.instance.int)):
            if unit.status == "billed":
                continue
            if wallet.carry + charged + unit.amount > wallet.balance:
                break
            unit.status = "billed"
            charged += unit.amount
        self.debit(wallet, charged)
        return charged

    def debit(self, wallet: Wallet, exact: Decimal) -> None:
        """Take whole cents off a wallet, or give them back; what is left below a cent is carried."""
        exact += wallet.carry
        cents = exact.quantize(CENT, ROUND_FLOOR)
        wallet.balance -= cents
        wallet.carry = exact - cents
