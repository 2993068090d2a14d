"""Books to verify: a fleet with a varied history, and the means to damage its rows."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql
from tests.fleet import Fleet, instant

from containerstacks_billing.adjustments.model import Mode, Order, OrderKind, Scope
from containerstacks_billing.adjustments.orders import post_order
from containerstacks_billing.verification.model import Discrepancy, Verification
from containerstacks_billing.verification.verify import verify


@dataclass
class Books:
    """A fleet with a history, and the rows of it that the tests damage."""

    fleet: Fleet
    rich: UUID
    poor: UUID
    web: UUID
    stopped: UUID
    moved: UUID
    deleted: UUID
    owing: UUID
    small: UUID

    def verify(self, **options: Any) -> Verification:
        """Compare the books."""
        return verify(self.fleet.conninfo, **options)

    def one(self, statement: str, *values: Any) -> Any:
        """Fetch one value."""
        return self.fleet.rows(statement, *values)[0][0]

    def charge(self, instance: UUID, number: int = 0) -> UUID:
        """Name a charge of an instance, the first one unless another is asked for."""
        return self.one(  # type: ignore[no-any-return]
            "select id from vps_billing_cycles where vps_instance_id = %s and run_id is not null"
            " order by billing_period_start offset %s limit 1",
            instance,
            number,
        )

    def past_due(self, instance: UUID) -> UUID:
        """Name the open debt of an instance."""
        return self.one(  # type: ignore[no-any-return]
            "select id from vps_billing_cycles where vps_instance_id = %s and status = 'failed'", instance
        )

    def wallet(self, organization: UUID) -> UUID:
        """Name the wallet of an organization."""
        return self.one("select id from wallets where organization_id = %s", organization)  # type: ignore[no-any-return]

    def damage(self, statement: str, *values: Any) -> None:
        """Do to the rows what neither the product nor the host would: without their triggers and bounds."""
        for constraint in (
            "vps_billing_cycles_charge_is_exact",
            "vps_billing_cycles_charge_period_is_forward",
        ):
            self.fleet.conn.execute(
                sql.SQL("alter table vps_billing_cycles drop constraint if exists {}").format(
                    sql.Identifier(constraint)
                )
            )
        self.fleet.conn.execute("alter table wallets drop constraint if exists wallets_carry_below_a_cent")
        with self.fleet.conn.transaction():
            self.fleet.conn.execute("set local session_replication_role = replica")
            self.fleet.conn.execute(statement, values or None)


def varied_books(conn: psycopg.Connection[Any]) -> Books:
    """Keep books: stops, moves, deletions, a price change, a credit, a wallet that ran dry and was topped up, a dry one."""
    fleet = Fleet(conn)
    small, large = fleet.plan("7.30"), fleet.plan("11.00", "3.30")
    rich, poor, late = fleet.organization("100.00"), fleet.organization("0.05"), fleet.organization("0.03")
    web, stopped = fleet.instance(rich, small), fleet.instance(rich, large)
    moved, deleted = fleet.instance(rich, small), fleet.instance(rich, large)
    owing = fleet.instance(poor, small)
    fleet.instance(late, large)
    fleet.instance(rich, small, status="stopped")
    fleet.hours(2.5)
    fleet.bill()
    fleet.set(stopped, status="stopped")
    fleet.set(moved, organization_id=late)
    fleet.hours(1.25)
    fleet.set(stopped, status="running")
    fleet.delete(deleted)
    fleet.reprice(large, "14.60")
    fleet.bill()
    fleet.hours(6)
    fleet.set(web, plan_id=large)
    fleet.bill()
    fleet.top_up(late, "5.00")
    fleet.hours(3)
    fleet.bill()
    span = Scope(begin=instant("2026-03-01 00:00"), end=instant("2026-03-01 01:30"), organization=late)
    half = Order(OrderKind.CREDIT, Mode.CREDIT, span, "tester", "outage", factor=Decimal("0.5"))
    post_order(fleet.conninfo, half, holder="test", wait_seconds=0)
    return Books(fleet, rich, poor, web, stopped, moved, deleted, owing, small)


def failed(verification: Verification) -> set[str]:
    """Name the checks that failed."""
    return {check.name for check in verification.checks if not check.ok}


def of(verification: Verification, check: str) -> list[Discrepancy]:
    """Return the discrepancies of one check."""
    return [one for one in verification.discrepancies if one.check == check]
