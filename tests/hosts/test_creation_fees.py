"""The fee that a host takes at creation: extra, as with its own biller, or payment of the first hour. One cent an hour."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from tests.clock import host_clock_follows
from tests.hosts.life import ContainerStacks

from containerstacks_billing.explain.snapshot import snapshot
from containerstacks_billing.explain.why import instance_hours
from containerstacks_billing.verification.verify import verify

HOUR = timedelta(hours=1)


def bill(host: ContainerStacks) -> None:
    assert host.fleet is not None
    host_clock_follows(host.fleet)
    assert host.fleet.bill().outcome == "completed"


def adopted(host: ContainerStacks, creation_fee: str) -> tuple[UUID, UUID]:
    """Adopt a host, and bill once under this CREATION_FEE; return a customer with 1.00 and a plan."""
    acme, plan = host.customer("1.00"), host.plan("7.30")
    host.adopt(billable_statuses=("*",), creation_fee=creation_fee)
    bill(host)
    return acme, plan


def charged(host: ContainerStacks, vps: UUID) -> list[tuple[timedelta, Decimal]]:
    """Return the charges of an instance, once the books are proved right: begin after its creation, and hours."""
    assert host.fleet is not None
    assert verify(host.fleet.conninfo).discrepancies == ()
    return [
        (row.begins, Decimal(row.hours).normalize())
        for row in host.fleet.rows(
            "select billing_period_start - vps.created_at as begins,"
            " extract(epoch from billing_period_end - billing_period_start) / 3600 as hours"
            " from vps_billing_cycles join vps_instances vps on vps.id = vps_instance_id"
            " where run_id is not null and vps_instance_id = %s order by 1",
            vps,
        )
    ]


def test_a_fee_that_covers_the_first_hour(containerstacks: ContainerStacks) -> None:
    """The first hour is the host's, from the second on it is ours; nothing is passed over in `verify`, and `why` says who was paid."""
    host = containerstacks
    acme, plan = adopted(host, "covers-first-hour")
    web = host.create_vps(acme, plan, "web")
    bill(host)
    host.hours(1)
    bill(host)
    assert [] == charged(host, web)
    host.hours(2)
    bill(host)

    assert [(HOUR, Decimal(2))] == charged(host, web)
    assert host.fleet is not None
    assert Decimal(0) == verify(host.fleet.conninfo).open_items.hours_passed_by_host
    created = host.now - 3 * HOUR - timedelta(milliseconds=22)
    with snapshot(host.fleet.conninfo) as connection:
        periods = instance_hours(connection, web, created, created + HOUR) or []
    assert ["Paid by the fee that the host application took at creation (CREATION_FEE)."] == [
        one.detail for one in periods
    ]


def test_an_instance_that_is_stopped_in_the_hour_that_is_paid(containerstacks: ContainerStacks) -> None:
    """Stopped at 00:30, running again at 00:45: charged from 01:00; deleted at 00:40, it costs nothing more."""
    host = containerstacks
    acme, plan = adopted(host, "covers-first-hour")
    kept, gone = host.create_vps(acme, plan, "kept"), host.create_vps(acme, plan, "gone")
    host.hours(0.5)
    host.set_status(kept, "stopped")
    host.hours(0.25)
    host.set_status(kept, "running")
    host.delete_vps(gone)
    host.hours(1.25)
    bill(host)

    assert ([(HOUR, Decimal(1))], []) == (charged(host, kept), charged(host, gone))


@pytest.mark.parametrize(
    ("creation_fee", "money"), [("extra", "1.00"), ("covers-first-hour", "0")], ids=["extra", "unpaid"]
)
def test_a_fee_that_covers_nothing(containerstacks: ContainerStacks, creation_fee: str, money: str) -> None:
    """An extra fee, and one that the wallet could not pay: the hours count from the creation, or from the host's watermark."""
    host = containerstacks
    _, plan = adopted(host, creation_fee)
    web = host.create_vps(host.customer(money), plan, "web")
    host.hours(1)
    bill(host)

    begins = timedelta(milliseconds=22) if creation_fee == "extra" else timedelta(0)
    assert [(begins, Decimal(1))] == charged(host, web)


def test_a_watermark_without_a_fee_pays_for_no_hour(containerstacks: ContainerStacks) -> None:
    """An administrator sets the first watermark by hand: what is before it is waived, and no more."""
    host = containerstacks
    acme, plan = adopted(host, "covers-first-hour")
    assert host.fleet is not None
    web = host.fleet.instance(acme, plan)
    host.hours(0.25)
    host.conn.execute("update vps_instances set last_billed_at = %s", (host.now,))
    host.hours(1)
    bill(host)

    assert [(HOUR / 4, Decimal(1))] == charged(host, web)
