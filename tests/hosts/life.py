"""What the two host applications themselves do to the database, statement by statement, by a clock that the test sets.

`ContainerStacks` and `Successor` (skypanelv2) write as the hosts' own code does: a balance is read and then written as an
absolute value to every wallet of the organization, the watermark is truncated to milliseconds because JavaScript's dates
are, and each step commits by itself. Where the host's statement says NOW(), the test's clock is passed.

    host = Successor(conn, at="2026-03-01 00:00")
    acme = host.customer("50.00")
    web = host.create_vps(acme, host.plan("7.30"), "web")
    host.adopt()                     # migrates; from here on host.fleet bills
    host.hours(1); host.fleet.bill(); host.reboot(web)
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
from psycopg.rows import namedtuple_row
from tests.fleet import Fleet, instant

from containerstacks_billing.schema.migrator import migrate
from containerstacks_billing.schema.model import Finding

HOUR = timedelta(hours=1)
# Between the insert of an instance and the update that says its first hour is paid, the host debits the wallet.
CREATION_TAKES = timedelta(milliseconds=22)


class InvoiceLine(NamedTuple):
    """A line of the successor's customer invoice, which it makes of a charge's metadata."""

    label: str
    hours: Decimal
    rate: Decimal
    amount: Decimal


class ContainerStacks:
    """ContainerStacks, with its built-in hourly billing."""

    schema = "containerstacks.sql"
    decimals = Decimal("0.01")
    amount_decimals = Decimal("0.0001")

    def __init__(
        self, conn: psycopg.Connection[Any], at: str | datetime = "2026-03-01 00:00:00.123456"
    ) -> None:
        """Install the host on an empty database."""
        self.conn = conn
        self.now = instant(at)
        self.fleet: Fleet | None = None
        self._numbers = itertools.count(1)
        conn.execute((Path(__file__).parent / self.schema).read_text())

    def adopt(self, **terms: Any) -> tuple[Finding, ...]:
        """Migrate the database and return what the adoption report found; from now on the clock is the database's too."""
        found = migrate(f"{self.conn.info.dsn} password={self.conn.info.password}").findings
        self.fleet = Fleet(self.conn, at=self.now, **terms)
        return found

    def hours(self, hours: float) -> datetime:
        """Let hours pass."""
        return self._pass(hours * HOUR)

    # Customers and their money

    def customer(self, top_up: str = "0", currency: str = "USD") -> UUID:
        """Register a customer: user, organization, membership and wallet; then a top-up."""
        number = next(self._numbers)
        owner = self._one(
            "insert into users (email, password_hash, name) values (%s, 'x', 'Customer') returning id",
            f"customer-{number}@example.org",
        )
        organization = self._one(
            "insert into organizations (name, slug, owner_id) values (%s, %s, %s) returning id",
            f"Customer {number}",
            f"customer-{number}",
            owner,
        )
        self.conn.execute(
            "insert into organization_members (organization_id, user_id, role) values (%s, %s, 'owner')",
            (organization, owner),
        )
        self.conn.execute(
            "insert into wallets (organization_id, balance, currency, created_at) values (%s, 0, %s, %s)",
            (organization, currency, self.now),
        )
        if Decimal(top_up):
            self.add_funds(organization, top_up)
        return organization

    def balance(self, organization: UUID) -> Decimal:
        """Read the balance as the host does: of whichever wallet comes first."""
        found = self.conn.execute(
            "select balance from wallets where organization_id = %s", (organization,)
        ).fetchone()
        assert found is not None
        return Decimal(found[0])

    def add_funds(
        self, organization: UUID, amount: str | Decimal, description: str = "Wallet top-up"
    ) -> None:
        """Top up."""
        with self.conn.transaction():
            before = self.balance(organization)
            after = self._write_balance(organization, before + Decimal(amount))
            self._ledger(
                organization,
                Decimal(amount),
                "wallet_credit",
                description,
                balance_before=float(before),
                balance_after=float(after),
                wallet_type="main",
            )

    def deduct_funds(self, organization: UUID, amount: str | Decimal, description: str) -> bool:
        """Debit the wallet if it can pay."""
        with self.conn.transaction():
            before = self.balance(organization)
            if before < Decimal(amount):
                return False
            after = self._write_balance(organization, before - Decimal(amount))
            self._ledger(
                organization,
                -Decimal(amount),
                "wallet_debit",
                description,
                balance_before=float(before),
                balance_after=float(after),
            )
            return True

    def delete_organization(self, organization: UUID) -> None:
        """Delete a customer as the administrator's page does."""
        self.conn.execute("delete from vps_instances where organization_id = %s", (organization,))
        self.conn.execute("delete from organizations where id = %s", (organization,))

    # Plans and instances

    def plan(self, base: str, markup: str = "0", **columns: str) -> UUID:
        """Create a plan."""
        number = next(self._numbers)
        names = ["name", "provider_plan_id", "base_price", "markup_price", "created_at", *columns]
        values = [f"plan {number}", f"g6-{number}", base, markup, self.now, *columns.values()]
        return self._one(
            f"insert into vps_plans ({', '.join(names)}) values ({', '.join(['%s'] * len(names))}) returning id",
            *values,
        )

    def create_vps(self, organization: UUID, plan: UUID, label: str, **columns: str) -> UUID:
        """Create an instance: insert the row, debit the first hour, and write that it is paid from now."""
        number = next(self._numbers)
        names = ["organization_id", "plan_id", "provider_instance_id", "label", "created_at", *columns]
        values = [organization, str(plan), str(1000 + number), label, self.now, *columns.values()]
        vps = self._one(
            f"insert into vps_instances ({', '.join(names)}) values ({', '.join(['%s'] * len(names))}) returning id",
            *values,
        )
        rate, _ = self._rates(vps)
        paid = self.deduct_funds(
            organization, self._rounded(rate, self.decimals), f"VPS Creation - {label} (Initial Hour)"
        )
        self._pass(CREATION_TAKES)
        if paid:
            self.conn.execute("update vps_instances set last_billed_at = %s where id = %s", (self.now, vps))
        return vps

    def set_status(self, vps: UUID, status: str) -> None:
        """Store what the provider answered."""
        self.conn.execute(
            "update vps_instances set status = %s, ip_address = '192.0.2.1', updated_at = %s where id = %s",
            (status, self.now, vps),
        )

    def reboot(self, vps: UUID) -> None:
        """Reboot; the status stays what the provider said at that second until a page is opened."""
        self.set_status(vps, "rebooting")

    def resize(self, vps: UUID, plan: UUID) -> None:
        """Give an instance another plan."""
        self.conn.execute("update vps_instances set plan_id = %s where id = %s", (str(plan), vps))

    def delete_vps(self, vps: UUID) -> None:
        """Delete an instance, and with it, before adoption, its billing history."""
        self.conn.execute("delete from vps_instances where id = %s", (vps,))

    # Its own hourly billing

    def bill_hourly(self, only: Sequence[UUID] | None = None) -> int:
        """Bill every instance that is an hour or more behind, in any status; return how many were charged."""
        now = _milliseconds(self.now)
        due = self._rows(
            "select id, organization_id, label, last_billed_at, created_at from vps_instances"
            " where (last_billed_at is null or last_billed_at <= %s) order by created_at, id",
            now - HOUR,
        )
        return sum(self._bill(vps, now) for vps in due if only is None or vps.id in only)

    def _bill(self, vps: Any, now: datetime) -> bool:
        start = _milliseconds(vps.last_billed_at or vps.created_at)
        hours = int((now - start) / HOUR)
        if hours < 1:
            return False
        base, backups = self._rates(vps.id)
        amount = self._rounded((base + backups) * hours, self.amount_decimals)
        metadata: dict[str, Any] = {"hours_charged": hours, "elapsed_hours": (now - start) / HOUR}
        metadata |= self._invoiced(base, backups, vps)
        paid = self.deduct_funds(vps.organization_id, amount, f"VPS Hourly Billing - {vps.label} ({hours}h)")
        if not paid:
            metadata["reason"] = "insufficient_balance"
        entry = self.conn.execute(
            "select id from payment_transactions where organization_id = %s and description like %s"
            " and status = 'completed' order by created_at desc limit 1",
            (vps.organization_id, f"%{vps.label}%"),
        ).fetchone()
        with self.conn.transaction():
            self.conn.execute(
                "insert into vps_billing_cycles (vps_instance_id, organization_id, billing_period_start,"
                " billing_period_end, hourly_rate, total_amount, status, payment_transaction_id, metadata, created_at)"
                " values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
                (
                    vps.id,
                    vps.organization_id,
                    start,
                    start + hours * HOUR,
                    base + backups,
                    amount,
                    "billed" if paid else "failed",
                    entry[0] if paid and entry else None,
                    json.dumps(metadata),
                    self.now,
                ),
            )
            if paid:
                self.conn.execute(
                    "update vps_instances set last_billed_at = %s where id = %s",
                    (start + hours * HOUR, vps.id),
                )
        return paid

    def _invoiced(self, base: Decimal, backups: Decimal, vps: Any) -> dict[str, Any]:
        """What a charge's metadata says beyond the hours; nothing here."""
        del base, backups, vps
        return {}

    def _rates(self, vps: UUID) -> tuple[Decimal, Decimal]:
        """Return the hourly prices of the plan and of the backups; a plan that is not found costs 0.027."""
        found = self.conn.execute(
            "select (base_price + markup_price) / 730 from vps_plans, vps_instances vps"
            " where vps.id = %s and (vps_plans.id::text = plan_id or provider_plan_id = plan_id) limit 1",
            (vps,),
        ).fetchone()
        return (Decimal(found[0]) if found else Decimal("0.027")), Decimal(0)

    # Statements

    def _write_balance(self, organization: UUID, balance: Decimal) -> Decimal:
        """Write an absolute balance to every wallet of the organization."""
        rounded = self._rounded(balance, self.decimals)
        self.conn.execute(
            "update wallets set balance = %s, updated_at = %s where organization_id = %s",
            (rounded, self.now, organization),
        )
        return rounded

    def _ledger(
        self, organization: UUID, amount: Decimal, method: str, description: str, **metadata: Any
    ) -> UUID:
        return self._one(
            "insert into payment_transactions (organization_id, amount, currency, payment_method, payment_provider,"
            " status, description, metadata, created_at)"
            " values (%s, %s, 'USD', %s, 'internal', 'completed', %s, %s, %s) returning id",
            organization,
            amount,
            method,
            description,
            json.dumps(metadata),
            self.now,
        )

    def _pass(self, time: timedelta) -> datetime:
        self.now += time
        if self.fleet is not None:
            self.fleet.at(self.now)
        return self.now

    def _rounded(self, amount: Decimal, decimals: Decimal) -> Decimal:
        return amount.quantize(decimals, ROUND_HALF_UP)

    def _one(self, statement: str, *values: Any) -> Any:
        row = self.conn.execute(statement, values).fetchone()
        assert row is not None
        return row[0]

    def _rows(self, statement: str, *values: Any) -> list[Any]:
        with self.conn.cursor(row_factory=namedtuple_row) as cursor:
            return cursor.execute(statement, values).fetchall()


