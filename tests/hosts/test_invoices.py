"""The successor's customer invoice, which it makes of the metadata of charges, shows what was charged."""

from __future__ import annotations

from decimal import Decimal

from tests.clock import host_clock_follows
from tests.hosts.life import ContainerStacks, Successor


def test_the_invoice_shows_hours_rates_and_labels(successor: Successor) -> None:
    """An ordinary hour, a plan with backups, a resize in mid-hour, and hours of a short wallet that were paid later."""
    host = successor
    acme, poor = host.customer("20.00"), host.customer("0.02")
    small = host.plan("7.30")
    backed_up = host.plan("7.30", backup_price_hourly="0.003", backup_upcharge_hourly="0.001")
    web = host.create_vps(acme, small, "web")
    host.create_vps(acme, backed_up, "db", backup_frequency="weekly")
    host.create_vps(poor, small, "late")
    host.adopt(billable_statuses=("*",))
    fleet = host.fleet
    assert fleet is not None
    for hour in range(3):
        host.hours(0.5)
        if hour == 1:
            host.resize(web, backed_up)
        host.hours(0.5)
        host_clock_follows(fleet)
        fleet.bill()
    host.add_funds(poor, "5.00")
    host.hours(1)
    host_clock_follows(fleet)
    fleet.bill()

    lines = host.invoice(acme) + host.invoice(poor)
    charged = host._rows("select sum(total_amount) as total from vps_billing_cycles where status = 'billed'")
    assert sum(line.amount for line in lines).quantize(Decimal("0.0001")) == charged[0].total.quantize(
        Decimal("0.0001")
    )
    assert {(line.label, line.rate) for line in lines} == {
        ("web", Decimal("0.01")),
        ("db", Decimal("0.014")),
        ("late", Decimal("0.01")),
    }


def test_a_charge_that_is_paid_in_part_is_described_anew(successor: Successor) -> None:
    """Three hours in one charge, of which the wallet then pays two: both parts name their own hours."""
    host = successor
    poor = host.customer("0.00")
    host.create_vps(poor, host.plan("7.30", backup_price_hourly="0.01"), "late", backup_frequency="daily")
    host.adopt(billable_statuses=("*",))
    fleet = host.fleet
    assert fleet is not None
    host.hours(3)
    host_clock_follows(fleet)
    fleet.bill()
    host.add_funds(poor, "0.05")
    fleet.bill()

    described = host._rows(
        "select status, metadata from vps_billing_cycles where run_id is not null order by billing_period_start"
    )
    same = {
        "base_hourly_rate": 0.01,
        "backup_hourly_rate": 0.01,
        "backup_frequency": "daily",
        "vps_label": "late",
    }
    assert [("billed", {"hours_charged": 2, **same}), ("failed", {"hours_charged": 1, **same})] == [
        tuple(row) for row in described
    ]


def test_charges_elsewhere_are_not_described(containerstacks: ContainerStacks) -> None:
    """ContainerStacks reads no metadata, and its charges keep none."""
    host = containerstacks
    host.create_vps(host.customer("20.00"), host.plan("7.30"), "web")
    host.adopt(billable_statuses=("*",))
    host.hours(1)
    assert host.fleet is not None
    host_clock_follows(host.fleet)
    host.fleet.bill()
    (charge,) = host._rows("select metadata from vps_billing_cycles where run_id is not null")
    assert charge.metadata in (None, {})
