"""Random histories of a fleet, lived twice: by the product on a real database, and by the reference model.

`History` does each thing that a host, an operator or a clock can do to both, and `compare` finds the first digit in which
they differ. The rows that the product writes may be merged as it likes, so they are taken apart into hours before they are
compared. tests/machine.py chooses what happens.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
from tests.fleet import Fleet
from tests.reference.model import HOUR, Model, Terms, Wallet

from containerstacks_billing.billing import run
from containerstacks_billing.billing.run import Outcome

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Everything that a history can write, and the rows that a migration left.
_EMPTY = """
    set session_replication_role = replica;
    delete from vps_billing_cycles; delete from payment_transactions; delete from vps_instances; delete from wallets;
    delete from organizations; delete from users; delete from vps_plans; delete from plan_price_versions;
    delete from billing_usage_segments; delete from billing_quarantine; delete from billing_decisions;
    delete from billing_runs; delete from billing_metering_failures; delete from billing_policies;
    select setval('test_identifiers', 1);
    insert into billing_policies (billable_statuses, partial_hour, valid_from) values ('{running}', 'prorate', '-infinity');
    reset session_replication_role;
"""
# Identifiers decide who is paid first, so a history that is lived again needs the same ones.
_SAME_IDENTIFIERS = """
    create sequence if not exists test_identifiers;
    alter table organizations alter id set default md5(nextval('test_identifiers')::text)::uuid;
    alter table vps_instances alter id set default md5(nextval('test_identifiers')::text)::uuid;