class Successor(ContainerStacks):
    """skypanelv2: backups, egress, web hosting with a wallet of its own, invoices made of metadata."""

    schema = "skypanelv2.sql"
    decimals = Decimal("0.000001")
    amount_decimals = Decimal("0.000001")

    def create_vps(self, organization: UUID, plan: UUID, label: str, **columns: str) -> UUID:
        """Create an instance; without a word about backups it has none, though the column's default is weekly."""
        return super().create_vps(organization, plan, label, **{"backup_frequency": "none", **columns})

    def _rates(self, vps: UUID) -> tuple[Decimal, Decimal]:
        found = self.conn.execute(
            "select (base_price + markup_price) / 730, case when backup_frequency in ('daily', 'weekly')"
            " then backup_price_hourly + backup_upcharge_hourly else 0 end from vps_plans, vps_instances vps"
            " where vps.id = %s and (vps_plans.id::text = plan_id or provider_plan_id = plan_id) limit 1",
            (vps,),
        ).fetchone()
        return (Decimal(found[0]), Decimal(found[1])) if found else (Decimal("0.027"), Decimal(0))

    def _invoiced(self, base: Decimal, backups: Decimal, vps: Any) -> dict[str, Any]:
        return {
            "base_hourly_rate": float(base),
            "backup_hourly_rate": float(backups),
            "backup_frequency": "weekly" if backups else "none",
            "vps_label": vps.label,
        }

    # Web hosting

    def hosting_balance(self, organization: UUID) -> Decimal:
        """Read the balance of the hosting wallet, and make one where there is none."""
        self.conn.execute(
            "insert into hosting_wallets (organization_id, balance, currency) values (%s, 0, 'USD')"
            " on conflict (organization_id) do nothing",
            (organization,),
        )
        return Decimal(
            self._one(
                "select balance from hosting_wallets where organization_id = %s for update", organization
            )
        )

    def transfer_to_hosting(self, organization: UUID, amount: str) -> None:
        """Move money from the main wallet to the hosting wallet: two ledger rows."""
        self._transfer(organization, Decimal(amount), to_hosting=True)

    def transfer_from_hosting(self, organization: UUID, amount: str) -> None:
        """Move money back."""
        self._transfer(organization, Decimal(amount), to_hosting=False)

    def _transfer(self, organization: UUID, amount: Decimal, *, to_hosting: bool) -> None:
        main, hosting = (
            ("wallet_transfer", "hosting_wallet_credit")
            if to_hosting
            else ("wallet_credit", "wallet_transfer")
        )
        change = amount if to_hosting else -amount
        with self.conn.transaction():
            wallet, balance = self.conn.execute(
                "select id, balance from wallets where organization_id = %s for update", (organization,)
            ).fetchone()  # type: ignore[misc]
            hosted = self.hosting_balance(organization)
            self.conn.execute(
                "update wallets set balance = %s, updated_at = %s where id = %s",
                (balance - change, self.now, wallet),
            )
            self._write_hosting(organization, hosted + change)
            self._ledger(organization, -change, main, "Transfer, main wallet", wallet_type="main")
            self._ledger(organization, change, hosting, "Transfer, hosting wallet", wallet_type="hosting")

    def fund_hosting(self, organization: UUID, amount: str) -> None:
        """Top up the hosting wallet through the payment service."""
        with self.conn.transaction():
            self._write_hosting(organization, self.hosting_balance(organization) + Decimal(amount))
            self._ledger(organization, Decimal(amount), "paypal", "Hosting top-up", wallet_type="hosting")

    def buy_hosting(self, organization: UUID, amount: str) -> None:
        """Buy a month of web hosting out of the hosting wallet."""
        with self.conn.transaction():
            self._write_hosting(organization, self.hosting_balance(organization) - Decimal(amount))
            self._ledger(
                organization, -Decimal(amount), "wallet_debit", "Hosting purchase: Web", wallet_type="hosting"
            )

    def _write_hosting(self, organization: UUID, balance: Decimal) -> None:
        self.conn.execute(
            "update hosting_wallets set balance = %s, updated_at = %s where organization_id = %s",
            (balance, self.now, organization),
        )

    # Egress

    def buy_egress_pack(self, organization: UUID, price: str, gigabytes: int = 100) -> None:
        """Buy prepaid transfer out of the main wallet."""
        if self.deduct_funds(organization, price, f"Egress credit pack purchase: {gigabytes}GB"):
            self.conn.execute(
                "insert into organization_egress_credits (organization_id, credits_gb) values (%s, %s)"
                " on conflict (organization_id) do update"
                " set credits_gb = organization_egress_credits.credits_gb + excluded.credits_gb",
                (organization, gigabytes),
            )

    def bill_egress_overage(self, organization: UUID, amount: str) -> None:
        """Debit the overage of a month."""
        self.deduct_funds(organization, amount, "Egress Overage Billing - global - 2026-02")

    def suspend(self, vps: UUID) -> None:
        """Suspend an instance that used up its transfer; the host goes on charging it."""
        self.set_status(vps, "suspended")

    # The administrator

    def adjust(self, organization: UUID, amount: str) -> None:
        """Credit or debit by hand; the balance is changed by a delta and may go below zero."""
        self.conn.execute(
            "update wallets set balance = balance + %s, updated_at = %s where organization_id = %s",
            (Decimal(amount), self.now, organization),
        )
        self._ledger(organization, Decimal(amount), "manual_adjustment", "Adjustment by the administrator")

    def revenue(self) -> Decimal:
        """The revenue that the administrator's page shows."""
        return Decimal(
            self._one(
                "select coalesce(sum(amount), 0) from payment_transactions"
                " where status = 'completed' and amount > 0 and payment_method <> 'manual_adjustment'"
            )
        )

    def invoice(self, organization: UUID) -> list[InvoiceLine]:
        """Make the customer's service invoice: a line per charge, from the keys of its metadata."""
        rows = self._rows(
            "select vps.label, cycle.metadata, cycle.total_amount from vps_billing_cycles cycle"
            " join vps_instances vps on vps.id = cycle.vps_instance_id"
            " where cycle.organization_id = %s and cycle.status = 'billed' order by billing_period_start, vps.label",
            organization,
        )
        return [
            InvoiceLine(
                row.label,
                hours := Decimal(str(row.metadata.get("hours_charged") or 0)),
                rate := Decimal(str(row.metadata.get("base_hourly_rate") or 0))
                + Decimal(str(row.metadata.get("backup_hourly_rate") or 0)),
                round(hours * rate, 6),
            )
            for row in rows
        ]


def _milliseconds(at: datetime) -> datetime:
    """Truncate an instant as a JavaScript Date holds it."""
    return at.replace(microsecond=at.microsecond // 1000 * 1000)
