"""What the host's own pages show of a reversal and a credit: an entry that explains itself, and no revenue."""

from __future__ import annotations

from decimal import Decimal

from tests.clock import host_clock_follows
from tests.hosts.life import Successor

from containerstacks_billing.adjustments.model import Mode, Order, OrderKind, Scope
from containerstacks_billing.adjustments.orders import post_order
from containerstacks_billing.verification.verify import verify


def test_what_is_given_back_is_no_revenue_and_explains_itself(successor: Successor) -> None:
    """A run over a rich and an empty wallet is waived: its entry stands in the ledger, what was owed is on no invoice."""
    host = successor
    acme, poor = host.customer("20.00"), host.customer("0.00")
    small = host.plan("7.30")
    host.create_vps(acme, small, "web")
    host.create_vps(poor, small, "late")
    host.adopt(billable_statuses=("*",))
    fleet = host.fleet
    assert fleet is not None
    host.hours(2)
    host_clock_follows(fleet)
    run = fleet.bill().run_id
    revenue, balance = host.revenue(), host.balance(acme)
    post_order(
        fleet.conninfo,
        Order(OrderKind.REVERSAL, Mode.WAIVE, Scope(run=run), "operator", "outage"),
        holder="test",
    )
    host.add_funds(poor, "1.00")
    host.hours(1)
    host_clock_follows(fleet)
    fleet.bill()
    [entry] = host._rows(
        "select * from payment_transactions where provider_transaction_id = 'billing-reversal-1'"
    )

    assert revenue + Decimal("1.00") == host.revenue()
    assert (acme, "manual_adjustment", "completed") == (
        entry.organization_id,
        entry.payment_method,
        entry.status,
    )
    assert "VPS Billing Reversal - 1 instance (2h)" == entry.description
    assert entry.metadata["reversal_id"] == 1
    assert entry.metadata["balance_after"] == float(balance + entry.amount)
    assert [(Decimal("1.00"), Decimal("0.01"))] == [(line.hours, line.rate) for line in host.invoice(poor)]
    assert {"past_due", "reversed", "recovered"} <= {
        row.kind for row in host._rows("select kind from billing_events")
    }
    assert [] == [str(one) for one in verify(fleet.conninfo).discrepancies]
