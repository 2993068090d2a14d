"""Random histories of a fleet, run twice: by the product on a real database, and by the reference model.

`History` does each thing that a host, an operator or a clock can do to both. tests/comparison.py finds the first digit in
which they differ, tests/concurrent_changes.py lets the host act while a run is under way, tests/stateful_test.py chooses what happens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import ROUND_CEILING, Decimal
from typing import Any
from uuid import UUID

import psycopg
from tests.comparison import compare, micros
from tests.concurrent_changes import ConcurrentChange, Run
from tests.fleet import Fleet
from tests.reference import operator
from tests.reference.model import Model
from tests.reference.values import CENT, Instance, Terms, Wallet, amount_of

from containerstacks_billing.adjustments.model import Mode, Order, OrderKind, Scope
from containerstacks_billing.adjustments.model import Outcome as Posted
from containerstacks_billing.adjustments.orders import post_order
from containerstacks_billing.charging import model as run
from containerstacks_billing.charging.model import Outcome
from containerstacks_billing.holds.model import EVERY_HOUR, Decision, ReleaseDecision
from containerstacks_billing.holds.release import release
from containerstacks_billing.pricing import corrections
from containerstacks_billing.pricing.model import Price
from containerstacks_billing.pricing.versions import find_plans, set_price

# Everything that a history can write, and the rows that a migration left.
_EMPTY = """
    set session_replication_role = replica;
    delete from vps_billing_cycles; delete from payment_transactions; delete from vps_instances; delete from wallets;
    delete from organizations; delete from users; delete from vps_plans; delete from plan_price_versions;
    delete from billing_usage_segments; delete from billing_quarantine; delete from billing_decisions;
    delete from billing_runs; delete from billing_metering_failures; delete from billing_policies;
    delete from billing_price_corrections; delete from billing_adjustments; delete from billing_adjustment_orders; delete from billing_charged_until;
    select setval('test_identifiers', 1);
    insert into billing_policies (billable_statuses, partial_hour, valid_from) values ('{running}', 'prorate', '-infinity');
    reset session_replication_role;
"""
# Identifiers decide who is paid first, so a history that is lived again needs the same ones. The backup columns are those of
# the host's successor.
_PREPARE = """
    create sequence if not exists test_identifiers;
    alter table organizations alter id set default md5(nextval('test_identifiers')::text)::uuid;
    alter table vps_instances alter id set default md5(nextval('test_identifiers')::text)::uuid;
    alter table wallets alter id set default md5(nextval('test_identifiers')::text)::uuid;
    alter table vps_plans add column if not exists backup_price_hourly numeric(12,4) default 0,
        add column if not exists backup_upcharge_hourly numeric(12,4) default 0;
    alter table vps_instances add column if not exists backup_frequency varchar(20) default 'none';
    select billing_adapt_to_host();
