"""A wallet that is deleted and made again carries what the old one carried."""

from __future__ import annotations

from decimal import Decimal

import psycopg
from tests.fleet import Fleet

from containerstacks_billing.verification.verify import verify


def test_a_wallet_made_again_keeps_its_carry(conn: psycopg.Connection) -> None:
    """Three hours of half a cent each: one cent is debited, half a cent carried; the new wallet has it, another has nothing."""
    fleet = Fleet(conn)
    acme = fleet.organization("10.00")
    fleet.instance(acme, fleet.plan("3.65"))
    fleet.hours(3)
    fleet.bill()
    before = fleet.balance(acme)
    conn.execute("delete from wallets where organization_id = %s", (acme,))
    fleet.wallet(acme, "9.99")

    assert (Decimal("9.99"), Decimal("0.005")) == before == fleet.balance(acme)
    assert verify(fleet.conninfo).ok
    fleet.hours(1)
    fleet.bill()
    assert (Decimal("9.98"), Decimal(0)) == fleet.balance(acme)
    assert verify(fleet.conninfo).ok
    fleet.wallet(acme, "5.00", "EUR")
    (carried,) = fleet.rows("select billing_carry from wallets where currency = 'EUR'")
    assert Decimal(0) == carried.billing_carry
