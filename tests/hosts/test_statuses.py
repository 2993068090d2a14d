"""Adoption requires BILLABLE_STATUSES where the host bills others than the default."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
from tests.clock import host_clock_follows
from tests.hosts.life import ContainerStacks

from containerstacks_billing.daemon.preflight import preflight
from containerstacks_billing.errors import ConfigurationError
from containerstacks_billing.settings import settings_from

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def adopted(containerstacks: ContainerStacks) -> ContainerStacks:
    """Three instances that the host billed for two hours, one of them running; prices of 7.30, 7.30 and 14.60 a month."""
    host = containerstacks
    acme = host.customer("50.00")
    small, large = host.plan("7.30"), host.plan("14.60")
    seen = host.create_vps(acme, small, "seen")
    host.create_vps(acme, small, "never-looked-at")
    rebooted = host.create_vps(acme, large, "rebooted")
    host.set_status(seen, "running")
    host.reboot(rebooted)
    host.hours(2)
    host.bill_hourly()
    host.adopt()
    return host


def environment(host: ContainerStacks, **settings: str) -> dict[str, str]:
    assert host.fleet is not None
    return {"DATABASE_URL": host.fleet.conninfo, **settings}


LEFT_OUT = "bills 2 instances that BILLABLE_STATUSES=running leaves out (1 provisioning, 1 rebooting): 21.90 USD a month"


def test_a_run_refuses_to_guess_until_the_statuses_are_set(
    adopted: ContainerStacks, command: Command
) -> None:
    """Exit 78 with instances and money a month; either answer is one; nothing was charged before it."""
    adopted.hours(1)
    refused = command("run", environment=environment(adopted))
    assert refused.returncode == 78
    assert LEFT_OUT in " ".join(refused.stderr.split())
    assert "BILLABLE_STATUSES=*" in refused.stderr
    assert adopted._rows("select id from billing_runs where outcome is not null") == []

    decided = command("run", "--json", environment=environment(adopted, BILLABLE_STATUSES="*"))
    assert json.loads(decided.stdout)["instancesBilled"] == 3
    assert command("run", environment=environment(adopted)).returncode == 0


def test_the_daemon_refuses_too(adopted: ContainerStacks) -> None:
    """Before it says that it is ready; with the statuses set it starts."""
    conninfo = environment(adopted)["DATABASE_URL"]
    with pytest.raises(ConfigurationError, match=r"21\.90 USD a month"):
        preflight(conninfo, settings_from({"DATABASE_URL": conninfo}))
    preflight(conninfo, settings_from({"DATABASE_URL": conninfo, "BILLABLE_STATUSES": "running"}))


def test_migrate_dry_run_and_doctor_say_the_same(adopted: ContainerStacks, command: Command) -> None:
    """The same sentence, and the name of the host."""
    report = command("migrate", environment=environment(adopted))
    assert LEFT_OUT in " ".join(report.stdout.split())
    named = f"Host application: ContainerStacks ({Path(__file__).parents[2]}/docs/hosts/containerstacks.md)"
    assert named in report.stdout
    assert named in command("status", environment=environment(adopted)).stdout
    document = json.loads(command("status", "--json", environment=environment(adopted)).stdout)
    assert document["host"] == "ContainerStacks"
    adopted.hours(1)
    rehearsed = command("run", "--dry-run", environment=environment(adopted))
    assert rehearsed.returncode == 0
    assert LEFT_OUT in " ".join(rehearsed.stderr.split())
    examined = json.loads(command("doctor", "--json", environment=environment(adopted)).stdout)
    levels = {one["check"]: one["level"] for one in examined["findings"]}
    assert (levels["host application"], levels["statuses"]) == ("OK", "FAIL")


def test_a_host_that_bills_what_the_default_bills_is_not_asked(
    containerstacks: ContainerStacks, command: Command
) -> None:
    """Where they agree, the default stands."""
    host = containerstacks
    web = host.create_vps(host.customer("50.00"), host.plan("7.30"), "web")
    host.set_status(web, "running")
    host.hours(2)
    host.bill_hourly()
    host.adopt()
    host.hours(1)
    assert command("run", environment=environment(host)).returncode == 0


def test_the_first_statuses_hold_since_adoption(containerstacks: ContainerStacks) -> None:
    """What changed or was deleted between `migrate` and the first run is billed by the settings of that run."""
    host = containerstacks
    acme, plan = host.customer("50.00"), host.plan("7.30")
    host.adopt(billable_statuses=("*",))
    kept = host.create_vps(acme, plan, "kept")
    gone = host.create_vps(acme, plan, "gone")
    host.hours(2)
    host.set_status(kept, "stopped")
    host.delete_vps(gone)
    host.hours(1)
    assert host.fleet is not None
    host_clock_follows(host.fleet)
    host.fleet.bill()
    billed = [(start, amount) for start, _, amount, _ in host.fleet.charges(kept)]
    assert sum(Decimal(amount) for _, amount in billed) == Decimal("0.03000006")
    assert [amount for *_, amount, _ in host.fleet.charges(gone)] == ["0.02"]
