"""A fleet to bill, in a few words: organizations with a wallet, plans, instances, and a clock that obeys.

    fleet = Fleet(conn, at="2026-03-01 00:00")
    small = fleet.plan("6.00")
    acme = fleet.organization(balance="10.00")
    web = fleet.instance(acme, small)
    fleet.at("2026-03-01 05:00")
    fleet.bill()
    assert fleet.charges() == [...]

The clock is the database's: billing_clock() is replaced in the test's own database, so triggers, runs and whatever else
asks for the time get the fleet's.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg.rows import namedtuple_row

from containerstacks_billing.charging.charger import RunCharger
from containerstacks_billing.charging.model import RunResult, Terms
from containerstacks_billing.charging.run import RunOrder, run_billing

_CLOCK = """
    create table if not exists test_clock (at timestamptz not null);
    delete from test_clock;
    insert into test_clock values (%s);
    create or replace function billing_clock() returns timestamptz language sql volatile security definer
        set search_path = public as 'select at from test_clock';
"""


def instant(text: str | datetime) -> datetime:
    """Read "2026-03-01 05:00" as an instant in UTC."""
    if isinstance(text, datetime):
        return text
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


class Fleet:
    """Writes rows as the host application does, and bills them as the product does."""

    def __init__(
        self, conn: psycopg.Connection[Any], at: str | datetime = "2026-03-01 00:00", **terms: Any
    ) -> None:
        self.conn = conn
        # A connection hides its password; the test server needs it.
        self.conninfo = f"{conn.info.dsn} password={conn.info.password}"
        self.terms = Terms(**terms)
        self.now = instant(at)
        self._numbers = itertools.count(1)
        with conn.transaction():
            for statement in _CLOCK.split(";\n")[:-1]:
                conn.execute(statement, (self.now,) if "%s" in statement else None)

    def at(self, moment: str | datetime | timedelta) -> datetime:
        """Let it be this moment, or this much later."""
        self.now = self.now + moment if isinstance(moment, timedelta) else instant(moment)
        self.conn.execute("update test_clock set at = %s", (self.now,))
        return self.now

    def hours(self, hours: float) -> datetime:
        """Let hours pass."""
        return self.at(timedelta(hours=hours))

    def plan(self, base: str, markup: str = "0", provider_plan_id: str | None = None) -> UUID:
        """Create a plan with monthly prices."""
        number = next(self._numbers)
        return self._one(
            "insert into vps_plans (name, provider_plan_id, base_price, markup_price, created_at)"
            " values (%s, %s, %s, %s, %s) returning id",
            f"plan {number}",
            provider_plan_id or f"provider-plan-{number}",
            base,
            markup,
            self.now,
        )

    def organization(
        self, balance: str | None = "1000.00", currency: str = "USD", name: str | None = None
    ) -> UUID:
        """Create an organization and its owner, and a wallet unless `balance` is None."""
        number = next(self._numbers)
        owner = self._one(
            "insert into users (email, password_hash, name) values (%s, 'x', 'Owner') returning id",
            f"owner-{number}-{uuid4().hex[:8]}@example.org",
        )
        organization = self._one(
            "insert into organizations (name, slug, owner_id) values (%s, %s, %s) returning id",
            name or f"Organization {number}",
            f"organization-{number}-{uuid4().hex[:8]}",
            owner,
        )
        if balance is not None:
            self.wallet(organization, balance, currency)
        return organization

    def wallet(self, organization: UUID, balance: str, currency: str = "USD") -> UUID:
        """Give an organization one more wallet."""
        return self._one(
            "insert into wallets (organization_id, balance, currency, created_at) values (%s, %s, %s, %s) returning id",
            organization,
            balance,
            currency,
            self.now,
        )

    def instance(
        self, organization: UUID, plan: UUID | str, status: str = "running", label: str | None = None
    ) -> UUID:
        """Create an instance now."""
        number = next(self._numbers)
        return self._one(
            "insert into vps_instances (organization_id, plan_id, provider_instance_id, label, status, created_at)"
            " values (%s, %s, %s, %s, %s, %s) returning id",
            organization,
            str(plan),
            f"provider-{number}",
            label or f"vps-{number}",
            status,
            self.now,
        )

    def set(self, instance: UUID, **columns: Any) -> None:
        """Change columns of an instance as the host does: status, plan_id, organization_id, label, last_billed_at."""
        for column, value in columns.items():
            written = str(value) if column == "plan_id" else value
            self.conn.execute(f"update vps_instances set {column} = %s where id = %s", (written, instance))

    def delete(self, instance: UUID) -> None:
        """Delete an instance."""
        self.conn.execute("delete from vps_instances where id = %s", (instance,))

    def reprice(self, plan: UUID, base: str, markup: str = "0") -> None:
        """Change the price of a plan as the host does."""
        self.conn.execute(
            "update vps_plans set base_price = %s, markup_price = %s where id = %s", (base, markup, plan)
        )

    def top_up(self, organization: UUID, amount: str) -> None:
        """Move a balance by a delta that comes with its ledger entry; negative for a manual debit."""
        with self.conn.transaction():
            self.conn.execute(
                "insert into payment_transactions (organization_id, amount, currency, payment_method, payment_provider,"
                " status, description) values (%s, %s, 'USD', 'paypal', 'paypal', 'completed', 'Top-up')",
                (organization, amount),
            )
            self.conn.execute(
                "update wallets set balance = balance + %s where organization_id = %s", (amount, organization)
            )

    def order(self, *, host_clock: datetime | None = None, **changes: Any) -> RunOrder:
        """Ask for a run now, with the fleet's clock for both clocks where the test gives no other."""
        at = host_clock or self.now
        order = RunOrder(
            self.conninfo, self.terms, "test", "test-holder", as_of=self.now, host_clock=lambda: at
        )
        return replace(order, **changes)

    def bill(self, charger: RunCharger | None = None, **changes: Any) -> RunResult:
        """Bill now, with a charger of the test's own if it gives one."""
        return run_billing(self.order(**changes), charger)

    def rows(self, statement: str, *values: Any) -> list[Any]:
        """Fetch named tuples."""
        with self.conn.cursor(row_factory=namedtuple_row) as cursor:
            return cursor.execute(statement, values or None).fetchall()

    def charges(self, instance: UUID | None = None) -> list[tuple[str, str, str, str]]:
        """Return our charges as start, end, amount and status, in order."""
        rows = self.rows(
            "select billing_period_start as start, billing_period_end as until, total_amount, status"
            " from vps_billing_cycles where run_id is not null and (%s::uuid is null or vps_instance_id = %s)"
            " order by vps_instance_id, billing_period_start",
            instance,
            instance,
        )
        return [(clock(r.start), clock(r.until), str(r.total_amount.normalize()), r.status) for r in rows]

    def balance(self, organization: UUID) -> tuple[Decimal, Decimal]:
        """Return the balance and the carry of the organization's oldest wallet."""
        row = self.rows(
            "select balance, billing_carry from wallets where organization_id = %s order by created_at, id limit 1",
            organization,
        )[0]
        return row.balance, row.billing_carry.normalize()

    def adjustments(self) -> list[tuple[str, ...]]:
        """Return all adjustments as start, end, old rate, new rate and amount, by organization and in order."""
        rows = self.rows(
            "select * from billing_adjustments order by organization_id, hours_from, instance_id, id"
        )
        return [
            (
                clock(r.hours_from),
                clock(r.hours_until),
                *(str(n.normalize()) for n in (r.old_rate, r.new_rate, r.amount)),
            )
            for r in rows
        ]

    def quarantine(self) -> dict[UUID, str]:
        """Return the reason why each instance is quarantined or held."""
        return {row.instance_id: row.reason for row in self.rows("select * from billing_quarantine")}

    def _one(self, statement: str, *values: Any) -> Any:
        row = self.conn.execute(statement, values).fetchone()
        assert row is not None
        return row[0]


def clock(at: datetime) -> str:
    """Write an instant as day and time in UTC: "01 05:00"."""
    at = at.astimezone(UTC)
    return at.strftime("%d %H:%M:%S" if at.second else "%d %H:%M")
