"""Runways and what is announced of them, as ledgers."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest
from tests.daemons import PATIENCE_SECONDS
from tests.fleet import Fleet, clock

from containerstacks_billing.charging import runways
from containerstacks_billing.charging.model import Outcome
from containerstacks_billing.notifications import outbox as events
from containerstacks_billing.verification.verify import verify


@pytest.fixture
def fleet(conn: psycopg.Connection[Any]) -> Fleet:
    return Fleet(conn)


def told(fleet: Fleet, organization: UUID | None = None) -> list[tuple[str, str]]:
    """The events so far: when, and what."""
    rows = fleet.rows(
        "select occurred_at, kind from billing_events where %s::uuid is null or organization_id = %s order by id",
        organization,
        organization,
    )
    return [(clock(row.occurred_at), row.kind) for row in rows]


def runway(fleet: Fleet) -> list[tuple[str, str | None, int | None]]:
    """What is kept of the wallets: burn, end, level."""
    rows = fleet.rows("select * from billing_runways order by organization_id")
    return [
        (str(row.burn_per_hour.normalize()), row.empties_at and clock(row.empties_at), row.level)
        for row in rows
    ]


def test_each_threshold_is_announced_once_when_it_is_crossed(fleet: Fleet) -> None:
    """A dollar lasts a hundred hours at one cent an hour: 72 are left after 28, 24 after 76, 3 after 97."""
    organization = fleet.organization("1.00")
    fleet.instance(organization, fleet.plan("7.30"))
    for _ in range(99):
        fleet.hours(1)
        fleet.bill()

    assert [("02 04:00", "runway_72h"), ("04 04:00", "runway_24h"), ("05 01:00", "runway_3h")] == told(fleet)
    assert [("0.01", "05 04:00", 3)] == runway(fleet)


def test_a_jump_announces_every_threshold_in_between(fleet: Fleet) -> None:
    """Hours that a run did not look at are crossed all the same; the payload says how things stand."""
    organization = fleet.organization("0.10")
    wallet = fleet.rows("select id from wallets")[0].id
    fleet.instance(organization, fleet.plan("7.30"))
    fleet.hours(8)
    run = fleet.bill()

    assert ["runway_72h", "runway_24h", "runway_3h"] == [kind for _, kind in told(fleet)]
    row = fleet.rows("select * from billing_events order by id desc limit 1")[0]
    assert (organization, wallet, run.run_id) == (row.organization_id, row.wallet_id, row.run_id)
    assert row.payload == {
        "balance": "0.02",
        "carry": "0.00",
        "currency": "USD",
        "burnPerHour": "0.01",
        "emptiesAt": "2026-03-01T10:00:00Z",
        "hoursLeft": "2.00",
        "thresholdHours": 3,
        "pastDueSince": None,
    }


def test_a_top_up_makes_room_for_the_next_warning(fleet: Fleet) -> None:
    """After a top-up the same threshold is crossed a second time, and announced a second time."""
    organization = fleet.organization("0.25")
    fleet.instance(organization, fleet.plan("7.30"))
    fleet.hours(1)
    fleet.bill()
    fleet.top_up(organization, "0.10")
    fleet.hours(1)
    fleet.bill()
    fleet.hours(10)
    fleet.bill()

    assert [("01 01:00", "runway_72h"), ("01 01:00", "runway_24h"), ("01 12:00", "runway_24h")] == told(fleet)


def test_hours_in_use_that_no_run_has_charged_yet_count(fleet: Fleet) -> None:
    """The end stays where it is, whenever it is computed: ten cents are ten hours from the start of the instance."""
    fleet.instance(fleet.organization("0.10"), fleet.plan("7.30"))
    fleet.hours(0.5)
    fleet.bill()
    early = runway(fleet)
    fleet.hours(5.25)
    fleet.bill()

    assert [("0.01", "01 10:00", 24)] == early == runway(fleet)


def test_a_steady_fleet_is_not_written(fleet: Fleet) -> None:
    """A second run over unchanged wallets leaves their rows as they were."""
    plan = fleet.plan("6.00", "1.11")
    for _ in range(3):
        fleet.instance(fleet.organization("100.00"), plan)
    fleet.hours(1)
    fleet.bill()
    before = fleet.rows("select xmin::text, ctid::text, * from billing_runways order by organization_id")
    fleet.hours(7)
    fleet.bill()

    assert 3 == len(before)
    assert before == fleet.rows(
        "select xmin::text, ctid::text, * from billing_runways order by organization_id"
    )


def test_past_due_and_recovered_are_announced_once_each(fleet: Fleet) -> None:
    """Short for three runs, then topped up: one event at each end, with the amounts of their time."""
    organization = fleet.organization("0.02")
    fleet.instance(organization, fleet.plan("7.30"))
    fleet.hours(5)
    fleet.bill()
    fleet.hours(1)
    fleet.bill()
    fleet.hours(1)
    fleet.bill()
    fleet.top_up(organization, "1.00")
    fleet.bill()
    fleet.bill()

    assert [
        ("01 05:00", "past_due"),
        ("01 05:00", "runway_72h"),
        ("01 05:00", "runway_24h"),
        ("01 05:00", "runway_3h"),
        ("01 07:00", "recovered"),
    ] == told(fleet)
    payloads = [row.payload for row in fleet.rows("select payload from billing_events order by id")]
    assert ("0.00", "0.03", "2026-03-01T05:00:00Z") == (
        payloads[0]["balance"],
        payloads[0]["pastDue"],
        payloads[0]["pastDueSince"],
    )
    assert ("0.95", "0.00", "2026-03-01T05:00:00Z") == (
        payloads[4]["balance"],
        payloads[4]["pastDue"],
        payloads[4]["pastDueSince"],
    )


def test_what_is_past_due_is_announced_from_a_cent_on(fleet: Fleet) -> None:
    """A host suspends on that event: six tenths of a cent are none, twelve are; paid, the wallet has recovered."""
    organization = fleet.organization("0")
    fleet.instance(organization, fleet.plan("4.38"))
    announced = []
    for top_up in ("0", "0", "0.10"):
        fleet.hours(1)
        fleet.top_up(organization, top_up)
        fleet.bill()
        announced.append(
            [
                row.kind
                for row in fleet.rows("select kind from billing_events where kind !~ 'runway' order by id")
            ]
        )

    assert [[], ["past_due"], ["past_due", "recovered"]] == announced
    assert verify(fleet.conninfo).ok


def test_what_costs_nothing_is_covered_whatever_the_wallet_holds(fleet: Fleet) -> None:
    """Balance 0 and a carry above it: a free plan is billed, nothing is past due, and no event says so."""
    organization = fleet.organization("1.00")
    paid = fleet.instance(organization, fleet.plan("5.84"))
    fleet.hours(1)
    fleet.bill()
    fleet.delete(paid)
    fleet.top_up(organization, "-1.00")
    free = fleet.instance(organization, fleet.plan("0"))
    for hours in (1, 3):
        fleet.hours(hours)
        result = fleet.bill()
        assert (Outcome.COMPLETED, 1, 0) == (
            result.outcome,
            result.instances_billed,
            result.past_due_instances,
        )

    assert (Decimal(0), Decimal("0.008")) == fleet.balance(organization)
    assert [
        ("01 01:00", "01 02:00", "0", "billed"),
        ("01 02:00", "01 05:00", "0", "billed"),
    ] == fleet.charges(free)
    assert [] == fleet.rows("select from billing_events where kind = 'past_due'")


def test_a_debt_that_is_paid_where_it_arises_is_no_news(fleet: Fleet) -> None:
    """A mark that is set and taken off again before the transaction ends announces nothing, nor does the other way round."""
    organization = fleet.organization("1.00")
    fleet.instance(organization, fleet.plan("7.30"))
    fleet.hours(1)
    result = fleet.bill()
    values = {
        "first_organization": organization,
        "last_organization": organization,
        "run_id": result.run_id,
        "as_of": fleet.now,
        "currency": "USD",
    }
    with fleet.conn.transaction():
        fleet.conn.execute("update wallets set past_due_since = %s", (fleet.now,))
        fleet.conn.execute("update wallets set past_due_since = null")
        events.enqueue_past_due_events(fleet.conn, values)

    assert [] == told(fleet)


def test_a_batch_that_is_rolled_back_announces_nothing(fleet: Fleet) -> None:
    """The event is part of the transaction that makes it true."""
    fleet.instance(fleet.organization("0.00"), fleet.plan("7.30"))
    fleet.hours(1)
    fleet.conn.execute(
        "create function refuse() returns trigger language plpgsql as $$ begin raise exception 'no'; end $$;"
        "create trigger refuse before update of batches on billing_runs for each row execute function refuse()"
    )
    assert Outcome.FAILED == fleet.bill().outcome
    assert "past_due" not in [kind for _, kind in told(fleet)]
    fleet.conn.execute("drop trigger refuse on billing_runs")
    fleet.bill()
    assert 1 == [kind for _, kind in told(fleet)].count("past_due")


def test_a_mark_that_somebody_else_took_off_is_announced_by_the_next_run(fleet: Fleet) -> None:
    """What counts is what was said last, not who changed it: a debt that was waived by hand is a recovery."""
    organization = fleet.organization("0.00")
    web = fleet.instance(organization, fleet.plan("7.30"))
    fleet.hours(1)
    fleet.bill()
    fleet.set(web, status="stopped")
    fleet.conn.execute("update vps_billing_cycles set status = 'refunded'")
    fleet.conn.execute("update wallets set past_due_since = null")
    fleet.hours(1)
    fleet.bill()

    assert ("01 02:00", "recovered") == told(fleet)[-1]
    assert [] == runway(fleet)


def test_a_wallet_that_is_deleted_is_forgotten(fleet: Fleet) -> None:
    """With its organization or alone; what was announced of it stays announced."""
    plan = fleet.plan("7.30")
    gone, kept = fleet.organization("0.05"), fleet.organization("0.05")
    fleet.instance(gone, plan)
    fleet.instance(kept, plan)
    fleet.hours(1)
    fleet.bill()
    fleet.conn.execute("delete from organizations where id = %s", (gone,))
    fleet.conn.execute("delete from wallets where organization_id = %s", (kept,))
    fleet.hours(1)
    fleet.bill()

    assert [] == runway(fleet)
    assert 2 == len(told(fleet, gone))
    fleet.wallet(kept, "0.04")
    fleet.hours(1)
    fleet.bill()
    assert "runway_72h" in [kind for _, kind in told(fleet, kept)[2:]]


def test_what_is_stopped_burns_nothing_and_has_no_end(fleet: Fleet) -> None:
    """A host that suspends on a warning sees the runway end with the instances, and begin again with them."""
    organization = fleet.organization("0.50")
    web = fleet.instance(organization, fleet.plan("7.30"))
    fleet.hours(1)
    fleet.bill()
    fleet.set(web, status="suspended")
    fleet.hours(1)
    fleet.bill()
    stopped = runway(fleet)
    fleet.set(web, status="running")
    fleet.hours(1)
    fleet.bill()

    assert [] == stopped
    assert [("01 01:00", "runway_72h"), ("01 03:00", "runway_72h")] == told(fleet)


def test_a_run_of_one_organization_looks_at_it_alone(fleet: Fleet) -> None:
    """The others keep what is known of them."""
    plan = fleet.plan("7.30")
    one, other = fleet.organization("0.50"), fleet.organization("0.50")
    fleet.instance(one, plan)
    fleet.instance(other, plan)
    fleet.hours(1)
    fleet.bill(organization=one)

    assert [("01 01:00", "runway_72h")] == told(fleet, one)
    assert [] == told(fleet, other)


def test_quarantined_instances_burn_nothing_and_are_announced(fleet: Fleet) -> None:
    """A plan that is not there, and an outage too long: one event per organization and kind, once."""
    organization = fleet.organization("100.00")
    plan = fleet.plan("7.30")
    fleet.instance(organization, plan)
    fleet.hours(73)
    lost = fleet.instance(organization, "no-such-plan", label="lost")
    fleet.hours(1)
    fleet.bill()
    fleet.hours(1)
    fleet.bill()

    assert [("04 02:00", "instance_held"), ("04 02:00", "instance_quarantined")] == told(fleet)
    payload = fleet.rows("select payload from billing_events where kind = 'instance_quarantined'")[0].payload
    assert 1 == payload["instances"]
    assert (str(lost), "lost", "no plan") == tuple(
        payload["first"][0][key] for key in ("instanceId", "label", "reason")
    )
    assert [] == runway(fleet)


def test_a_held_run_is_announced_once(fleet: Fleet) -> None:
    """The runs that are bound by the same hold repeat nothing."""
    plan = fleet.plan("7.30")
    organization = fleet.organization("1000.00")
    fleet.instance(organization, plan)
    fleet.hours(1)
    fleet.bill()
    fleet.reprice(plan, "7300.00")
    fleet.hours(1)
    assert Outcome.HELD == fleet.bill().outcome
    fleet.hours(1)
    assert Outcome.HELD == fleet.bill().outcome

    assert ["run_held"] == [kind for _, kind in told(fleet)]


def test_wallets_are_kept_in_several_transactions(fleet: Fleet) -> None:
    """More wallets than fit into one: each is kept and announced once."""
    plan = fleet.plan("7.30")
    for _ in range(5):
        fleet.instance(fleet.organization("0.50"), plan)
    fleet.hours(1)

    original = runways.update_runways
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "containerstacks_billing.charging.run.update_runways",
            lambda connection, run: original(connection, run, wallets_at_once=2),
        )
        fleet.bill()

    assert ["runway_72h"] * 5 == [kind for _, kind in told(fleet)]
    assert 5 == len(runway(fleet))


def test_a_failure_takes_nothing_away_from_the_run(fleet: Fleet) -> None:
    """The run is completed, everything is charged, and its row says what is missing."""
    organization = fleet.organization("1.00")
    fleet.instance(organization, fleet.plan("7.30"))
    fleet.conn.execute("alter table billing_runways rename to lost")
    fleet.hours(1)
    result = fleet.bill()

    assert (Outcome.COMPLETED, 1) == (result.outcome, result.instances_billed)
    assert "the runways are not up to date" in str(result.error_message)
    assert (Decimal("0.99"), Decimal(0)) == fleet.balance(organization)


def test_listeners_are_notified_once_per_transaction(fleet: Fleet, database: str) -> None:
    """Three events in one transaction wake a listener once, and only after it committed."""
    fleet.instance(fleet.organization("0.02"), fleet.plan("7.30"))
    fleet.hours(1)
    with psycopg.connect(database, autocommit=True) as listener:
        listener.execute("listen billing_events")
        fleet.bill()
        found = list(listener.notifies(timeout=PATIENCE_SECONDS, stop_after=1))
        # An answer comes after every notification that was sent before it was asked for.
        listener.execute("select")
        found += listener.notifies(timeout=0)
    assert [("billing_events", "")] == [(one.channel, one.payload) for one in found]