"""
Row = tuple[Any, ...]


def prepare(conn: psycopg.Connection[Any]) -> None:
    """Make a database fit for histories that can be lived again."""
    conn.execute(_SAME_IDENTIFIERS)


def same(what: str, expected: Any, actual: Any) -> None:
    """Fail with the rows that only one side has."""
    if expected == actual:
        return
    rows = [list(side.items()) if isinstance(side, dict) else list(side) for side in (expected, actual)]
    only = [[row for row in rows[side] if row not in rows[1 - side]] for side in (0, 1)]
    raise AssertionError(
        f"{what} differ\n  the model says:\n{_listed(only[0])}\n  the database says:\n{_listed(only[1])}"
    )


def _listed(rows: list[Row]) -> str:
    return "\n".join(f"    {', '.join(_written(value) for value in row)}" for row in rows) or "    nothing"


def _written(value: Any) -> str:
    """Write identifiers short and microseconds as dates."""
    if isinstance(value, UUID):
        return str(value)[:8]
    if isinstance(value, int) and value > 10**12:
        return f"{EPOCH + timedelta(microseconds=value):%m-%d %H:%M:%S.%f}"
    return f"({', '.join(map(_written, value))})" if isinstance(value, tuple) else str(value)


def micros(at: datetime) -> int:
    """Count the microseconds since 1970."""
    return (at - EPOCH) // timedelta(microseconds=1)


class History:
    """One fleet, and the model of it."""

    def __init__(self, conn: psycopg.Connection[Any], at: datetime, max_catch_up_hours: int = 72) -> None:
        conn.execute(_EMPTY)
        self.fleet = Fleet(conn, at)
        self.model = Model()
        self.terms = Terms(max_catch_up_hours=max_catch_up_hours)
        self.policy_since = -1
        self.opening: dict[UUID, Decimal] = {}
        self.runs = 0
        self.was_held = False
        self.went_wrong = False

    @property
    def now(self) -> int:
        """The present instant, in microseconds."""
        return micros(self.fleet.now)

    def wait(self, microseconds: int) -> None:
        """Let time pass."""
        if microseconds:
            self.fleet.at(timedelta(microseconds=microseconds))

    # Things that happen.

    def plan(self, monthly: Decimal) -> str:
        """Create a plan and return the name by which instances know it."""
        plan = str(self.fleet.plan(str(monthly)))
        self.model.price(plan, monthly, self.now)
        return plan

    def reprice(self, plan: str, monthly: Decimal) -> None:
        """Change a price."""
        self.fleet.reprice(UUID(plan), str(monthly))
        self.model.price(plan, monthly, self.now)

    def organization(self, balance: Decimal) -> UUID:
        """Create an organization with a wallet."""
        organization = self.fleet.organization(str(balance))
        self.model.wallets[organization] = Wallet(balance)
        self.opening[organization] = balance
        return organization

    def delete_organization(self, organization: UUID) -> None:
        """Delete an organization and all that the host knows of it."""
        self.fleet.conn.execute("delete from organizations where id = %s", (organization,))
        self.model.delete_organization(organization, self.now)

    def create(self, organization: UUID, plan: str, status: str) -> UUID:
        """Create an instance."""
        instance = self.fleet.instance(organization, plan, status)
        self.model.create(instance, organization, plan, status, self.now)
        return instance

    def change(self, *instances: UUID, **columns: Any) -> None:
        """Change organization, plan or status of instances in one statement."""
        names = {"organization": "organization_id", "plan": "plan_id", "status": "status"}
        assignments = ", ".join(f"{names[name]} = %s" for name in columns)
        self.fleet.conn.execute(
            f"update vps_instances set {assignments} where id = any(%s)", (*columns.values(), list(instances))
        )
        for instance in instances:
            self.model.change(instance, self.now, **columns)

    def change_and_roll_back(self, instance: UUID, status: str) -> None:
        """Change a status and delete the instance in a transaction that never happened."""
        with self.fleet.conn.transaction(force_rollback=True):
            self.fleet.set(instance, status=status)
            self.fleet.delete(instance)

    def delete(self, *instances: UUID) -> None:
        """Delete instances in one statement."""
        self.fleet.conn.execute("delete from vps_instances where id = any(%s)", (list(instances),))
        for instance in instances:
            self.model.delete(instance, self.now)

    def move_money(self, organization: UUID, amount: Decimal) -> None:
        """Top up, or debit by hand."""
        self.fleet.top_up(organization, str(amount))
        self.model.wallets[organization].balance += amount

    def approve(self, organization: UUID, instance: UUID) -> None:
        """Let an operator approve all hours of an instance until now."""
        self.fleet.conn.execute(
            "insert into billing_decisions (organization_id, instance_id, decision, charge_until, decided_by, reason)"
            " values (%s, %s, 'charge', %s, 'somebody', 'it ran')",
            (organization, instance, self.fleet.now),
        )
        self.model.approved[organization, instance] = self.now

    def bill(self, *, organization: UUID | None = None, lag: int = 0, **order: Any) -> None:
        """Run, as of a little while ago when there is a lag, and compare everything."""
        policy = self.model.policies[-1]
        changes = (policy.statuses, policy.partial_hour) != (self.terms.statuses, self.terms.partial_hour)
        if changes:
            lag = 0
            if self.now <= self.policy_since:
                self.wait(1)
            self.policy_since = self.now
        self.fleet.terms = run.Terms(
            billable_statuses=tuple(sorted(self.terms.statuses)),
            partial_hour=self.terms.partial_hour,
            hours_per_month=self.terms.hours_per_month,
            max_catch_up_hours=self.terms.max_catch_up_hours,
            brake_factor=Decimal(10_000),
        )
        self.went_wrong = True
        as_of = self.fleet.now - timedelta(microseconds=lag)
        result = self.fleet.bill(organization=organization, as_of=as_of, host_clock=as_of, **order)
        statement = self.model.bill(self.terms, micros(as_of), organization)
        assert (Outcome.COMPLETED, None) == (result.outcome, result.error_message)
        self.compare()
        self.runs += 1
        self.was_held |= any(self.model.held.values())
        assert statement.amount == result.amount
        self.went_wrong = False

    # What came of it.

    def compare(self) -> None:
        """Compare every hour, every wallet, every watermark, what is still due and what is held."""
        same("units", self._expected_units(), self._actual_units())
        same("wallets", self._expected_wallets(), self._actual_wallets())
        same("instances", self._expected_instances(), self._actual_instances())
        same("segments", self._expected_segments(), self._actual_segments())
        same("held", self._expected_held(), self._actual_held())
        assert [] == self.fleet.rows("select * from billing_metering_failures")
        self._compare_ledgers()

    def _expected_units(self) -> list[Row]:
        return sorted(
            (u.organization, u.instance, u.start, u.end, u.hourly_rate, u.amount, u.status)
            for u in self.model.units
        )

    def _actual_units(self) -> list[Row]:
        rows = self.fleet.rows(
            "select organization_id, vps_instance_id, billing_period_start as start, billing_period_end as until,"
            " hourly_rate, total_amount, status from vps_billing_cycles where run_id is not null"
        )
        units = []
        for row in rows:
            start, until = micros(row.start), micros(row.until)
            left = row.total_amount
            while start < until:
                end = min(start + HOUR, until)
                amount = left if end == until else row.hourly_rate
                left -= amount
                units.append(
                    (
                        row.organization_id,
                        row.vps_instance_id,
                        start,
                        end,
                        row.hourly_rate,
                        amount,
                        row.status,
                    )
                )
                start = end
        return sorted(units)

    def _expected_wallets(self) -> dict[UUID, Row]:
        owing = {unit.organization for unit in self.model.units if unit.status == "failed"}
        return {
            organization: (wallet.balance, wallet.carry, organization in owing)
            for organization, wallet in self.model.wallets.items()
        }

    def _actual_wallets(self) -> dict[UUID, Row]:
        rows = self.fleet.rows("select * from wallets")
        return {r.organization_id: (r.balance, r.billing_carry, r.past_due_since is not None) for r in rows}

    def _expected_instances(self) -> dict[UUID, Row]:
        return {
            identifier: (instance.organization, instance.plan, instance.status, instance.watermark)
            for identifier, instance in self.model.instances.items()
        }

    def _actual_instances(self) -> dict[UUID, Row]:
        rows = self.fleet.rows(
            "select *, coalesce(last_billed_at, created_at) as watermark from vps_instances"
        )
        assert [] == [row for row in rows if row.watermark != row.rated_until]
        return {row.id: (row.organization_id, row.plan_id, row.status, micros(row.watermark)) for row in rows}

    def _expected_segments(self) -> list[Row]:
        return sorted(
            (s.organization, s.instance, s.start, s.until, s.plan, s.due) for s in self.model.segments
        )

    def _actual_segments(self) -> list[Row]:
        return sorted(
            (
                row.organization_id,
                row.instance_id,
                micros(row.started_at),
                micros(row.charge_until),
                row.plan_id,
                row.outcome is None,
            )
            for row in self.fleet.rows("select * from billing_usage_segments")
        )

    def _expected_held(self) -> set[Row]:
        return {(organization, i) for organization, held in self.model.held.items() for i in held}

    def _actual_held(self) -> set[Row]:
        rows = self.fleet.rows("select * from billing_quarantine where reason <> 'future watermark'")
        assert {"held"} >= {row.reason for row in rows}
        return {(row.organization_id, row.instance_id) for row in rows}

    def _compare_ledgers(self) -> None:
        """Prove that exact billed charges are debits and carry, and that the balance is opening and entries."""
        entries = {
            row.organization_id: row
            for row in self.fleet.rows(
                "select organization_id, sum(amount) as total,"
                " coalesce(-sum(amount) filter (where payment_method = 'wallet_debit'), 0) as debits"
                " from payment_transactions group by organization_id"
            )
        }
        for organization, wallet in self.model.wallets.items():
            entry = entries.get(organization)
            billed = sum(
                (
                    u.amount
                    for u in self.model.units
                    if (u.organization, u.status) == (organization, "billed")
                ),
                Decimal(0),
            )
            assert billed == (entry.debits if entry else 0) + wallet.carry
            assert wallet.balance == self.opening[organization] + (entry.total if entry else 0)
