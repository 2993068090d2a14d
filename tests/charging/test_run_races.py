"""Races of a run with its host, each brought about once and for all: what is waited for, refused and done again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from tests.daemons import wait_for_lock
from tests.faultlab.steps import Moment, watched
from tests.fleet import Fleet, clock

from containerstacks_billing.charging import run as bill
from containerstacks_billing.charging import run_record as runs
from containerstacks_billing.charging.charger import RunCharger
from containerstacks_billing.charging.fleet_reading import latest_hold, release_hold
from containerstacks_billing.charging.model import Batch, OpenRun, Outcome, RunResult
from containerstacks_billing.database.connection import Connection
from containerstacks_billing.verification.verify import verify

Monkey = pytest.MonkeyPatch


@pytest.fixture
def fleet(conn: psycopg.Connection[Any]) -> Fleet:
    return Fleet(conn)


@contextmanager
def a_run_that_waits(
    fleet: Fleet,
) -> Iterator[tuple[psycopg.Connection[Any], Callable[[], Future[RunResult]]]]:
    """A transaction of the host's, and how to let a run come to wait for it."""
    with psycopg.connect(fleet.conninfo, autocommit=True) as host, ThreadPoolExecutor(1) as pool:

        def begin() -> Future[RunResult]:
            run = pool.submit(fleet.bill)
            wait_for_lock(fleet.conn)
            return run

        with host.transaction():
            yield host, begin


def sound(fleet: Fleet) -> bool:
    """Whether the books are right."""
    return verify(fleet.conninfo).ok


def test_a_host_that_locks_an_organization_before_its_wallet_is_no_victim(fleet: Fleet) -> None:
    """A batch waits for the organization and holds no wallet; both would have waited for each other, and the host lost."""
    organization = fleet.organization("10.00")
    fleet.instance(organization, fleet.plan("7.30"))
    fleet.hours(1)
    with a_run_that_waits(fleet) as (host, begin):
        host.execute("select from organizations where id = %s for update", (organization,))
        run = begin()
        host.execute("update wallets set balance = balance + 1 where organization_id = %s", (organization,))

    assert Outcome.COMPLETED is run.result(180).outcome
    assert [("01 00:00", "01 01:00", "0.01", "billed")] == fleet.charges()


def test_an_organization_that_is_deleted_under_a_run_is_gone(fleet: Fleet) -> None:
    """The host's DELETE waits for nobody and fails for nothing; the others of its batch are charged."""
    plan = fleet.plan("7.30")
    leaving, staying = fleet.organization("10.00"), fleet.organization("10.00")
    for organization in (leaving, staying):
        fleet.instance(organization, plan)
    fleet.hours(1)
    with a_run_that_waits(fleet) as (host, begin):
        host.execute("delete from organizations where id = %s", (leaving,))
        run = begin()

    assert Outcome.COMPLETED is run.result(180).outcome
    assert [("01 00:00", "01 01:00", "0.01", "billed")] == fleet.charges()
    assert (Decimal("9.99"), Decimal(0)) == fleet.balance(staying)


def test_a_segment_of_an_instance_that_moves_and_changes_under_a_run_is_flushed_once(fleet: Fleet) -> None:
    """One transaction moves it within the batch and resizes it; what it kept since is taken out of the row it is read from."""
    small, large = fleet.plan("7.30"), fleet.plan("14.60")
    first, second = fleet.organization("10.00"), fleet.organization("10.00")
    web = fleet.instance(first, small)
    fleet.at("2026-03-01 00:30")
    fleet.set(web, plan_id=large)
    fleet.at("2026-03-01 00:45")
    with a_run_that_waits(fleet) as (host, begin):
        host.execute("update vps_instances set organization_id = %s", (second,))
        fleet.at("2026-03-01 01:00")
        host.execute("update vps_instances set plan_id = %s", (str(small),))
        fleet.at("2026-03-01 01:30")
        run = begin()
    run.result(180)
    fleet.hours(1)
    fleet.bill()

    assert {} == fleet.quarantine()
    segments = fleet.rows("select started_at, ended_at from billing_closed_segments() order by started_at")
    assert [("01 00:00", "01 00:30"), ("01 00:30", "01 00:45"), ("01 00:45", "01 01:00")] == [
        (clock(row.started_at), clock(row.ended_at)) for row in segments
    ]
    assert sound(fleet)


