"""The host's own hourly billing beside ours: hours charged by both are found, with what was taken for them."""

from __future__ import annotations

from decimal import Decimal

from tests.clock import heartbeat, host_clock_follows
from tests.daemons import Start
from tests.hosts.life import ContainerStacks, Successor
from tests.web.client import client_of

from containerstacks_billing.verification.verify import verify


def bill(host: ContainerStacks) -> None:
    """Run billing now; this machine's clock moves with the database's."""
    assert host.fleet is not None
    host_clock_follows(host.fleet)
    host.fleet.bill()


def test_hours_charged_by_both_are_found_with_their_amount(successor: Successor) -> None:
    """Both read the same watermark, the host commits last: an hour is paid to both, and verify says how much."""
    host = successor
    acme = host.customer("20.00")
    web = host.create_vps(acme, host.plan("7.30"), "web")
    host.adopt()
    host.set_status(web, "running")
    host.hours(1.5)
    (stale,) = host._rows("select last_billed_at from vps_instances where id = %s", web)
    bill(host)
    host.conn.execute("set session_replication_role = replica")
    host.conn.execute(
        "update vps_instances set last_billed_at = %s where id = %s", (stale.last_billed_at, web)
    )
    host.conn.execute("reset session_replication_role")
    assert host.bill_hourly() == 1
    assert host.fleet is not None
    found = verify(host.fleet.conninfo)
    one = next(one for one in found.discrepancies if one.check == "one-biller")
    assert one.identifiers["instance_id"] == str(web)
    assert "charged 1 hours" in one.message
    assert "took 0.01 for them" in one.message
    assert not found.ok
    assert (found.host.charged_by_both, round(found.host.hours_charged_by_both, 4)) == (1, Decimal("1.0000"))
    assert round(found.host.amount_charged_by_both, 4) == Decimal("0.0100")


def test_a_watermark_cut_to_milliseconds_is_no_hour_charged_by_both(containerstacks: ContainerStacks) -> None:
    """The host takes over where our charge ended, less than a millisecond earlier: nothing to find, nothing quarantined."""
    host = containerstacks
    acme = host.customer("20.00")
    web = host.create_vps(acme, host.plan("7.30"), "web")
    host.adopt(billable_statuses=("*",))
    host.hours(1)
    bill(host)
    host.hours(1.001)
    assert host.bill_hourly() == 1
    host.hours(1)
    bill(host)
    assert host.fleet is not None
    found = verify(host.fleet.conninfo)
    assert (found.host.charged_by_both, found.host.cycles) == (0, 1)
    assert [one.check for one in found.discrepancies if one.check == "one-biller"] == []
    assert host.fleet.quarantine() == {}
    assert web is not None


def test_debits_of_the_host_that_are_not_hourly_billing_say_nothing_about_its_scheduler(
    successor: Successor,
) -> None:
    """Creation fees, egress packs, hosting purchases: the host lives, and bills no hour."""
    host = successor
    acme = host.customer("20.00")
    host.adopt(billable_statuses=("*",))
    bill(host)
    host.create_vps(acme, host.plan("7.30"), "web")
    host.buy_egress_pack(acme, "0.50")
    host.fund_hosting(acme, "5.00")
    host.buy_hosting(acme, "1.00")
    assert host.fleet is not None
    assert verify(host.fleet.conninfo).host.unkeyed_debits == 0


def test_metrics_and_daemon_say_that_the_host_bills_beside(successor: Successor, start: Start) -> None:
    """Its scheduler debits while the daemon is alive: a gauge, and an hourly line of the daemon."""
    host = successor
    acme = host.customer("20.00")
    host.create_vps(acme, host.plan("7.30"), "web")
    host.adopt(billable_statuses=("*",))
    bill(host)
    host.hours(1.001)
    assert host.fleet is not None
    with client_of(host.fleet.conninfo) as client:
        heartbeat(host.fleet)
        quiet = client.get("/metrics").text
    assert host.bill_hourly() == 1
    with client_of(host.fleet.conninfo) as client:
        loud = client.get("/metrics").text
    assert "containerstacks_billing_host_bills_beside 0.0" in quiet
    assert "containerstacks_billing_host_bills_beside 1.0" in loud
    host.conn.execute("delete from billing_daemon_status")
    host_clock_follows(host.fleet)
    daemon = start(host.fleet.conninfo, HEARTBEAT_SECONDS="1", BILLABLE_STATUSES="*")
    daemon.says("The host application bills too", "debits=1")
    assert daemon.stop() == 0
