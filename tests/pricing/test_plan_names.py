"""What the name of a plan means after the plan was retired, or while plans of one name do not agree."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import psycopg
import pytest
from tests.fleet import Fleet

from containerstacks_billing.verification.verify import verify


@pytest.fixture
def fleet(conn: psycopg.Connection[Any]) -> Fleet:
    return Fleet(conn)


@pytest.fixture
def moved(fleet: Fleet) -> UUID:
    """An instance that ran for three hours on the plan named small, at 0.01, and is on the one named big, at 1.00."""
    fleet.plan("7.30", provider_plan_id="small")
    fleet.plan("730.00", provider_plan_id="big")
    web = fleet.instance(fleet.organization("100.00"), "small")
    fleet.hours(3)
    fleet.set(web, plan_id="big")
    return web


def test_hours_on_a_plan_that_was_retired_since_are_charged_at_its_price(fleet: Fleet, moved: UUID) -> None:
    """All instances are moved away, then the plan is withdrawn: what ran on it is not charged at the next one's price."""
    fleet.conn.execute("update vps_plans set active = false where provider_plan_id = 'small'")
    fleet.hours(1)
    fleet.bill()

    assert [
        ("01 00:00", "01 03:00", "0.03", "billed"),
        ("01 03:00", "01 04:00", "1", "billed"),
    ] == fleet.charges(moved)
    assert verify(fleet.conninfo).ok


def test_hours_on_plans_that_disagree_for_a_moment_wait_until_they_agree(fleet: Fleet, moved: UUID) -> None:
    """Two plans of one name are repriced one after the other, and a run comes between: it charges these hours at no price."""
    twin = fleet.plan("7.30", provider_plan_id="small")
    fleet.reprice(twin, "14.60")
    fleet.hours(1)
    fleet.bill()
    between = fleet.charges(moved), fleet.quarantine()
    fleet.conn.execute("update vps_plans set base_price = 14.60 where provider_plan_id = 'small'")
    fleet.hours(1)
    fleet.bill()

    assert ([("01 03:00", "01 04:00", "1", "billed")], {moved: "ambiguous plan"}) == between
    assert [("01 00:00", "01 03:00", "0.03", "billed"), ("01 03:00", "01 05:00", "2", "billed")] == [
        *fleet.charges(moved)[:1],
        (fleet.charges(moved)[1][0], fleet.charges(moved)[-1][1], "2", "billed"),
    ]
    assert {} == fleet.quarantine()


def test_an_instance_on_a_retired_plan_is_quarantined(fleet: Fleet) -> None:
    """It runs on a plan that was withdrawn: the repair needs a decision, and nothing is charged."""
    fleet.plan("7.30", provider_plan_id="small")
    web = fleet.instance(fleet.organization("100.00"), "small")
    fleet.conn.execute("update vps_plans set active = false")
    fleet.hours(1)
    fleet.bill()

    assert {web: "no plan"} == fleet.quarantine()
    assert [] == fleet.charges()