def test_a_price_that_was_dated_behind_the_hours_of_a_batch_is_taken_into_it(fleet: Fleet) -> None:
    """Dated at 04:30, when no run was there, and committed under a batch of 06:00: the batch is done again."""
    plan = fleet.plan("7.30")
    fleet.instance(fleet.organization("10.00"), plan)
    fleet.at("2026-03-01 04:30")
    attempts = []
    with psycopg.connect(fleet.conninfo, autocommit=True) as host:
        host.execute("begin")
        host.execute("update vps_plans set base_price = 14.60")
        host.execute("set constraints all immediate")
        fleet.at("2026-03-01 06:00")

        def commit_under_the_first(statement: str, moment: Moment) -> None:
            if (statement, moment) == ("record_batch", Moment.BEFORE):
                attempts.append(statement)
                if len(attempts) == 1:
                    host.execute("commit")

        with watched(commit_under_the_first):
            assert Outcome.COMPLETED is fleet.bill().outcome

    assert 2 == len(attempts)
    assert [
        ("01 00:00", "01 05:00", "0.05", "billed"),
        ("01 05:00", "01 06:00", "0.02", "billed"),
    ] == fleet.charges()
    assert sound(fleet)


@pytest.mark.parametrize("statement", ["record_batch", "commit after record_batch"])
def test_a_price_that_is_set_behind_the_hours_of_a_batch_begins_after_them(
    fleet: Fleet, statement: str
) -> None:
    """The clock goes back under the first batch of a run of 07:00, which charges a price of 05:00; that stays as it is."""
    plan = fleet.plan("7.30")
    fleet.instance(fleet.organization("10.00"), plan)
    fleet.at("2026-03-01 05:00")
    fleet.reprice(plan, "14.60")
    fleet.at("2026-03-01 07:00")
    changes = iter(["21.90"])

    def reprice_before(reached: str, moment: Moment) -> None:
        if (reached, moment) == (statement, Moment.BEFORE) and (price := next(changes, None)):
            fleet.at("2026-03-01 04:30")
            fleet.reprice(plan, price)
            fleet.at("2026-03-01 06:10")

    with watched(reprice_before):
        assert Outcome.COMPLETED is fleet.bill().outcome
    assert None is next(changes, None)
    fleet.at("2026-03-01 08:00")
    fleet.bill()

    assert [
        ("01 00:00", "01 05:00", "0.05", "billed"),
        ("01 05:00", "01 07:00", "0.04", "billed"),
        ("01 07:00", "01 08:00", "0.03", "billed"),
    ] == fleet.charges()
    assert sound(fleet)


def test_a_run_that_was_left_open_binds_no_price_once_somebody_else_has_the_lease(fleet: Fleet) -> None:
    """It was opened while the clock was a day ahead; its process is gone, and so is its lease."""
    plan = fleet.plan("7.30")
    fleet.at("2026-03-01 05:00")
    fleet.conn.execute(
        "insert into billing_runs (trigger, holder, fencing_token, as_of, host_clock, hours_per_month, started_at)"
        " select 'manual', 'gone', fencing_token, '2026-03-02 05:00Z', now(), 730, now() from billing_leases"
    )
    fleet.conn.execute("update billing_leases set fencing_token = fencing_token + 1")
    fleet.reprice(plan, "14.60")
    begins = fleet.rows("select valid_from from plan_price_versions where isfinite(valid_from)")
    assert ["01 05:00"] == [clock(row.valid_from) for row in begins]


