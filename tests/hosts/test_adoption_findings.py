"""What adoption and later migrations of the host leave in the books."""

from __future__ import annotations

from decimal import Decimal

import pytest
from tests.clock import host_clock_follows
from tests.hosts.life import ContainerStacks, Successor

from containerstacks_billing.charging.model import Outcome
from containerstacks_billing.schema.migrator import migrate
from containerstacks_billing.verification.verify import verify


def bill(host: ContainerStacks) -> Outcome:
    """Run billing now; this machine's clock moves with the database's."""
    assert host.fleet is not None
    host_clock_follows(host.fleet)
    return host.fleet.bill().outcome


def test_failed_rows_of_the_host_are_counted_once(containerstacks: ContainerStacks) -> None:
    """Rows of 1, 2 and 3 hours are three hours, 0.03 and not 0.06; all are since the watermark, so the first run charges them."""
    host = containerstacks
    acme = host.customer("0.01")
    host.create_vps(acme, host.plan("7.30"), "web")
    for _ in range(3):
        host.hours(1.001)
        host.bill_hourly()
    found = {one.kind: one for one in host.adopt(billable_statuses=("*",))}["host_failed_cycles"]
    assert found.count == 3
    assert "0.06 in all. Counted once they are 3.0 h worth 0.03. Of these 3.0 h, 0.03, are" in found.sentence
    assert bill(host) is Outcome.COMPLETED
    assert host.fleet is not None
    assert [(amount, status) for _, _, amount, status in host.fleet.charges()] == [("0.03", "failed")]


def test_hours_that_the_host_charged_later_are_no_failed_hours(containerstacks: ContainerStacks) -> None:
    """The customer topped up, and the host charged what had failed."""
    host = containerstacks
    acme = host.customer("0.01")
    host.create_vps(acme, host.plan("7.30"), "web")
    host.hours(1.001)
    host.bill_hourly()
    host.add_funds(acme, "5.00")
    host.hours(1)
    host.bill_hourly()
    found = {one.kind: one for one in host.adopt()}["host_failed_cycles"]
    assert (
        "1 failed row of the host application, 0.01 in all. Counted once they are 0.0 h worth 0.00"
        in found.sentence
    )


def test_a_later_migration_of_the_host_that_rounds_amounts_is_undone(successor: Successor) -> None:
    """Four decimals instead of eight: `migrate` derives each amount anew, and the books are right."""
    host = successor
    acme = host.customer("20.00")
    host.create_vps(acme, host.plan("12.00"), "web")
    host.adopt(billable_statuses=("*",))
    host.hours(3)
    bill(host)
    exact = host._rows("select total_amount from vps_billing_cycles where run_id is not null")
    assert [row.total_amount for row in exact] == [Decimal("0.04931508")]
    host.conn.execute(
        "alter table vps_billing_cycles alter column total_amount type numeric(12, 4) using round(total_amount, 4)"
    )
    assert host.fleet is not None
    migrate(host.fleet.conninfo)
    assert host._rows("select total_amount from vps_billing_cycles where run_id is not null") == exact
    found = [one for one in verify(host.fleet.conninfo).discrepancies if one.check != "gaps"]
    assert found == []


@pytest.mark.parametrize("currency", ["usd", "Usd"])
def test_a_wallet_in_lower_case_pays(containerstacks: ContainerStacks, currency: str) -> None:
    """The customer is not past due beside his money, and the balance is compared with the entries of its currency."""
    host = containerstacks
    acme = host.customer("20.00", currency)
    host.create_vps(acme, host.plan("7.30"), "web")
    host.adopt(billable_statuses=("*",))
    host.hours(2)
    assert bill(host) is Outcome.COMPLETED
    assert host.fleet is not None
    assert [status for *_, status in host.fleet.charges()] == ["billed"]
    assert host.balance(acme) == Decimal("19.97")
    assert [one for one in verify(host.fleet.conninfo).discrepancies if one.check != "gaps"] == []


def test_several_wallets_are_named_with_what_the_host_does_to_them(containerstacks: ContainerStacks) -> None:
    """Each of its movements writes one balance to all of them."""
    host = containerstacks
    acme = host.customer("54.53")
    host.conn.execute(
        "insert into wallets (organization_id, balance, currency) values (%s, 5, 'EUR')", (acme,)
    )
    host.add_funds(acme, "1.00")
    found = {one.kind: one.sentence for one in host.adopt()}
    assert "The host writes one balance to all of them with each movement" in found["several_currencies"]
