"""A customer who owes and pays in is billed within seconds, between two hours."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import psycopg
import pytest
from tests.daemons import Start, eventually
from tests.fleet import Fleet

from containerstacks_billing.daemon.top_ups import organizations_that_can_pay


@pytest.fixture
def fleet(conn: psycopg.Connection[Any]) -> Fleet:
    return Fleet(conn)


def debtor(fleet: Fleet, hours: int = 3) -> UUID:
    """A customer with one server at 0.01 an hour, who could not pay any of these hours."""
    organization = penniless(fleet, hours)
    fleet.bill()
    return organization


def penniless(fleet: Fleet, hours: int) -> UUID:
    organization = fleet.organization("0.00")
    fleet.instance(organization, fleet.plan("7.30"))
    fleet.hours(hours)
    return organization


@pytest.mark.parametrize(("amount", "can_pay"), [("0.01", True), ("5.00", True), ("0.00", False)])
def test_those_who_can_pay_an_hour_are_found(fleet: Fleet, amount: str, can_pay: bool) -> None:
    """Less than the oldest hour pays nothing, so nothing is run for it."""
    organization = debtor(fleet)
    assert [] == organizations_that_can_pay(fleet.conn)
    fleet.top_up(organization, amount)
    assert ([organization] if can_pay else []) == organizations_that_can_pay(fleet.conn)


def test_who_owes_nothing_any_more_is_not_found(fleet: Fleet) -> None:
    """The run that pays is the last one."""
    organization = debtor(fleet)
    fleet.top_up(organization, "0.02")
    fleet.bill(organization=organization, trigger="top-up")
    assert [] == organizations_that_can_pay(fleet.conn)
    fleet.top_up(organization, "1.00")
    assert [organization] == organizations_that_can_pay(fleet.conn)
    fleet.bill(organization=organization, trigger="top-up")
    assert [] == organizations_that_can_pay(fleet.conn)


def test_a_held_run_is_decided_first(fleet: Fleet) -> None:
    """What holds the fleet holds its customers one by one as well."""
    organization = debtor(fleet)
    fleet.top_up(organization, "1.00")
    fleet.conn.execute("update billing_runs set outcome = 'held', error_message = 'held by a test'")
    assert [] == organizations_that_can_pay(fleet.conn)


def test_a_top_up_is_used_before_the_next_hour(fleet: Fleet, start: Start) -> None:
    """The daemon runs this organization alone, and tells the host that it recovered; other hours wait for their tick."""
    organization = penniless(fleet, 3)
    daemon = start()
    eventually(
        lambda: fleet.rows("select from billing_runs where trigger = 'daemon' and outcome = 'completed'")
    )
    fleet.top_up(organization, "5.00")
    eventually(
        lambda: fleet.rows("select from billing_runs where trigger = 'top-up' and outcome = 'completed'")
    )
    assert 0 == daemon.stop()
    runs = fleet.rows("select trigger, organization_id from billing_runs order by id")
    assert [("daemon", None), ("top-up", organization)] == [tuple(row) for row in runs]
    assert ["billed"] == [row[3] for row in fleet.charges()]
    kinds = [row.kind for row in fleet.rows("select kind from billing_events order by id")]
    assert ["past_due", "recovered"] == [kind for kind in kinds if not kind.startswith("runway")]
