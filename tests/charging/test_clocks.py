"""Wrong clocks: a hold for clocks binds no host whose clock is right, a release vouches for nothing later, no lease lies in the future."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from tests.fleet import Fleet

from containerstacks_billing.charging.fleet_reading import latest_hold, release_hold
from containerstacks_billing.charging.lease import try_acquire
from containerstacks_billing.charging.model import Outcome


@pytest.fixture
def fleet(conn: psycopg.Connection[Any]) -> Fleet:
    """A fleet of one instance at one cent an hour, billed until 03:00."""
    fleet = Fleet(conn)
    fleet.instance(fleet.organization("10.00"), fleet.plan("7.30"))
    for _ in range(3):
        fleet.hours(1)
        fleet.bill()
    return fleet


def billed(fleet: Fleet) -> Decimal:
    """Add up what is billed."""
    return fleet.rows("select sum(total_amount) as total from vps_billing_cycles where run_id is not null")[
        0
    ].total


def test_a_hold_for_clocks_lapses_once_they_agree(fleet: Fleet) -> None:
    """A host that is twenty minutes behind is held; another, and the same when its clock is right, bills."""
    fleet.hours(1)
    held = fleet.bill(host_clock=fleet.now - timedelta(minutes=20))
    still = fleet.bill(host_clock=fleet.now - timedelta(minutes=19))
    right = fleet.bill()
    fleet.hours(29)

    assert [Outcome.HELD, Outcome.HELD, Outcome.COMPLETED] == [held.outcome, still.outcome, right.outcome]
    assert Outcome.COMPLETED is fleet.bill().outcome
    assert Decimal("0.33") == billed(fleet)


def test_a_release_vouches_for_no_later_clock(fleet: Fleet) -> None:
    """A day ahead and held; set right and released an hour later; a day ahead again: held again, and nothing is charged."""
    fleet.hours(1)
    right = fleet.now
    fleet.at(right + timedelta(hours=25))
    first = fleet.bill(host_clock=right)
    fleet.at(right + timedelta(hours=1))
    hold = latest_hold(fleet.conn)
    assert hold is not None
    assert release_hold(fleet.conn, hold, "operator", "the clock is right again")
    fleet.at(right + timedelta(hours=26))
    second = fleet.bill(host_clock=right + timedelta(hours=1))
    fleet.at(right + timedelta(hours=2))

    assert [Outcome.HELD, Outcome.HELD] == [first.outcome, second.outcome]
    assert Outcome.COMPLETED is fleet.bill().outcome
    assert Decimal("0.06") == billed(fleet)


def test_a_release_lets_a_host_pass_whose_clock_stays_behind(fleet: Fleet) -> None:
    """The database is right and the host is not: the operator says so while both still differ."""
    fleet.hours(1)
    behind = timedelta(hours=2)
    assert Outcome.HELD is fleet.bill(host_clock=fleet.now - behind).outcome
    hold = latest_hold(fleet.conn)
    assert hold is not None
    assert release_hold(fleet.conn, hold, "operator", "the host is behind")

    assert Outcome.COMPLETED is fleet.bill(host_clock=fleet.now - behind).outcome
    assert Decimal("0.04") == billed(fleet)


def test_a_lease_from_the_future_is_none(fleet: Fleet) -> None:
    """A run was killed while the clock was a day ahead: the next one need not wait for a day."""
    fleet.conn.execute(
        "update billing_leases set holder = 'gone', expires_at = clock_timestamp() + interval '25 hours'"
    )
    assert try_acquire(fleet.conn, "next") is not None
    assert try_acquire(fleet.conn, "third") is None
