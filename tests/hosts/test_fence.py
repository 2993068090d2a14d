"""The fence around the ledger, and watermarks that the host moves on."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal

import psycopg
import pytest
from tests.clock import heartbeat, host_clock_follows
from tests.hosts.life import ContainerStacks, Successor

from containerstacks_billing.cli.service import release_fence
from containerstacks_billing.schema.fence import fence_host_billing, unfence_host_billing
from containerstacks_billing.settings import settings_from
from containerstacks_billing.verification.verify import verify

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def fenced(successor: Successor) -> Successor:
    """The successor with an instance that is an hour behind, and the fence up."""
    acme = successor.customer("20.00")
    successor.create_vps(acme, successor.plan("7.30"), "web")
    successor.adopt(billable_statuses=("*",))
    successor.hours(1.001)
    assert successor.fleet is not None
    fence_host_billing(successor.fleet.conninfo, 90)
    return successor


def test_an_hourly_debit_is_refused_as_a_whole_while_a_daemon_is_alive(fenced: Successor) -> None:
    """The balance that the host moved in the same transaction is where it was."""
    assert fenced.fleet is not None
    heartbeat(fenced.fleet)
    with pytest.raises(psycopg.errors.RaiseException, match="billed by containerstacks-billing"):
        fenced.bill_hourly()
    balances = fenced._rows("select balance from wallets")
    assert [row.balance for row in balances] == [Decimal("19.99")]
    assert fenced._rows("select id from vps_billing_cycles") == []


def test_other_movements_of_the_host_and_our_own_debits_pass(fenced: Successor) -> None:
    """Only what its scheduler writes is refused."""
    assert fenced.fleet is not None
    heartbeat(fenced.fleet)
    (acme,) = (row.organization_id for row in fenced._rows("select organization_id from wallets"))
    fenced.buy_egress_pack(acme, "0.50")
    fenced.create_vps(acme, fenced.plan("7.30"), "second")
    host_clock_follows(fenced.fleet)
    assert fenced.fleet.bill().instances_billed == 1
    assert verify(fenced.fleet.conninfo).ok


@pytest.mark.parametrize("how", ["silent", "stopped", "never reported", "removed"])
def test_the_fence_is_open_without_a_biller(fenced: Successor, how: str) -> None:
    """After 90 minutes of silence, after a clean stop, without any daemon, and when it was removed."""
    assert fenced.fleet is not None
    if how == "silent":
        heartbeat(fenced.fleet, age=timedelta(minutes=91))
    elif how == "stopped":
        heartbeat(fenced.fleet, status="stopped")
    elif how == "removed":
        heartbeat(fenced.fleet)
        assert unfence_host_billing(fenced.fleet.conninfo)
        assert not unfence_host_billing(fenced.fleet.conninfo)
    assert fenced.bill_hourly() == 1


def test_the_command_puts_the_fence_up_and_takes_it_down(successor: Successor, command: Command) -> None:
    """With migrate, which may be repeated."""
    successor.adopt()
    assert successor.fleet is not None
    environment = {"DATABASE_URL": successor.fleet.conninfo}
    trigger = "select tgname from pg_trigger where tgname = 'billing_fence_host_debits'"
    for _ in range(2):
        assert command("migrate", "--fence-host-billing", environment=environment).returncode == 0
        assert len(successor._rows(trigger)) == 1
    assert command("migrate", "--unfence-host-billing", environment=environment).returncode == 0
    assert successor._rows(trigger) == []


def test_a_watermark_that_the_host_moves_on_is_explained(successor: Successor) -> None:
    """The milliseconds of a creation fee, and an hour that an operator waives: settled segments, and never charged."""
    host = successor
    acme = host.customer("20.00")
    host.adopt(billable_statuses=("*",))
    web = host.create_vps(acme, host.plan("7.30"), "web")
    host.hours(1.5)
    host.conn.execute("update vps_instances set last_billed_at = %s where id = %s", (host.now, web))
    host.hours(1)
    assert host.fleet is not None
    host_clock_follows(host.fleet)
    host.fleet.bill()
    assert [amount for *_, amount, _ in host.fleet.charges()] == ["0.01"]
    settled = host._rows(
        "select reason, outcome, ended_at - started_at as span from billing_usage_segments order by started_at"
    )
    assert [(row.reason, row.outcome, row.span) for row in settled] == [
        ("watermark", "waived", timedelta(milliseconds=22)),
        ("watermark", "waived", timedelta(hours=1.5)),
    ]
    assert verify(host.fleet.conninfo).ok


def test_the_fence_goes_with_the_daemon(containerstacks: ContainerStacks) -> None:
    """A dry run leaves it, the uninstallation removes it, and without a fence it says nothing."""
    containerstacks.adopt()
    assert containerstacks.fleet is not None
    conninfo = containerstacks.fleet.conninfo
    settings = settings_from({"DATABASE_URL": conninfo})
    fence_host_billing(conninfo, 90)
    said = [release_fence(settings, dry_run=dry_run) for dry_run in (True, False, False)]
    assert said == [
        ["Would remove the fence around the host's hourly debits."],
        ["Removed the fence: the host's scheduler can debit."],
        [],
    ]
