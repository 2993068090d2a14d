"""Hours that the host could not collect before adoption: charged by the first run, or decided about. One cent an hour."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from decimal import Decimal
from uuid import UUID

import pytest
from tests.clock import host_clock_follows
from tests.hosts.life import ContainerStacks

from containerstacks_billing.holds.model import EVERY_HOUR, Decision, ReleaseDecision, ReleaseResult
from containerstacks_billing.holds.release import release
from containerstacks_billing.verification.verify import verify

EVERY_STATUS = ("*",)


def decide(host: ContainerStacks, decision: Decision, *, dry_run: bool = False) -> ReleaseResult:
    """Decide about all of them."""
    assert host.fleet is not None
    kept = EVERY_HOUR if decision is Decision.CHARGE else 0
    order = ReleaseDecision(decision, "anna", "old debts", kept, dry_run=dry_run, passed_over=True)
    return release(host.fleet.conninfo, host.fleet.terms, order, "test")


def hours(result: ReleaseResult) -> tuple[int, Decimal, Decimal]:
    """Return instances, hours to charge and hours waived."""
    return result.instances, result.hours_approved.normalize(), result.hours_waived.normalize()


def billed(host: ContainerStacks, vps: UUID) -> list[str]:
    """Bill, and return the hours of each charge, once the books are proved right."""
    assert host.fleet is not None
    host_clock_follows(host.fleet)
    assert host.fleet.bill().outcome == "completed"
    assert verify(host.fleet.conninfo).discrepancies == ()
    return [
        f"{Decimal(row.hours).normalize():f}"
        for row in host.fleet.rows(
            "select extract(epoch from billing_period_end - billing_period_start) / 3600 as hours from vps_billing_cycles"
            " where run_id is not null and vps_instance_id = %s order by billing_period_start",
            vps,
        )
    ]


@pytest.fixture
def failing(containerstacks: ContainerStacks) -> tuple[ContainerStacks, UUID]:
    """An instance whose first three hours the wallet could not pay: rows of 1, 2 and 3 hours. Adopted two hours later."""
    host = containerstacks
    web = host.create_vps(host.customer("0.01"), host.plan("7.30"), "web")
    for _ in range(3):
        host.hours(1)
        host.bill_hourly()
    host.hours(2)
    host.adopt(billable_statuses=EVERY_STATUS)
    return host, web


def test_waived_hours_are_those_of_the_failed_rows(failing: tuple[ContainerStacks, UUID]) -> None:
    """Of five hours due, the three that the host tried to collect are waived, once; the run charges the two after them."""
    host, web = failing
    assert (1, Decimal(2), Decimal(3)) == hours(decide(host, Decision.WAIVE, dry_run=True))
    assert (1, Decimal(2), Decimal(3)) == hours(decide(host, Decision.WAIVE))
    assert 0 == decide(host, Decision.WAIVE).instances
    assert ["2"] == billed(host, web)
    assert host.fleet is not None
    assert [("waive", "anna", "old debts")] == [
        (row.decision, row.decided_by, row.reason)
        for row in host.fleet.rows("select * from billing_decisions")
    ]


def test_a_segment_that_goes_on_after_them_is_divided(failing: tuple[ContainerStacks, UUID]) -> None:
    """Resized after adoption, before the first run: three of the five closed hours are waived, and the open hour is charged."""
    host, web = failing
    host.resize(web, host.plan("73.00"))
    host.hours(1)
    assert (1, Decimal(3), Decimal(3)) == hours(decide(host, Decision.WAIVE))
    assert ["2", "1"] == billed(host, web)


@pytest.mark.parametrize(("decision", "charged"), [(Decision.CHARGE, ["2", "1"]), (Decision.WAIVE, ["1"])])
def test_hours_before_the_watermark(
    containerstacks: ContainerStacks, decision: Decision, charged: list[str]
) -> None:
    """The host passed over two failed hours; nothing charges them, unless they are decided to be charged. Once."""
    host = containerstacks
    web = host.create_vps(host.customer("0.01"), host.plan("7.30"), "web")
    for _ in range(2):
        host.hours(1)
        host.bill_hourly()
    host.conn.execute("update vps_instances set last_billed_at = %s", (host.now,))
    host.adopt(billable_statuses=EVERY_STATUS)
    host.hours(1)
    # The hour since is due besides.
    expected = {Decision.CHARGE: (1, Decimal(3), Decimal(0)), Decision.WAIVE: (1, Decimal(1), Decimal(2))}
    assert expected[decision] == hours(decide(host, decision))
    assert 0 == decide(host, decision).instances
    assert charged == billed(host, web)


def test_the_commands_say_the_same(
    failing: tuple[ContainerStacks, UUID], command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """`migrate` names the command, which shows what it means, and takes --charge or --waive."""
    host, _ = failing
    assert host.fleet is not None
    environment = {"DATABASE_URL": host.fleet.conninfo, "BILLABLE_STATUSES": "*"}
    offered = "containerstacks-billing release --passed-over --all --waive"
    assert offered in " ".join(command("migrate", environment=environment).stdout.split())
    refused = command("release", "--passed-over", "--all", "--cap", "1", environment=environment)
    assert (2, True) == (refused.returncode, "--charge or --waive" in refused.stderr)
    order = ("release", "--passed-over", "--all", "--waive", "--reason", "old", "--json", "--yes")
    assert "3" == json.loads(command(*order, environment=environment).stdout)["hoursWaived"].rstrip("0.")
    again = command(*order[:-2], "--dry-run", environment=environment)
    assert "No such hour was passed over; there is nothing to decide." in again.stdout