"""
# What a host copies of its own table; a dump copies all columns.
_HOST_COLUMNS = "id, organization_id, plan_id, provider_instance_id, label, status, backup_frequency, created_at, last_billed_at"
_COLUMNS = {
    "organization": "organization_id",
    "plan": "plan_id",
    "status": "status",
    "backups": "backup_frequency",
}


def prepare(conn: psycopg.Connection[Any]) -> None:
    """Make a database fit for histories that can be lived again."""
    conn.execute(_PREPARE)


class History:
    """One fleet, and the model of it."""

    def __init__(self, conn: psycopg.Connection[Any], at: datetime, max_catch_up_hours: int = 72) -> None:
        conn.execute(_EMPTY)
        self.fleet = Fleet(conn, at)
        self.model = Model()
        self.terms = Terms(max_catch_up_hours=max_catch_up_hours)
        self.policy_since = -1
        self.opening: dict[UUID, Decimal] = {}
        self.lost_wallets: set[UUID] = set()
        self.postponed: list[Callable[[], None]] | None = None
        self.runs = 0
        self.was_held = False
        self.happened: Counter[str] = Counter()
        self.went_wrong = False
        self.dumped: dict[UUID, Instance] = {}
        self.set_back: set[UUID] = set()
        self.orders: dict[int, tuple[str, operator.Changed]] = {}

    @property
    def now(self) -> int:
        """The present instant, in microseconds."""
        return micros(self.fleet.now)

    def wait(self, microseconds: int) -> None:
        """Let time pass."""
        if microseconds:
            self.fleet.at(timedelta(microseconds=microseconds))

    def _model(self, effect: Callable[..., None], *values: Any, **columns: Any) -> None:
        """Let the model do the same, now or when the transaction of the host is committed."""
        if self.postponed is None:
            effect(*values, **columns)
        else:
            self.postponed.append(lambda: effect(*values, **columns))

    # What the host does.

    def plan(self, monthly: Decimal, backup: Decimal = Decimal(0)) -> str:
        """Create a plan and return the name by which instances know it."""
        plan = self.fleet.plan(str(monthly))
        self._show_backup(plan, backup)
        self.fleet.conn.execute("delete from plan_price_versions where plan_id = %s", (plan,))
        self.fleet.conn.execute(
            "select billing_record_price(p, billing_clock()) from vps_plans p where id = %s", (plan,)
        )
        self.model.new_plan(str(plan), monthly, backup)
        return str(plan)

    def reprice(self, plan: str, monthly: Decimal | None, backup: Decimal | None = None) -> None:
        """Edit the prices of a plan."""
        if monthly is not None:
            self.fleet.reprice(UUID(plan), str(monthly))
            self._model(self.model.reprice, plan, self.now, monthly=monthly)
        if backup is not None:
            self._show_backup(UUID(plan), backup)
            self._model(self.model.reprice, plan, self.now, backup=backup)

    def _show_backup(self, plan: UUID, backup: Decimal) -> None:
        # Always in the same halves: another mix of the two columns would be recorded as a price of its own.
        self.fleet.conn.execute(
            "update vps_plans set backup_price_hourly = %s, backup_upcharge_hourly = %s where id = %s",
            (backup / 2, backup / 2, plan),
        )

    def organization(self, balance: Decimal) -> UUID:
        """Create an organization with a wallet."""
        organization = self.fleet.organization(None)
        self.model.organizations.add(organization)
        self.opening[organization] = Decimal(0)
        self.wallet(organization, balance)
        return organization

    def wallet(self, organization: UUID, balance: Decimal, currency: str = "USD", age: int = 0) -> None:
        """Give an organization one more wallet, which may be older than the others."""
        created_at = self.fleet.now - timedelta(microseconds=age)
        row = self.fleet.rows(
            "insert into wallets (organization_id, balance, currency, created_at) values (%s, %s, %s, %s) returning id",
            organization,
            balance,
            currency,
            created_at,
        )
        self.model.open_wallet(row[0].id, Wallet(organization, balance, currency, micros(created_at)))
        self.opening[organization] += balance

    def remove_wallet(self, organization: UUID) -> None:
        """Take the wallet away that pays, with all that is in it."""
        wallet = self.model.payer(organization, self.terms.currency)
        for identifier in [i for i, one in self.model.wallets.items() if one is wallet]:
            self.fleet.conn.execute("delete from wallets where id = %s", (identifier,))
            self.model.remove_wallet(identifier)
            self.lost_wallets.add(organization)

    def delete_organization(self, organization: UUID) -> None:
        """Delete an organization and all that the host knows of it."""
        self.fleet.conn.execute("delete from organizations where id = %s", (organization,))
        self.model.delete_organization(organization, self.now)

    def create(self, organization: UUID, plan: str, status: str) -> UUID:
        """Create an instance."""
        instance = self.fleet.instance(organization, plan, status)
        self._model(self.model.create, instance, organization, plan, status, self.now)
        return instance

    def change(self, *instances: UUID, **columns: Any) -> None:
        """Change organization, plan, status or backups of instances in one statement."""
        assignments = ", ".join(f"{_COLUMNS[name]} = %s" for name in columns)
        values = [
            "daily" if value is True else "none" if value is False else value for value in columns.values()
        ]
        self.fleet.conn.execute(
            f"update vps_instances set {assignments} where id = any(%s)", (*values, list(instances))
        )
        for instance in instances:
            self._model(self.model.change, instance, self.now, **columns)

    def change_and_roll_back(self, instance: UUID, status: str) -> None:
        """Change a status and delete the instance in a transaction that never happened."""
        with self.fleet.conn.transaction(force_rollback=True):
            self.fleet.set(instance, status=status)
            self.fleet.delete(instance)

    def delete(self, *instances: UUID) -> None:
        """Delete instances in one statement."""
        self.fleet.conn.execute("delete from vps_instances where id = any(%s)", (list(instances),))
        for instance in instances:
            self._model(self.model.delete, instance, self.now)

    def dump(self) -> None:
        """Copy all instances as they stand, with every column."""
        self.fleet.conn.execute(
            "drop table if exists dumped; create table dumped as select * from vps_instances"
        )
        self.dumped = {one: replace(row) for one, row in self.model.instances.items()}

    def replace_rows(self, *instances: UUID) -> None:
        """Delete instances and insert them again as they were, in one transaction, as a sync does."""
        chosen = list(instances)
        with self.fleet.conn.transaction():
            self.fleet.conn.execute(
                "create temporary table copied on commit drop as select * from vps_instances where id = any(%s)",
                (chosen,),
            )
            self.fleet.conn.execute("delete from vps_instances where id = any(%s)", (chosen,))
            self.fleet.conn.execute(
                f"insert into vps_instances ({_HOST_COLUMNS}) select {_HOST_COLUMNS} from copied"
            )
            # A temporary table is dropped at the end of the outer transaction, where there is one.
            self.fleet.conn.execute("drop table copied")
        for instance in chosen:
            self._model(self._replaced, instance, self.now)

    def _replaced(self, instance: UUID, now: int) -> None:
        if row := self.model.instances.get(instance):
            self.model.delete(instance, now)
            self.model.put_back(instance, row, row.watermark)

    def restore(self, all_columns: bool) -> None:
        """Truncate the table and fill it from the dump; who was created since is gone, who was deleted since is back."""
        columns = ", ".join(self._all_columns()) if all_columns else _HOST_COLUMNS
        with self.fleet.conn.transaction():
            self.fleet.conn.execute("truncate vps_instances")
            self.fleet.conn.execute(
                f"insert into vps_instances ({columns}) select {columns} from dumped"
                " where organization_id in (select id from organizations)"
            )
        for instance in list(self.model.instances):
            self.model.delete(instance, self.now)
        for instance, row in self.dumped.items():
            if row.organization in self.model.organizations:
                self.model.put_back(instance, row, row.watermark)

    def _all_columns(self) -> list[str]:
        rows = self.fleet.rows(
            "select attname from pg_attribute where attrelid = 'vps_instances'::regclass and attnum > 0"
            " and not attisdropped"
        )
        return [row.attname for row in rows]

    def undelete(self, instance: UUID, last_billed_at: str) -> None:
        """Insert a row of the dump that was deleted since; `last_billed_at` is an expression over it."""
        claimed = self.fleet.rows(
            f"insert into vps_instances ({_HOST_COLUMNS}) select id, organization_id, plan_id, provider_instance_id, label,"
            f" status, backup_frequency, created_at, {last_billed_at} from dumped where id = %s"
            f" returning (select coalesce({last_billed_at}, created_at) from dumped where id = %s) as claimed",
            instance,
            instance,
        )[0].claimed
        self.model.put_back(instance, self.dumped[instance], micros(claimed))

    def rename(self, instance: UUID) -> UUID:
        """Give an instance another id."""
        row = self.fleet.rows(
            "update vps_instances set id = md5(nextval('test_identifiers')::text)::uuid where id = %s returning id",
            instance,
        )[0]
        self._model(self.model.rename, instance, row.id, self.now)
        return row.id  # type: ignore[no-any-return]

    def set_back_silently(self) -> None:
        """Write the watermarks of the dump back with our triggers off; the next run has to find out by itself."""
        with self.fleet.conn.transaction():
            self.fleet.conn.execute("set local session_replication_role = replica")
            rows = self.fleet.rows(
                "update vps_instances set last_billed_at = dumped.last_billed_at, rated_until = dumped.rated_until"
                " from dumped where dumped.id = vps_instances.id and dumped.rated_until < vps_instances.rated_until"
                " returning vps_instances.id"
            )
        self.set_back |= {row.id for row in rows}

    def move_money(self, organization: UUID, amount: Decimal) -> None:
        """Top up, or debit by hand, the wallet that pays; with a ledger entry, as the host does."""
        wallet = self.model.payer(organization, self.terms.currency)
        for identifier in [i for i, one in self.model.wallets.items() if one is wallet]:
            with self.fleet.conn.transaction():
                self.fleet.conn.execute(
                    "insert into payment_transactions (organization_id, amount, currency, payment_method,"
                    " payment_provider, status, description) values (%s, %s, 'USD', 'paypal', 'paypal', 'completed', '')",
                    (organization, amount),
                )
                self.fleet.conn.execute(
                    "update wallets set balance = balance + %s where id = %s", (amount, identifier)
                )
            self._model(self._credit, identifier, amount)

    def _credit(self, wallet: UUID, amount: Decimal) -> None:
        self.model.wallets[wallet].balance += amount

    # What an operator does.

    def announce(self, plan: str, monthly: Decimal, later: int) -> None:
        """Enter a price that begins later."""
        at = self.fleet.now + timedelta(microseconds=later)
        found = find_plans(self.fleet.conn, plan)[0]
        set_price(self.fleet.conn, found, Price(monthly, Decimal(0)), at, by="operator", reason=None)
        self.happened["announced prices"] += 1
        operator.announce(self.model, plan, monthly, micros(at), self.now)

    def correct(self, plan: str, monthly: Decimal, ago: int) -> None:
        """Put another price in the place of a past one, after wallets that fall short for it were topped up."""
        at = self.fleet.now - timedelta(microseconds=ago)
        self.model.show_prices(self.now)
        self._provide(self._added(plan, monthly, micros(at)))
        found = find_plans(self.fleet.conn, plan)[0]
        price = Price(monthly, Decimal(0))
        draft = corrections.draft(self.fleet.conn, found, price, at)
        if draft is None or draft.correction_id is not None:
            return
        operator.correct(self.model, plan, monthly, micros(at), self.now, self.terms.currency)
        _, short_of = corrections.correct(
            self.fleet.conninfo, draft, self.terms.currency, holder="test", by="operator", reason=None
        )
        self.happened["price corrections"] += 1
        assert all(self.model.payer(one.organization_id, "USD") is None for one in short_of)
        compare(self, after_run=False)

    def adjust(self, ago: int, length: int, factor: Decimal | None) -> None:
        """Reverse the hours of a span, or credit a share of them, and remember it for an undo.

        `ago` counts from the end of the hours that were charged last.
        """
        ago += self.now - max((unit.end for unit in self.model.units), default=self.now)
        begin = self.fleet.now - timedelta(microseconds=ago)
        scope = Scope(begin=begin, end=begin + timedelta(microseconds=length))
        order = Order(OrderKind.REVERSAL, Mode.WAIVE, scope, "operator", "said so")
        if factor is not None:
            order = Order(OrderKind.CREDIT, Mode.CREDIT, scope, "operator", "said so", factor=factor)
        changes = operator.order_differences(self.model, self.now - ago, self.now - ago + length, factor)
        done = operator.adjust(self.model, changes, self.terms.currency, factor is not None)
        outcome = self._post(order)
        self.happened["credited spans" if factor is not None else "reversed spans"] += bool(done)
        if outcome.order.order_id is not None:
            # The same scope again goes on with the same order.
            self.orders[outcome.order.order_id] = (
                order.kind,
                self.orders.get(outcome.order.order_id, ("", []))[1] + done,
            )
        compare(self, after_run=False)

    def undo(self, which: int) -> None:
        """Undo one of the orders, after wallets that fall short for it were topped up."""
        if not self.orders:
            return
        number = sorted(self.orders)[which % len(self.orders)]
        kind, changed = self.orders.pop(number)
        added: dict[UUID, Decimal] = {}
        for unit, rate in operator.undo_differences(changed):
            if unit.status == "billed":
                more = amount_of(rate, unit.end - unit.start) - amount_of(
                    unit.rate_now, unit.end - unit.start
                )
                added[unit.organization] = added.get(unit.organization, Decimal(0)) + more
        self._provide(added)
        operator.undo(self.model, changed, self.terms.currency)
        self._post(Order(OrderKind(kind), Mode.UNDO, Scope(), "operator", "said so", undoes=number))
        self.happened["undone orders"] += bool(changed)
        compare(self, after_run=False)

    def _post(self, order: Order) -> Posted:
        outcome = post_order(self.fleet.conninfo, order, holder="test")
        assert all(self.model.payer(one.organization_id, "USD") is None for one in outcome.effects.left)
        return outcome

    def _provide(self, added: dict[UUID, Decimal]) -> None:
        """Top up the wallets that cannot bear what is added."""
        for organization, amount in added.items():
            wallet = self.model.payer(organization, self.terms.currency)
            if wallet is not None and wallet.balance - wallet.carry < amount:
                short = amount - wallet.balance + wallet.carry
                self.move_money(organization, short.quantize(CENT, ROUND_CEILING))

    def _added(self, plan: str, monthly: Decimal, at: int) -> dict[UUID, Decimal]:
        added: dict[UUID, Decimal] = {}
        for unit, _, difference in operator.differences(self.model, plan, monthly, at, self.now):
            if unit.status == "billed":
                added[unit.organization] = added.get(unit.organization, Decimal(0)) + difference
        return added

    def release(self, kept_hours: int | None, **only: UUID) -> None:
        """Decide about held instances: charge all their hours, the most recent ones, or none."""
        decision = Decision.CHARGE if kept_hours is None else Decision.CAP if kept_hours else Decision.WAIVE
        order = ReleaseDecision(
            decision, "operator", "said so", EVERY_HOUR if kept_hours is None else kept_hours, **only
        )
        self._set_terms()
        release(self.fleet.conninfo, self.fleet.terms, order, "test-holder")
        kept = float("inf") if kept_hours is None else kept_hours
        self.happened["releases"] += 1
        operator.release(self.model, self.terms, self.now, kept, **only)
        compare(self, after_run=False)

    def bill(
        self,
        *,
        organization: UUID | None = None,
        lag: int = 0,
        meanwhile: list[ConcurrentChange] | None = None,
        **order: Any,
    ) -> None:
        """Run, as of a little while ago when there is a lag, and compare everything.

        What is given as `meanwhile` happens during the run: before its batches or while they wait for a lock.
        """
        policy = self.model.policies[-1]
        changes = (policy.statuses, policy.partial_hour) != (self.terms.statuses, self.terms.partial_hour)
        if changes:
            lag = 0
            if self.now <= self.policy_since:
                self.wait(1)
            self.policy_since = self.now
        self._set_terms()
        self.went_wrong = True
        as_of = self.fleet.now - timedelta(microseconds=lag)
        lived = Run(self, micros(as_of), organization, list(meanwhile or []))
        result = self.fleet.bill(
            lived.charger(), organization=organization, as_of=as_of, host_clock=as_of, **order
        )
        self.model.close_run(self.terms, micros(as_of), organization)
        assert (Outcome.COMPLETED, None) == (result.outcome, result.error_message)
        compare(self)
        self.runs += 1
        self.was_held |= "held" in self.model.quarantine.values()
        assert lived.amount == result.amount
        self.went_wrong = False

    def _set_terms(self) -> None:
        self.fleet.terms = run.Terms(
            billable_statuses=tuple(sorted(self.terms.statuses)),
            partial_hour=self.terms.partial_hour,
            hours_per_month=self.terms.hours_per_month,
            max_catch_up_hours=self.terms.max_catch_up_hours,
            brake_factor=Decimal(10_000),
        )