class _RefusedOnce(RunCharger):
    """Refuses the first comparison, as a row that is locked does."""

    def __init__(self) -> None:
        super().__init__()
        self.refusals: list[bool] = []

    def compare_batch(self, connection: Connection, run: OpenRun, batch: Batch) -> None:
        if not self.refusals:
            self.refusals.append(True)
            raise psycopg.errors.LockNotAvailable("canceling statement due to lock timeout")
        super().compare_batch(connection, run, batch)


def test_damage_that_cannot_be_noted_at_once_is_noted_later(fleet: Fleet) -> None:
    """A row that was set back meets the unique key, and the comparison a lock: the next attempt does both."""
    plan = fleet.plan("7.30")
    organizations = [fleet.organization("10.00") for _ in range(3)]
    damaged = fleet.instance(organizations[0], plan)
    fleet.hours(0.5)
    for organization in organizations[1:]:
        fleet.instance(organization, plan)
    fleet.hours(0.5)
    fleet.bill()
    with fleet.conn.transaction():
        fleet.conn.execute("set local session_replication_role = replica")
        fleet.conn.execute(
            "update vps_instances set last_billed_at = created_at, rated_until = created_at where id = %s",
            (damaged,),
        )
    fleet.hours(0.75)
    charger = _RefusedOnce()
    result = fleet.bill(charger)

    assert [True] == charger.refusals
    assert (Outcome.COMPLETED, 2, 0) == (
        result.outcome,
        result.instances_billed,
        result.quarantined_instances,
    )
    assert [("01 00:00", "01 01:00", "0.01", "billed")] == fleet.charges(damaged)
    assert sound(fleet)


def test_a_run_that_cannot_be_planned_says_so_in_its_row(fleet: Fleet, monkeypatch: Monkey) -> None:
    """Its process goes on living, so nobody may read that it ended; the next run charges everything."""
    fleet.instance(fleet.organization("10.00"), fleet.plan("7.30"))
    fleet.hours(1)

    def cancelled(*_: Any) -> Any:
        raise psycopg.errors.QueryCanceled("canceling statement due to user request")

    with monkeypatch.context() as during:
        during.setattr(runs, "plan_batches", cancelled)
        with pytest.raises(bill.BillingError, match="canceling statement"):
            fleet.bill()
    row = fleet.rows("select outcome, error_message from billing_runs")[0]
    fleet.bill()

    assert "failed" == row.outcome
    assert "canceling statement due to user request" in row.error_message
    assert [("01 00:00", "01 01:00", "0.01", "billed")] == fleet.charges()


def test_a_hold_that_is_released_under_the_run_it_binds_hides_no_later_one(
    fleet: Fleet, monkeypatch: Monkey
) -> None:
    """Released between what the bound run saw and its end: that run announces nothing, and the next objection is announced."""
    plan = fleet.plan("7.30")
    fleet.instance(fleet.organization("100.00"), plan)
    fleet.hours(1)
    fleet.bill()
    fleet.reprice(plan, "73.00")
    fleet.hours(1)
    held = fleet.bill()
    close_run = runs.close_run

    def released_first(connection: Any, *arguments: Any) -> RunResult:
        hold = latest_hold(fleet.conn)
        assert hold is not None
        release_hold(fleet.conn, hold, "operator", "looked at it")
        return close_run(connection, *arguments)

    with monkeypatch.context() as during:
        during.setattr(runs, "close_run", released_first)
        bound = fleet.bill()
    fleet.reprice(plan, "7300.00")
    fleet.hours(1)
    later = fleet.bill()

    assert [Outcome.HELD] * 3 == [held.outcome, bound.outcome, later.outcome]
    announced = fleet.rows("select run_id from billing_events where kind = 'run_held' order by id")
    assert [held.run_id, later.run_id] == [row.run_id for row in announced]
