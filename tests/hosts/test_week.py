"""A week of each host's own life beside our billing: the books are right at its end."""

from __future__ import annotations

from decimal import Decimal
from uuid import UUID

import pytest
from tests.clock import host_clock_follows
from tests.hosts.life import ContainerStacks, Successor

from containerstacks_billing.verification.verify import verify

EVERY_STATUS = {"billable_statuses": ("*",)}


def bill(host: ContainerStacks) -> None:
    """Run billing now; this machine's clock moves with the database's."""
    assert host.fleet is not None
    host_clock_follows(host.fleet)
    result = host.fleet.bill()
    assert result.outcome == "completed", result


def discrepancies(host: ContainerStacks) -> list[str]:
    """What verify finds, a line each."""
    assert host.fleet is not None
    return [str(one) for one in verify(host.fleet.conninfo).discrepancies]


def daily_life(host: ContainerStacks, day: int, acme: UUID, plans: list[UUID], kept: list[UUID]) -> None:
    """One day: a new instance, restarts, a change of plan, top-ups, and billing every four hours."""
    made = host.create_vps(acme, plans[day % 2], f"day-{day}")
    kept.append(made)
    for hour in range(24):
        if hour == 3:
            host.reboot(made)
        if hour == 5:
            host.set_status(made, "running")
        if hour == 8:
            host.resize(kept[0], plans[(day + 1) % 2])
        if hour == 13:
            host.add_funds(acme, "12.34")
        if hour == 20 and day % 3 == 2:
            host.delete_vps(kept.pop(1))
        host.hours(1)
        if hour % 4 == 3:
            bill(host)


def established(host: ContainerStacks) -> tuple[UUID, list[UUID], list[UUID]]:
    """A customer with two instances, whom the host itself billed for six hours."""
    plans = [host.plan("7.30"), host.plan("10.95", "3.65")]
    acme = host.customer("200.00")
    kept = [host.create_vps(acme, plans[0], "first"), host.create_vps(acme, plans[1], "second")]
    for _ in range(6):
        host.hours(1)
        host.bill_hourly()
    return acme, plans, kept


def test_a_week_beside_containerstacks(containerstacks: ContainerStacks) -> None:
    """Creation fees, reboots, resizes, absolute top-ups and deletions leave nothing to explain."""
    host = containerstacks
    acme, plans, kept = established(host)
    leaving = host.customer("5.00")
    host.create_vps(leaving, plans[0], "leaves")
    host.adopt(**EVERY_STATUS)
    for day in range(7):
        daily_life(host, day, acme, plans, kept)
        if day == 4:
            host.delete_organization(leaving)
    assert discrepancies(host) == []


def test_a_week_beside_the_successor(successor: Successor) -> None:
    """Hosting transfers, egress, suspensions, backups and adjustments by hand too."""
    host = successor
    acme, plans, kept = established(host)
    backed_up = host.plan("7.30", backup_price_hourly="0.003", backup_upcharge_hourly="0.001")
    kept.append(host.create_vps(acme, backed_up, "backed-up", backup_frequency="weekly"))
    host.fund_hosting(acme, "20.00")
    host.transfer_to_hosting(acme, "10.00")
    leaving = host.customer("5.00")
    host.create_vps(leaving, plans[0], "leaves")
    host.adopt(**EVERY_STATUS)
    for day in range(7):
        host.buy_hosting(acme, "1.00")
        daily_life(host, day, acme, plans, kept)
        host.transfer_to_hosting(acme, "3.00")
        host.transfer_from_hosting(acme, "1.50")
        host.buy_egress_pack(acme, "0.50")
        host.adjust(acme, "2.00" if day % 2 else "-1.25")
        if day == 2:
            host.suspend(kept[0])
        if day == 4:
            host.delete_organization(leaving)
        if day == 5:
            host.bill_egress_overage(acme, "0.77")
    assert discrepancies(host) == []
    assert host.hosting_balance(acme) == Decimal("33.5")


@pytest.mark.parametrize("host_name", ["containerstacks", "successor"])
def test_statements_of_the_host_go_on_as_they_were(host_name: str, request: pytest.FixtureRequest) -> None:
    """After adoption each of them changes the same rows of the host's columns as before."""
    host: ContainerStacks = request.getfixturevalue(host_name)
    acme, plans, _ = established(host)
    host.adopt(**EVERY_STATUS)
    before = host.balance(acme)
    made = host.create_vps(acme, plans[0], "made-after")
    host.reboot(made)
    status, billed_at = host.conn.execute(
        "select status, last_billed_at from vps_instances where id = %s", (made,)
    ).fetchone() or (None, None)
    assert (status, billed_at, before - host.balance(acme)) == ("rebooting", host.now, Decimal("0.01"))


def test_hours_that_the_host_passes_over_are_named_with_their_amount(
    containerstacks: ContainerStacks,
) -> None:
    """Three hours at one cent, and 22 ms of creation, given away; what the host billed itself is not among them."""
    host = containerstacks
    acme, plan = host.customer("20.00"), host.plan("7.30")
    given, billed = host.create_vps(acme, plan, "given"), host.create_vps(acme, plan, "billed")
    host.adopt(**EVERY_STATUS)
    bill(host)
    host.hours(3)
    host.conn.execute("update vps_instances set last_billed_at = %s where id = %s", (host.now, given))
    host.bill_hourly(only=[billed])
    host.hours(1)
    bill(host)
    assert host.fleet is not None
    found = verify(host.fleet.conninfo)
    assert found.ok
    assert (found.open_items.hours_passed_by_host, found.open_items.amount_passed_by_host) == (
        Decimal("3.000006"),
        Decimal("0.03000006"),
    )
