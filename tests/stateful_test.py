"""A machine that invents histories: Hypothesis chooses what happens next, and shrinks a history that went wrong.

Time passes before most things, by amounts that are likely to hurt: nothing at all, a microsecond beside an hour, half an
hour, a day, longer than the catch-up bound. Prices are small and wallets are often nearly empty, so that single hours
decide.
"""

# ruff: noqa: D102  (a rule is called what happens in it)

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any, ClassVar
from uuid import UUID

import psycopg
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.internal.conjecture import providers
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.concurrent_changes import ConcurrentChange
from tests.histories import History, prepare
from tests.reference.values import HOUR, SECOND

from containerstacks_billing.verification.verify import verify

MOST_INSTANCES = 8
STATUSES = ("running", "running", "stopped", "rebooting")
BILLABLE = (("running",), ("*",), ("running", "stopped"), ("stopped",), ("running", "rebooting"))

which = st.integers(0, 11)
statuses = st.sampled_from(STATUSES)
prices = st.sampled_from(
    [Decimal(p) for p in ("7.30", "6.00", "11.00", "3.00", "0.37", "99.99", "730.00", "0.00")]
)
backup_prices = st.sampled_from([Decimal(p) for p in ("0", "0.0024", "0.0100", "0.5000")])
balances = st.sampled_from([Decimal(b) for b in ("1000.00", "0.03", "0.00", "0.50", "0.01", "3.00")])
short_gaps = st.one_of(
    st.sampled_from((HOUR, 0, 1, HOUR // 2, HOUR - 1, HOUR + 1)), st.integers(HOUR // 4, 2 * HOUR)
)
gaps = st.one_of(
    short_gaps, short_gaps, st.integers(0, 9).map(lambda hours: hours * HOUR), st.integers(HOUR, 30 * HOUR)
)

# Spans of reversals and credits: whole hours, parts of one, and all that there was.
spans = st.one_of(st.sampled_from((HOUR, 2 * HOUR, HOUR // 2, 30 * HOUR)), st.integers(HOUR // 4, 12 * HOUR))

changes_meanwhile = st.lists(
    st.tuples(
        st.sampled_from(
            ("status", "plan", "move", "delete", "create", "money", "price", "replace", "rename")
        ),
        which,
        which,
        st.booleans(),
    ),
    max_size=4,
)


Change = tuple[str, int, int, bool]
Judge = Callable[[History, Counter[str]], None]


class FleetMachine(RuleBasedStateMachine):
    """A fleet to which anything happens; every run is compared with the reference model."""

    conn: psycopg.Connection[Any]
    tally: Counter[str]
    judges: tuple[Judge, ...]

    @initialize(
        start=st.integers(0, 400 * 24 * HOUR),
        bound=st.sampled_from((72, 72, 24, 5, 1)),
        balance=balances,
        price=prices,
    )
    def begin(self, start: int, bound: int, balance: Decimal, price: Decimal) -> None:
        at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(microseconds=start)
        self.history = History(self.conn, at, bound)
        self.plans = [self.history.plan(price), self.history.plan(Decimal("7.30"), Decimal("0.0024"))]
        self.hours_switched = self.corrected = False
        self.organizations = [
            self.history.organization(balance),
            self.history.organization(Decimal("1000.00")),
        ]
        self.instances: list[UUID] = [self.history.create(self.organizations[0], self.plans[0], "running")]

    def _one(self, things: list[Any], which: int) -> Any:
        return things[which % len(things)]

    @precondition(lambda self: len(self.instances) < MOST_INSTANCES and self.organizations)
    @rule(gap=short_gaps, organization=which, plan=which, status=statuses)
    def create(self, gap: int, organization: int, plan: int, status: str) -> None:
        self.history.wait(gap)
        owner = self._one(self.organizations, organization)
        self.instances.append(self.history.create(owner, self._one(self.plans, plan), status))

    @precondition(lambda self: self.instances)
    @rule(gap=gaps, instance=which, status=statuses)
    def stop_or_start(self, gap: int, instance: int, status: str) -> None:
        self.history.wait(gap)
        self.history.change(self._one(self.instances, instance), status=status)

    @precondition(lambda self: self.instances)
    @rule(gap=gaps, instance=which, plan=which)
    def resize(self, gap: int, instance: int, plan: int) -> None:
        self.history.wait(gap)
        self.history.change(self._one(self.instances, instance), plan=self._one(self.plans, plan))

    @precondition(lambda self: self.instances)
    @rule(gap=gaps, instance=which, backups=st.booleans())
    def switch_backups(self, gap: int, instance: int, backups: bool) -> None:
        self.history.wait(gap)
        self.history.change(self._one(self.instances, instance), backups=backups)

    @precondition(lambda self: self.instances and self.organizations)
    @rule(gap=gaps, instance=which, organization=which, plan=which, status=statuses)
    def move(self, gap: int, instance: int, organization: int, plan: int, status: str) -> None:
        self.history.wait(gap)
        self.history.change(
            self._one(self.instances, instance),
            organization=self._one(self.organizations, organization),
            plan=self._one(self.plans, plan),
            status=status,
        )

    @precondition(lambda self: len(self.instances) > 1)
    @rule(gap=gaps, status=statuses)
    def change_all(self, gap: int, status: str) -> None:
        self.history.wait(gap)
        self.history.change(*self.instances, status=status)

    @precondition(lambda self: self.instances)
    @rule(gap=gaps, instance=which)
    def delete(self, gap: int, instance: int) -> None:
        self.history.wait(gap)
        identifier = self._one(self.instances, instance)
        self.instances.remove(identifier)
        self.history.delete(identifier)

    @rule(gap=short_gaps)
    def dump(self, gap: int) -> None:
        self.history.wait(gap)
        self.history.dump()

    @precondition(lambda self: self.instances)
    @rule(gap=gaps)
    def sync(self, gap: int) -> None:
        self.history.wait(gap)
        self.history.replace_rows(*self.instances)

    @precondition(lambda self: self.instances)
    @rule(gap=gaps, instance=which)
    def put_back(self, gap: int, instance: int) -> None:
        self.history.wait(gap)
        self.history.replace_rows(self._one(self.instances, instance))

    @precondition(lambda self: self.history.dumped)
    @rule(gap=gaps, all_columns=st.booleans())
    def truncate_and_restore(self, gap: int, all_columns: bool) -> None:
        self.history.wait(gap)
        self.history.restore(all_columns)
        self.instances = sorted(self.history.model.instances)

    @precondition(lambda self: self._deleted_since_the_dump())
    @rule(
        gap=gaps,
        instance=which,
        last_billed_at=st.sampled_from(("last_billed_at", "null", "date_trunc('hour', billing_clock())")),
    )
    def undelete(self, gap: int, instance: int, last_billed_at: str) -> None:
        self.history.wait(gap)
        identifier = self._one(self._deleted_since_the_dump(), instance)
        self.history.undelete(identifier, last_billed_at)
        self.instances.append(identifier)

    def _deleted_since_the_dump(self) -> list[UUID]:
        return [
            one
            for one, row in self.history.dumped.items()
            if one not in self.history.model.instances
            and row.organization in self.history.model.organizations
        ]

    @precondition(lambda self: self.instances)
    @rule(gap=gaps, instance=which)
    def rename(self, gap: int, instance: int) -> None:
        self.history.wait(gap)
        identifier = self._one(self.instances, instance)
        self.instances.remove(identifier)
        self.instances.append(self.history.rename(identifier))

    @precondition(lambda self: self.history.dumped)
    @rule()
    def set_back_silently(self) -> None:
        self.history.set_back_silently()

    @precondition(lambda self: self.instances)
    @rule(gap=short_gaps, instance=which, label=st.sampled_from(("a", "b")))
    def nothing_that_counts(self, gap: int, instance: int, label: str) -> None:
        self.history.wait(gap)
        identifier = self._one(self.instances, instance)
        self.history.fleet.set(identifier, label=label)
        self.history.change_and_roll_back(identifier, "stopped")

    @precondition(lambda self: self.instances)
    @rule(instance=which, hours=st.integers(0, 3), beside=st.sampled_from((0, -1, 1)))
    def wait_for_the_full_hour(self, instance: int, hours: int, beside: int) -> None:
        watermark = self.history.model.instances[self._one(self.instances, instance)].watermark
        to_full_hour = (watermark - self.history.now) % HOUR
        self.history.wait(max(0, to_full_hour + hours * HOUR + beside))

    @rule(hours=st.sampled_from((25, 20, 71, 73, 100)), beside=st.sampled_from((0, 1, HOUR // 3)))
    def outage(self, hours: int, beside: int) -> None:
        self.history.wait(hours * HOUR + beside)

    @rule(gap=short_gaps, plan=which, price=prices, again=st.none() | prices)
    def reprice(self, gap: int, plan: int, price: Decimal, again: Decimal | None) -> None:
        self.history.wait(gap)
        self.history.reprice(self._one(self.plans, plan), price)
        if again is not None:
            self.history.reprice(self._one(self.plans, plan), again)

    @rule(gap=short_gaps, plan=which, backup=backup_prices)
    def reprice_backups(self, gap: int, plan: int, backup: Decimal) -> None:
        self.history.wait(gap)
        self.history.reprice(self._one(self.plans, plan), None, backup)

    @rule(gap=short_gaps, plan=which, price=prices, later=st.one_of(st.integers(1, 5 * HOUR), st.just(HOUR)))
    def announce_price(self, gap: int, plan: int, price: Decimal, later: int) -> None:
        self.history.wait(gap)
        self.history.announce(self._one(self.plans, plan), price, later)

    @precondition(lambda self: self.history.runs and not self.hours_switched)
    @rule(
        gap=short_gaps, plan=which, price=prices, ago=st.one_of(st.integers(1, 40 * HOUR), st.just(2 * HOUR))
    )
    def correct_price(self, gap: int, plan: int, price: Decimal, ago: int) -> None:
        self.history.wait(gap)
        self.corrected = True
        self.history.correct(self._one(self.plans, plan), price, ago)

    @precondition(lambda self: self.history.model.units)
    @rule(ago=spans, length=spans)
    def reverse(self, ago: int, length: int) -> None:
        self.history.adjust(ago, length, None)

    @precondition(lambda self: self.history.model.units)
    @rule(ago=spans, length=spans, factor=st.sampled_from([Decimal(f) for f in ("0.37", "1", "0.5", "2.5")]))
    def credit(self, ago: int, length: int, factor: Decimal) -> None:
        self.history.adjust(ago, length, factor)

    @precondition(lambda self: self.history.orders)
    @rule(gap=short_gaps, order=which)
    def undo(self, gap: int, order: int) -> None:
        self.history.wait(gap)
        self.history.undo(order)

    @rule(
        organization=which,
        balance=balances,
        currency=st.sampled_from(("USD", "USD", "EUR")),
        age=st.integers(0, 9),
    )
    def one_more_wallet(self, organization: int, balance: Decimal, currency: str, age: int) -> None:
        self.history.wallet(self._one(self.organizations, organization), balance, currency, age * HOUR)

    @rule(organization=which)
    def remove_wallet(self, organization: int) -> None:
        self.history.remove_wallet(self._one(self.organizations, organization))

    @precondition(lambda self: len(self.organizations) < 4)
    @rule(balance=balances)
    def new_organization(self, balance: Decimal) -> None:
        self.organizations.append(self.history.organization(balance))

    @precondition(lambda self: len(self.organizations) > 2)
    @rule(gap=short_gaps, organization=which)
    def delete_organization(self, gap: int, organization: int) -> None:
        self.history.wait(gap)
        gone = self._one(self.organizations, organization)
        self.organizations.remove(gone)
        self.history.delete_organization(gone)
        self.instances = [i for i in self.instances if i in self.history.model.instances]

    @rule(organization=which, amount=balances)
    def top_up(self, organization: int, amount: Decimal) -> None:
        self.history.move_money(self._one(self.organizations, organization), amount)

    @rule(organization=which, left=st.sampled_from([Decimal(b) for b in ("0.00", "0.01", "0.07", "-0.01")]))
    def debit_by_hand(self, organization: int, left: Decimal) -> None:
        identifier = self._one(self.organizations, organization)
        wallet = self.history.model.payer(identifier, "USD")
        if wallet is not None and wallet.balance > left:
            self.history.move_money(identifier, left - wallet.balance)

    @rule(bills=st.sampled_from(BILLABLE), partial_hour=st.sampled_from(("prorate", "full", "free")))
    def switch_policy(self, bills: tuple[str, ...], partial_hour: str) -> None:
        self.history.terms = replace(self.history.terms, statuses=frozenset(bills), partial_hour=partial_hour)

    @precondition(lambda self: not self.corrected)
    @rule(hours_per_month=st.sampled_from((730, 720, 672, 744)))
    def switch_hours_per_month(self, hours_per_month: int) -> None:
        # A correction tells the rate of a free hour apart by HOURS_PER_MONTH alone, so the two do not meet here.
        self.hours_switched = True
        self.history.terms = replace(self.history.terms, hours_per_month=hours_per_month)

    @rule(bound=st.sampled_from((72, 24, 3)))
    def switch_bound(self, bound: int) -> None:
        self.history.terms = replace(self.history.terms, max_catch_up_hours=bound)

    @precondition(lambda self: "held" in self.history.model.quarantine.values())
    @rule(
        gap=short_gaps,
        kept=st.sampled_from((None, 0, 1, 5, 30)),
        only=st.sampled_from(("all", "one", "owner")),
    )
    def release(self, gap: int, kept: int | None, only: str) -> None:
        self.history.wait(gap)
        held = sorted(key for key, reason in self.history.model.quarantine.items() if reason == "held")
        chosen = {"all": {}, "one": {"instance": held[0][1]}, "owner": {"organization": held[0][0]}}
        self.history.release(kept, **chosen[only])

    @rule(gap=gaps, batch_size=st.sampled_from((2500, 1, 2, 3)), workers=st.sampled_from((1, 1, 1, 2)))
    def bill(self, gap: int, batch_size: int, workers: int) -> None:
        self.history.wait(gap)
        self.history.bill(batch_size=batch_size, workers=workers)

    @rule(gap=gaps, batch_size=st.sampled_from((2500, 1, 2)), meanwhile=changes_meanwhile)
    def bill_during_changes(self, gap: int, batch_size: int, meanwhile: list[Change]) -> None:
        self.history.wait(gap)
        self.history.bill(batch_size=batch_size, workers=1, meanwhile=self._events(meanwhile))

    def _events(self, meanwhile: list[Change]) -> list[ConcurrentChange]:
        return [
            ConcurrentChange(partial(getattr(self, f"_meanwhile_{kind}"), first, second), while_charging)
            for kind, first, second, while_charging in meanwhile
        ]

    def _meanwhile_status(self, first: int, second: int) -> None:
        if self.instances:
            self.history.change(self._one(self.instances, first), status=self._one(list(STATUSES), second))

    def _meanwhile_plan(self, first: int, second: int) -> None:
        if self.instances:
            self.history.change(self._one(self.instances, first), plan=self._one(self.plans, second))

    def _meanwhile_move(self, first: int, second: int) -> None:
        if self.instances:
            owner = self._one(self.organizations, second)
            self.history.change(self._one(self.instances, first), organization=owner)

    def _meanwhile_delete(self, first: int, _: int) -> None:
        if self.instances:
            identifier = self._one(self.instances, first)
            self.instances.remove(identifier)
            self.history.delete(identifier)

    def _meanwhile_replace(self, first: int, _: int) -> None:
        if self.instances:
            self.history.replace_rows(self._one(self.instances, first))

    def _meanwhile_rename(self, first: int, _: int) -> None:
        if self.instances:
            identifier = self._one(self.instances, first)
            self.instances.remove(identifier)
            self.instances.append(self.history.rename(identifier))

    def _meanwhile_create(self, first: int, second: int) -> None:
        owner = self._one(self.organizations, first)
        self.instances.append(self.history.create(owner, self._one(self.plans, second), "running"))

    def _meanwhile_money(self, first: int, second: int) -> None:
        amount = (Decimal("0.01"), Decimal("5.00"), Decimal("-0.02"))[second % 3]
        self.history.move_money(self._one(self.organizations, first), amount)

    def _meanwhile_price(self, first: int, second: int) -> None:
        self.history.reprice(self._one(self.plans, first), Decimal(second))

    @rule(gap=gaps, lag=st.sampled_from((0, 1, 5 * SECOND, 20 * 60 * SECOND)), meanwhile=changes_meanwhile)
    def bill_as_of_a_moment_ago(self, gap: int, lag: int, meanwhile: list[Change]) -> None:
        self.history.wait(gap)
        self.history.bill(lag=lag, workers=1, meanwhile=self._events(meanwhile))

    @rule(gap=gaps, organization=which, meanwhile=changes_meanwhile)
    def bill_one_organization(self, gap: int, organization: int, meanwhile: list[Change]) -> None:
        self.history.wait(gap)
        owner = self._one(self.organizations, organization)
        self.history.bill(organization=owner, workers=1, meanwhile=self._events(meanwhile))

    def teardown(self) -> None:
        if hasattr(self, "history") and not self.history.went_wrong:
            self.history.wait(HOUR)
            self.history.bill(workers=1)
            # What the proof of the books says of adjustments; of wallets that were taken away it says more.
            found = verify(self.history.fleet.conninfo).discrepancies
            assert [] == [str(one) for one in found if one.check in {"reversals", "amounts", "runs"}]
            for judge in self.judges:
                judge(self.history, self.tally)
            self.tally.update(unit.status for unit in self.history.model.units)
            self.tally["machines"] += 1
            self.tally["runs"] += self.history.runs
            self.tally["held"] += self.history.was_held
            self.tally.update(self.history.happened)


class Reused(psycopg.Connection[Any]):
    """A connection that is put aside when it is closed, and taken again; a history opens a hundred of them."""

    aside: ClassVar[list[Reused]] = []

    def close(self) -> None:
        """Keep it, if it is fit to be used again."""
        idle = self.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        if idle and not self.broken:
            self.aside.append(self)
        else:
            super().close()


@contextmanager
def connections_reused() -> Iterator[None]:
    """Let the product open connections that were opened before; nothing else about them changes."""

    def connect(**arguments: Any) -> Any:
        with suppress(IndexError):
            return Reused.aside.pop()
        return Reused.connect(**arguments)

    opened = psycopg.connect
    psycopg.connect = connect  # type: ignore[assignment]
    try:
        yield
    finally:
        psycopg.connect = opened
        while Reused.aside:
            psycopg.Connection.close(Reused.aside.pop())


@contextmanager
def same_choices_for_a_seed() -> Iterator[None]:
    """Keep Hypothesis from drawing constants out of whichever modules happen to be imported.

    With them a seed means other histories in a whole test run than in one file, and the command that finds a failure
    again finds nothing.
    """
    found = providers._get_local_constants
    providers._get_local_constants = providers.Constants
    providers.CONSTANTS_CACHE.cache.clear()
    try:
        yield
    finally:
        providers._get_local_constants = found
        providers.CONSTANTS_CACHE.cache.clear()


def machine(conn: psycopg.Connection[Any], judges: tuple[Judge, ...] = ()) -> type[FleetMachine]:
    """Bind the machine to a migrated database of its own; each judge looks at what a history left behind."""
    prepare(conn)
    bound = {"conn": conn, "tally": Counter(), "judges": judges, "__module__": __name__}
    return type("FleetMachine", (FleetMachine,), bound)


def live(
    conn: psycopg.Connection[Any],
    histories: int,
    steps: int,
    seed: int,
    shrink: bool = True,
    judges: tuple[Judge, ...] = (),
) -> type[FleetMachine]:
    """Run that many histories, the same for the same seed, and return the machine with its counts.

    Raises what differed first, shrunk to few steps, with the command that finds it again.
    """
    kind = machine(conn, judges)
    kind._hypothesis_internal_use_seed = seed  # type: ignore[attr-defined]
    chosen = settings(
        max_examples=histories,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        derandomize=False,
        print_blob=False,
        phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    try:
        with connections_reused(), same_choices_for_a_seed():
            run_state_machine_as_test(kind, settings=chosen)
    except Exception as error:
        error.add_note(f"find it again: ./dev reference --seed {seed} --machines {histories} --steps {steps}")
        raise
    return kind
