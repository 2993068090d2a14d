"""A transient status, as during a reboot, continues the one before it. The plan costs one cent an hour."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

import psycopg
import pytest
from tests.fleet import Fleet

from containerstacks_billing.charging.dry_run import dry_run
from containerstacks_billing.charging.forecast import Limits
from containerstacks_billing.charging.model import Terms
from containerstacks_billing.settings import TRANSIENT_STATUSES, settings_from
from containerstacks_billing.verification.verify import verify

DAY = "2026-03-01 "


@pytest.fixture
def fleet(conn: psycopg.Connection[Any]) -> Fleet:
    return Fleet(conn)


@pytest.fixture
def web(fleet: Fleet) -> UUID:
    """An instance that runs since midnight."""
    return fleet.instance(fleet.organization("10.00"), fleet.plan("7.30"))


def hours(fleet: Fleet, instance: UUID | None = None) -> list[tuple[str, str, str]]:
    """Return what is charged, once the books are proved right: from, until, amount."""
    assert verify(fleet.conninfo).discrepancies == ()
    return [(start, end, amount) for start, end, amount, _ in fleet.charges(instance)]


def test_the_default_is_that_of_the_database(fleet: Fleet) -> None:
    """Triggers know the list before the first run has written one."""
    stored = fleet.rows("select transient_statuses from billing_policies")
    assert [list(TRANSIENT_STATUSES)] == [row.transient_statuses for row in stored]
    assert settings_from({}).transient_statuses == TRANSIENT_STATUSES


def test_an_instance_that_reboots_is_billed_on(fleet: Fleet, web: UUID) -> None:
    """Rebooted at 00:20 and never looked at: charged hour by hour, as one segment, until it is stopped at 03:30."""
    fleet.at(DAY + "00:20")
    fleet.set(web, status="rebooting")
    fleet.at(DAY + "02:00")
    assert fleet.bill().instances_billed == 1
    fleet.at(DAY + "03:30")
    fleet.set(web, status="stopped")
    fleet.at(DAY + "06:00")
    fleet.bill()

    assert [("01 00:00", "01 02:00", "0.02"), ("01 02:00", "01 03:30", "0.015")] == hours(fleet)


def test_what_was_not_billable_stays_so(fleet: Fleet, web: UUID) -> None:
    """Stopped at 01:00, boots from 02:00 until it runs at 02:10."""
    for moment, status in (("01:00", "stopped"), ("02:00", "booting"), ("02:10", "running")):
        fleet.at(DAY + moment)
        fleet.set(web, status=status)
    fleet.at(DAY + "03:10")
    fleet.bill()

    assert [("01 00:00", "01 01:00", "0.01"), ("01 02:10", "01 03:10", "0.01")] == hours(fleet)


def test_reboots_cut_no_hour_short(fleet: Fleet, web: UUID) -> None:
    """Where a started hour is free, an instance that reboots every 50 minutes is not: its hours go on."""
    fleet.terms = replace(fleet.terms, partial_hour="free")
    for moment in ("00:50", "01:40", "02:30"):
        fleet.at(DAY + moment)
        fleet.set(web, status="rebooting")
        fleet.set(web, status="running")
    fleet.at(DAY + "03:00")
    fleet.bill()

    assert [("01 00:00", "01 03:00", "0.03")] == hours(fleet)


def test_another_change_ends_the_segment_as_it_was_used(fleet: Fleet, web: UUID) -> None:
    """Resized at 01:30 while it reboots: both parts are billed as running; so is the row's last, deleted at 02:30."""
    fleet.at(DAY + "01:00")
    fleet.set(web, status="rebooting")
    fleet.at(DAY + "01:30")
    fleet.set(web, plan_id=fleet.plan("73.00"), status="resizing")
    fleet.at(DAY + "02:30")
    fleet.delete(web)
    fleet.at(DAY + "04:00")
    fleet.bill()

    assert [("01 00:00", "01 01:30", "0.015"), ("01 01:30", "01 02:30", "0.1")] == hours(fleet)


@pytest.mark.parametrize("claimed", ["null", "'stopped'"])
def test_a_row_that_comes_back_continues_too(fleet: Fleet, web: UUID, claimed: str) -> None:
    """Deleted and put back by a sync while it reboots, whatever stands in our column; and no update of the host writes that."""
    fleet.at(DAY + "00:30")
    fleet.set(web, status="rebooting")
    with fleet.conn.transaction():
        fleet.conn.execute("create temporary table copied on commit drop as select * from vps_instances")
        fleet.conn.execute(f"update copied set lasting_status = {claimed}")
        fleet.conn.execute("delete from vps_instances")
        fleet.conn.execute("insert into vps_instances select * from copied")
    fleet.conn.execute(f"update vps_instances set lasting_status = {claimed}")
    fleet.at(DAY + "02:00")
    fleet.bill()

    assert [("01 00:00", "01 00:30", "0.005"), ("01 00:30", "01 01:30", "0.01")] == hours(fleet)


def test_a_new_setting_divides_time_at_its_run(fleet: Fleet, web: UUID) -> None:
    """Without transient statuses from 02:30 on, an instance that reboots is free from then; a dry run says so before."""
    fleet.bill()
    fleet.at(DAY + "01:00")
    fleet.set(web, status="rebooting")
    fleet.at(DAY + "02:30")
    fleet.terms = replace(fleet.terms, transient_statuses=())
    rehearsed = dry_run(fleet.order(), Limits())
    sentence = (
        f"TRANSIENT_STATUSES changes from {','.join(sorted(TRANSIENT_STATUSES))} to none with the next run"
    )
    assert ((sentence,), "0.025") == (rehearsed.changes, str(rehearsed.amount.normalize()))
    fleet.bill()
    fleet.at(DAY + "05:00")
    fleet.bill()

    assert [("01 00:00", "01 02:30", "0.025")] == hours(fleet, web)


def test_what_is_billable_by_name_is_not_transient() -> None:
    """An operator who bills servers that reboot means all of them, also those that were stopped before."""
    terms = Terms(billable_statuses=("running", "rebooting"), transient_statuses=("booting", "rebooting"))
    assert ("booting",) == terms.policy.transient_statuses
