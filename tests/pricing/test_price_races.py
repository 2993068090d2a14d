"""Two who touch one price at once: the host and a run, in every order that once went wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, LiteralString
from uuid import UUID

import psycopg
import pytest
from tests.fleet import Fleet, clock, instant

from containerstacks_billing.charging import run_record as runs
from containerstacks_billing.charging.model import Outcome
from containerstacks_billing.drill import oracle
from containerstacks_billing.drill.fake_clock import start_clock
from containerstacks_billing.verification.verify import verify

Versions = list[tuple[str, str, str]]


@pytest.fixture
def fleet(conn: psycopg.Connection[Any]) -> Fleet:
    return Fleet(conn)


def versions(fleet: Fleet, plan: UUID) -> Versions:
    """From, until and monthly price."""
    return [
        (
            "always" if row.since_ever else clock(row.valid_from),
            "always" if row.for_ever else clock(row.valid_to),
            str((row.base_price + row.markup_price).normalize()),
        )
        for row in fleet.rows(
            "select base_price, markup_price, valid_from = '-infinity' as since_ever, valid_to = 'infinity' as for_ever,"
            " nullif(valid_from, '-infinity') as valid_from, nullif(valid_to, 'infinity') as valid_to"
            " from plan_price_versions where plan_id = %s order by plan_price_versions.valid_from",
            plan,
        )
    ]


@contextmanager
def the_host(fleet: Fleet, change: LiteralString) -> Iterator[None]:
    """A change of another session that is committed at the end of the block."""
    with psycopg.connect(fleet.conninfo, autocommit=True) as host, host.transaction():
        host.execute(change)
        yield


def announce(fleet: Fleet, plan: UUID, base: str, at: str) -> None:
    """Enter a price for later, as `prices set` does."""
    fleet.conn.execute("update plan_price_versions set valid_to = %s where plan_id = %s", (instant(at), plan))
    fleet.conn.execute(
        "insert into plan_price_versions (plan_id, valid_from, base_price, markup_price, announced)"
        " values (%s, %s, %s, 0, true)",
        (plan, instant(at), base),
    )


def test_a_price_may_change_again_while_a_run_looks_for_what_was_missed(fleet: Fleet) -> None:
    """The clock went back, so both changes begin at 06:00, where billing had come to; a run amid the second keeps out of it."""
    plan = fleet.plan("7.30")
    fleet.instance(fleet.organization(), plan)
    fleet.at("2026-03-01 06:00")
    fleet.bill()
    fleet.at("2026-03-01 05:30")
    fleet.reprice(plan, "14.60")
    with the_host(fleet, "update vps_plans set base_price = 21.90"):
        assert Outcome.COMPLETED == fleet.bill().outcome

    assert [("always", "01 06:00", "7.3"), ("01 06:00", "always", "21.9")] == versions(fleet, plan)


def test_a_price_that_the_host_sets_while_a_run_shows_an_announced_one_wins(fleet: Fleet) -> None:
    """Announced for 03:00; at 03:20 the host sets another, and a run that opens before its commit does not take it back."""
    plan = fleet.plan("7.30")
    fleet.instance(fleet.organization(), plan)
    announce(fleet, plan, "73.00", "2026-03-01 03:00")
    fleet.at("2026-03-01 03:20")
    with the_host(fleet, "update vps_plans set base_price = 14.60"):
        fleet.at("2026-03-01 03:30")
        assert Outcome.COMPLETED == fleet.bill().outcome
    fleet.bill()

    assert [
        ("always", "01 03:00", "7.3"),
        ("01 03:00", "01 03:30", "73"),
        ("01 03:30", "always", "14.6"),
    ] == versions(fleet, plan)
    assert ["14.60"] == [str(row.base_price) for row in fleet.rows("select base_price from vps_plans")]


def test_an_announced_price_is_rated_though_its_plan_is_held_and_shown_by_the_run_after(fleet: Fleet) -> None:
    """A session edits the plan for hours; the run rates 03:00 at what was announced, and vps_plans shows it afterwards."""
    plan = fleet.plan("7.30")
    fleet.instance(fleet.organization(), plan)
    announce(fleet, plan, "73.00", "2026-03-01 03:00")
    fleet.at("2026-03-01 04:00")
    with the_host(fleet, "update vps_plans set name = 'renamed'"):
        assert Outcome.COMPLETED == fleet.bill().outcome
    held = [str(row.base_price) for row in fleet.rows("select base_price from vps_plans")]
    fleet.bill()

    assert ["7.30"] == held
    assert ["73.00"] == [str(row.base_price) for row in fleet.rows("select base_price from vps_plans")]
    assert [
        ("01 00:00", "01 03:00", "0.03", "billed"),
        ("01 03:00", "01 04:00", "0.1", "billed"),
    ] == fleet.charges()


def test_a_price_begins_when_it_is_committed(fleet: Fleet, database: str) -> None:
    """Set at 01:00 in a transaction that ends at 03:30: the run of 03:00 charges the old price, and the books are right."""
    plan = fleet.plan("7.30")
    fleet.instance(fleet.organization(), plan)
    fleet.at("2026-03-01 01:00")
    with the_host(fleet, "update vps_plans set base_price = 14.60"):
        fleet.at("2026-03-01 03:00")
        fleet.bill()
        fleet.at("2026-03-01 03:30")
    fleet.at("2026-03-01 05:00")
    fleet.bill()

    assert [("always", "01 03:30", "7.3"), ("01 03:30", "always", "14.6")] == versions(fleet, plan)
    assert [
        ("01 00:00", "01 03:00", "0.03", "billed"),
        ("01 03:00", "01 04:00", "0.01", "billed"),
        ("01 04:00", "01 05:00", "0.02", "billed"),
    ] == fleet.charges()
    found = verify(database)
    assert found.ok, found.discrepancies


def test_prices_of_one_transaction_are_dated_as_one(fleet: Fleet) -> None:
    """Two changes in a transaction: the last one holds, the other never was in force. The plan may be altered beside it."""
    plan = fleet.plan("7.30")
    fleet.at("2026-03-01 01:00")
    with psycopg.connect(fleet.conninfo, autocommit=True) as host, host.transaction():
        host.execute("update vps_plans set base_price = 14.60")
        fleet.at("2026-03-01 02:00")
        host.execute("update vps_plans set base_price = 21.90")
        host.execute("alter table vps_plans add column colour text")
        fleet.at("2026-03-01 03:00")

    assert [("always", "01 03:00", "7.3"), ("01 03:00", "always", "21.9")] == versions(fleet, plan)


def test_a_price_that_comes_after_an_announced_one_began_never_was_in_force(fleet: Fleet) -> None:
    """Set at 01:00 and committed at 02:30, when the price announced for 02:00 has begun: that one stays."""
    plan = fleet.plan("7.30")
    announce(fleet, plan, "73.00", "2026-03-01 02:00")
    fleet.at("2026-03-01 01:00")
    with the_host(fleet, "update vps_plans set base_price = 14.60"):
        fleet.at("2026-03-01 02:30")
    fleet.at("2026-03-01 03:00")
    fleet.bill()

    assert [("always", "01 02:00", "7.3"), ("01 02:00", "always", "73")] == versions(fleet, plan)
    assert ["73.00"] == [str(row.base_price) for row in fleet.rows("select base_price from vps_plans")]


def test_a_run_that_halts_as_it_opens_begins_no_price_before_its_time(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that stands still inside a transaction is read by the statement that looks at prices, and by none before it."""
    plan = fleet.plan("7.30")
    fleet.instance(fleet.organization(), plan)
    fleet.at("2026-03-01 03:00")
    oracle.install(fleet.conn)
    start_clock(fleet.conn, fleet.now)
    fleet.conn.execute(
        "insert into billing_runs (trigger, holder, fencing_token, as_of, host_clock, hours_per_month, started_at)"
        " values ('manual', 'gone', 0, '2026-03-01 02:00Z', now(), 730, now())"
    )
    query = runs.query

    def halted(name: str) -> Any:
        if name in {"close_abandoned_runs", "sync_prices"}:
            seen.append(name)
        if len(seen) == 2:
            seen.append("the host")
            fleet.conn.execute("update oracle.clock set at = '2026-03-01 04:30Z'")
            fleet.reprice(plan, "14.60")
        return query(name)

    seen: list[str] = []
    monkeypatch.setattr(runs, "query", halted)
    assert Outcome.COMPLETED is fleet.bill().outcome

    assert [("always", "01 04:30", "7.3"), ("01 04:30", "always", "14.6")] == versions(fleet, plan)
