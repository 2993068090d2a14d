"""Dated prices: versions, announcements, backups, and corrections of the past."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest
from tests.fleet import Fleet, clock, instant

from containerstacks_billing.charging.fleet_reading import latest_hold, release_hold
from containerstacks_billing.charging.model import Outcome
from containerstacks_billing.errors import WorkFailed
from containerstacks_billing.pricing import versions as prices
from containerstacks_billing.pricing.model import Plan, Price
from containerstacks_billing.verification.verify import verify


@pytest.fixture
def fleet(conn: psycopg.Connection[Any]) -> Fleet:
    return Fleet(conn)


def versions(fleet: Fleet, plan: UUID) -> list[tuple[str, str, str, str]]:
    """From, until, monthly price and whether it is announced."""
    found = prices.price_versions(fleet.conn, [the(fleet, plan)], 730)[plan]
    return [
        (
            clock(one.valid_from) if one.valid_from else "always",
            clock(one.valid_to) if one.valid_to else "always",
            "-" if one.base is None else str((one.base + (one.markup or 0)).normalize()),
            "announced" if one.announced else "",
        )
        for one in found
    ]


def the(fleet: Fleet, plan: UUID) -> Plan:
    (found,) = prices.find_plans(fleet.conn, str(plan))
    return found


def announce(fleet: Fleet, plan: UUID, base: str, at: str | None = None, markup: str = "0") -> None:
    price = Price(Decimal(base), Decimal(markup))
    prices.set_price(
        fleet.conn, the(fleet, plan), price, instant(at) if at else None, by="tester", reason=None
    )


def shown(fleet: Fleet, plan: UUID) -> str:
    return str(
        fleet.rows("select base_price + markup_price as price from vps_plans where id = %s", plan)[0].price
    )


def test_an_announced_price_is_shown_once_it_is_in_force(fleet: Fleet) -> None:
    """Entered on the first, in force from 03:00: vps_plans shows it with the next run, hours are charged at it from 03:00."""
    organization, plan = fleet.organization("10.00"), fleet.plan("7.30")
    fleet.instance(organization, plan)
    announce(fleet, plan, "14.60", "2026-03-01 03:00")
    fleet.hours(2)
    fleet.bill()
    before = shown(fleet, plan)
    fleet.hours(4)
    fleet.bill()

    assert ("7.30", "14.60") == (before, shown(fleet, plan))
    assert [("always", "01 03:00", "7.3", ""), ("01 03:00", "always", "14.6", "")] == versions(fleet, plan)
    assert [
        ("01 00:00", "01 02:00", "0.02", "billed"),
        ("01 02:00", "01 03:00", "0.01", "billed"),
        ("01 03:00", "01 06:00", "0.06", "billed"),
    ] == fleet.charges()


def test_a_clock_that_jumps_ahead_lets_no_price_begin(fleet: Fleet) -> None:
    """Every run sees the wrong clock and is held, the second by the first; nothing of it goes on when it is right again."""
    fleet.instance(fleet.organization("10.00"), plan := fleet.plan("7.30"))
    announce(fleet, plan, "14.60", "2026-03-05 00:00")
    fleet.hours(1)
    fleet.bill()
    right = fleet.hours(1)
    fleet.at("2026-03-06 00:00")
    fleet.terms = replace(fleet.terms, partial_hour="free")
    outcomes = [fleet.bill(host_clock=right).outcome for _ in range(2)]
    fleet.at(right)
    hold = latest_hold(fleet.conn)
    assert hold is not None
    release_hold(fleet.conn, hold, "operator", "the clock is right again")
    outcomes.append(fleet.bill(host_clock=right).outcome)

    assert [Outcome.HELD, Outcome.HELD, Outcome.COMPLETED] == outcomes
    assert "7.30" == shown(fleet, plan)
    assert [("always", "05 00:00", "7.3", ""), ("05 00:00", "always", "14.6", "announced")] == versions(
        fleet, plan
    )
    assert [("01 02:00",)] == [
        (clock(one.valid_from),)
        for one in fleet.rows("select valid_from from billing_policies where partial_hour = 'free'")
    ]
    assert [
        ("01 00:00", "01 01:00", "0.01", "billed"),
        ("01 01:00", "01 02:00", "0.01", "billed"),
    ] == fleet.charges()


def test_the_host_may_edit_the_plan_before_an_announced_price_begins(fleet: Fleet) -> None:
    """A price changed at 01:00 holds until 03:00; what was announced for 03:00 stays."""
    plan = fleet.plan("7.30")
    announce(fleet, plan, "73.00", "2026-03-01 03:00")
    fleet.hours(1)
    fleet.reprice(plan, "14.60")
    fleet.conn.execute("update vps_plans set name = 'renamed', active = false where id = %s", (plan,))

    assert [
        ("always", "01 01:00", "7.3", ""),
        ("01 01:00", "01 03:00", "14.6", ""),
        ("01 03:00", "always", "73", "announced"),
    ] == versions(fleet, plan)


def test_an_edit_between_the_beginning_of_an_announced_price_and_the_next_run_keeps_it(fleet: Fleet) -> None:
    """At 03:20 the row still shows the price of before; renaming the plan does not bring that back."""
    plan = fleet.plan("7.30")
    announce(fleet, plan, "73.00", "2026-03-01 03:00")
    fleet.at("2026-03-01 03:20")
    fleet.conn.execute("update vps_plans set name = 'renamed' where id = %s", (plan,))
    fleet.at("2026-03-01 04:00")
    fleet.bill()

    assert [("always", "01 03:00", "7.3", ""), ("01 03:00", "always", "73", "")] == versions(fleet, plan)
    assert "73.00" == shown(fleet, plan)


def test_a_price_that_the_host_sets_after_an_announced_one_began_wins(fleet: Fleet) -> None:
    """Announced for 03:00, overwritten at 03:20, before any run: both hold, each for its time."""
    plan = fleet.plan("7.30")
    announce(fleet, plan, "73.00", "2026-03-01 03:00")
    fleet.at("2026-03-01 03:20")
    fleet.reprice(plan, "14.60")
    fleet.at("2026-03-01 04:00")
    fleet.bill()

    assert [
        ("always", "01 03:00", "7.3", ""),
        ("01 03:00", "01 03:20", "73", ""),
        ("01 03:20", "always", "14.6", ""),
    ] == versions(fleet, plan)
    assert "14.60" == shown(fleet, plan)


def test_a_run_that_bills_an_earlier_instant_keeps_the_prices_that_came_since(fleet: Fleet) -> None:
    """What vps_plans shows now is not taken for the price of the instant that is billed."""
    plan = fleet.plan("7.30")
    fleet.hours(1)
    billed_at = fleet.now
    fleet.hours(1)
    fleet.reprice(plan, "73.00")
    announce(fleet, plan, "14.60", "2026-03-01 03:00")
    fleet.at("2026-03-01 03:30")
    fleet.bill(as_of=billed_at)

    assert [
        ("always", "01 02:00", "7.3", ""),
        ("01 02:00", "01 03:00", "73", ""),
        ("01 03:00", "always", "14.6", ""),
    ] == versions(fleet, plan)


def test_a_price_for_now_and_a_replaced_announcement(fleet: Fleet) -> None:
    """Set at 01:00, announced for 05:00 and then for the same instant again; the same price twice changes nothing."""
    plan = fleet.plan("7.30")
    fleet.hours(1)
    announce(fleet, plan, "14.60")
    announce(fleet, plan, "14.60")
    announce(fleet, plan, "73.00", "2026-03-01 05:00")
    announce(fleet, plan, "36.50", "2026-03-01 05:00")

    assert [
        ("always", "01 01:00", "7.3", ""),
        ("01 01:00", "01 05:00", "14.6", ""),
        ("01 05:00", "always", "36.5", "announced"),
    ] == versions(fleet, plan)
    assert "14.60" == shown(fleet, plan)


def test_no_price_begins_for_a_deleted_plan_or_in_the_past(fleet: Fleet) -> None:
    """Both are refused in words, and nothing is written."""
    plan = fleet.plan("7.30")
    fleet.hours(1)
    with pytest.raises(WorkFailed, match="has passed"):
        announce(fleet, plan, "14.60", "2026-03-01 00:30")
    gone = the(fleet, plan)
    fleet.conn.execute("delete from vps_plans where id = %s", (plan,))
    with pytest.raises(WorkFailed, match="no row in vps_plans"):
        prices.set_price(fleet.conn, gone, Price(Decimal(1), Decimal(0)), None, by="tester", reason=None)
    assert [("always", "always", "7.3", "")] == versions(fleet, plan)


def test_a_price_that_nobody_could_be_charged_at_is_replaced_by_its_repair(fleet: Fleet) -> None:
    """Negative from 01:00 to 02:00: quarantined meanwhile, and then charged as if the repair had been entered at once."""
    organization, plan = fleet.organization("10.00"), fleet.plan("7.30")
    web = fleet.instance(organization, plan)
    fleet.hours(1)
    fleet.reprice(plan, "-1.00")
    fleet.hours(1)
    fleet.bill()
    aside = fleet.quarantine()
    fleet.reprice(plan, "73.00")
    fleet.bill()

    assert {web: "unusable price"} == aside
    assert {} == fleet.quarantine()
    assert [("always", "01 01:00", "7.3", ""), ("01 01:00", "always", "73", "")] == versions(fleet, plan)
    assert [
        ("01 00:00", "01 01:00", "0.01", "billed"),
        ("01 01:00", "01 02:00", "0.1", "billed"),
    ] == fleet.charges()


# Minutes at which the price changes, and to what; the instance was created at 00:00, the run is at 04:00.
CATCH_UPS = [
    ("on the boundary of an hour", [(120, "73.00")], [("00:00", "02:00", "0.02"), ("02:00", "04:00", "0.2")]),
    ("inside an hour", [(119, "73.00")], [("00:00", "02:00", "0.02"), ("02:00", "04:00", "0.2")]),
    ("just after a boundary", [(121, "73.00")], [("00:00", "03:00", "0.03"), ("03:00", "04:00", "0.1")]),
    (
        "several times inside an hour: only the last holds at the start of the next",
        [(70, "73.00"), (80, "14.60"), (90, "146.00")],
        [("00:00", "02:00", "0.02"), ("02:00", "04:00", "0.4")],
    ),
    (
        "up and back to the old price",
        [(60, "73.00"), (120, "7.30")],
        [("00:00", "01:00", "0.01"), ("01:00", "02:00", "0.1"), ("02:00", "04:00", "0.02")],
    ),
    ("up and back inside an hour: no hour started at the other price", [(70, "73.00"), (80, "7.30")], None),
    ("at the instant of creation", [(0, "73.00")], [("00:00", "04:00", "0.4")]),
    ("at the instant of the run", [(240, "73.00")], [("00:00", "04:00", "0.04")]),
]


@pytest.mark.parametrize(("_when", "changes", "charges"), CATCH_UPS, ids=[one[0] for one in CATCH_UPS])
def test_a_catch_up_gives_one_charge_per_price(
    fleet: Fleet, _when: str, changes: list[tuple[int, str]], charges: list[tuple[str, str, str]] | None
) -> None:
    """Each hour at the price in force at its start, and the hours of one price together."""
    organization, plan = fleet.organization("10.00"), fleet.plan("7.30")
    fleet.instance(organization, plan)
    began = fleet.now
    for minute, price in changes:
        fleet.at(began + timedelta(minutes=minute))
        fleet.reprice(plan, price)
    fleet.at(began + timedelta(hours=4))
    fleet.bill()

    found = fleet.charges()
    if charges is None:
        # Two versions of one price: two charges that touch.
        charges = [("00:00", "02:00", "0.02"), ("02:00", "04:00", "0.02")]
    assert [(f"01 {start}", f"01 {until}", amount, "billed") for start, until, amount in charges] == found


def test_another_mix_of_base_and_markup_is_the_same_price(fleet: Fleet) -> None:
    """Five and one, then four and two: the hours stay one charge."""
    organization, plan = fleet.organization("10.00"), fleet.plan("7.00", "0.30")
    fleet.instance(organization, plan)
    fleet.hours(1)
    fleet.reprice(plan, "6.30", "1.00")
    fleet.hours(2)
    fleet.bill()

    assert 2 == len(versions(fleet, plan))
    assert [("01 00:00", "01 03:00", "0.03", "billed")] == fleet.charges()


def test_hours_per_month_rates_only_hours_that_are_rated_afterwards(fleet: Fleet) -> None:
    """What was billed stays, what is past due keeps its frozen price, and the next hours have the new rate."""
    rich, poor, plan = fleet.organization("10.00"), fleet.organization("0.00"), fleet.plan("73.00")
    paid, owed = fleet.instance(rich, plan), fleet.instance(poor, plan)
    fleet.hours(2)
    fleet.bill()
    fleet.terms = replace(fleet.terms, hours_per_month=365)
    fleet.hours(1)
    fleet.bill()

    assert [
        ("01 00:00", "01 02:00", "0.2", "billed"),
        ("01 02:00", "01 03:00", "0.2", "billed"),
    ] == fleet.charges(paid)
    assert [
        ("01 00:00", "01 02:00", "0.2", "failed"),
        ("01 02:00", "01 03:00", "0.2", "failed"),
    ] == fleet.charges(owed)


BACKUP_COLUMNS = """
    alter table vps_plans add column backup_price_hourly numeric(12,4) default 0,
        add column backup_upcharge_hourly numeric(12,4) default 0,
        alter column base_price type numeric(12,4), alter column markup_price type numeric(12,4);
    alter table vps_instances add column backup_frequency varchar(20) default 'none';
    alter table wallets alter column balance type numeric(12,4);
    alter table payment_transactions alter column amount type numeric(12,4);
"""


def successor(conn: psycopg.Connection[Any]) -> None:
    conn.execute(BACKUP_COLUMNS)


@pytest.fixture
def upgraded(fleet: Fleet) -> Fleet:
    """A fleet whose host became the successor after our migrations."""
    successor(fleet.conn)
    fleet.conn.execute("select billing_adapt_to_host()")
    return fleet


def backups(fleet: Fleet, plan: UUID, price: str, upcharge: str = "0") -> None:
    fleet.conn.execute(
        "update vps_plans set backup_price_hourly = %s, backup_upcharge_hourly = %s where id = %s",
        (price, upcharge, plan),
    )


def test_backups_are_rated_where_the_columns_came_later(upgraded: Fleet) -> None:
    """One of two instances has backups; a four-decimal price is exact; the version without backup prices is no change."""
    organization, plan = upgraded.organization("10.00"), upgraded.plan("7.3073")
    backups(upgraded, plan, "0.0025", "0.0005")
    plain, backed = upgraded.instance(organization, plan), upgraded.instance(organization, plan)
    upgraded.set(backed, backup_frequency="daily")
    upgraded.hours(2)
    upgraded.bill()

    assert [("01 00:00", "01 02:00", "0.02002", "billed")] == upgraded.charges(plain)
    assert [("01 00:00", "01 02:00", "0.02602", "billed")] == upgraded.charges(backed)
    assert (Decimal("9.9600"), Decimal("0.00604")) == upgraded.balance(organization)


def test_backups_are_rated_where_the_columns_were_there_first(empty_database: str) -> None:
    """The host was the successor already when we adopted it."""
    from containerstacks_billing.schema.files import delivered_schema
    from containerstacks_billing.schema.migrator import migrate

    with psycopg.connect(empty_database, autocommit=True) as conn:
        conn.execute(delivered_schema().tables[0].steps[0].sql)
        successor(conn)
        migrate(empty_database)
        fleet = Fleet(conn)
        organization, plan = fleet.organization("10.00"), fleet.plan("7.30")
        backups(fleet, plan, "0.0100")
        backed = fleet.instance(organization, plan)
        fleet.set(backed, backup_frequency="weekly")
        fleet.hours(1)
        fleet.bill()
        assert [("01 00:00", "01 01:00", "0.02", "billed")] == fleet.charges()


def test_columns_with_a_price_from_the_start_rate_only_the_future(fleet: Fleet) -> None:
    """The successor's update sets a backup price for all plans at 02:00; the hours before stay without."""
    organization, plan = fleet.organization("10.00"), fleet.plan("7.30")
    backed = fleet.instance(organization, plan)
    fleet.hours(2)
    fleet.conn.execute("alter table vps_plans add column backup_price_hourly numeric(10,4) default 0.01")
    fleet.conn.execute("alter table vps_instances add column backup_frequency varchar(20) default 'daily'")
    fleet.conn.execute("select billing_adapt_to_host()")
    fleet.hours(1)
    fleet.bill()

    assert [
        ("01 00:00", "01 02:00", "0.02", "billed"),
        ("01 02:00", "01 03:00", "0.02", "billed"),
    ] == fleet.charges(backed)


def test_backups_switched_on_and_off_inside_an_hour_close_segments(upgraded: Fleet) -> None:
    """On at 00:30, off at 01:15: three segments, each at one price, each to the second."""
    organization, plan = upgraded.organization("10.00"), upgraded.plan("7.30")
    backups(upgraded, plan, "0.0100")
    web = upgraded.instance(organization, plan)
    upgraded.at("2026-03-01 00:30")
    upgraded.set(web, backup_frequency="daily")
    upgraded.at("2026-03-01 00:45")
    upgraded.set(web, backup_frequency="weekly")
    upgraded.at("2026-03-01 01:15")
    upgraded.set(web, backup_frequency="none")
    upgraded.at("2026-03-01 02:15")
    upgraded.bill()

    assert [
        ("01 00:00", "01 00:30", "0.005", "billed"),
        ("01 00:30", "01 01:15", "0.015", "billed"),
        ("01 01:15", "01 02:15", "0.01", "billed"),
    ] == upgraded.charges()


def test_a_changed_backup_price_is_a_change_of_price(upgraded: Fleet) -> None:
    """From 01:00 backups cost twice; an instance without them has one charge."""
    organization, plan = upgraded.organization("10.00"), upgraded.plan("7.30")
    backups(upgraded, plan, "0.0100")
    plain, backed = upgraded.instance(organization, plan), upgraded.instance(organization, plan)
    upgraded.set(backed, backup_frequency="daily")
    upgraded.hours(1)
    backups(upgraded, plan, "0.0200")
    upgraded.hours(1)
    upgraded.bill()

    assert [
        ("01 00:00", "01 01:00", "0.02", "billed"),
        ("01 01:00", "01 02:00", "0.03", "billed"),
    ] == upgraded.charges(backed)
    assert Decimal("0.02") == sum(Decimal(amount) for _, _, amount, _ in upgraded.charges(plain))


def test_an_announced_price_follows_the_backup_price_of_the_host(upgraded: Fleet) -> None:
    """Announced for 02:00; backups became dearer at 01:00; the announced price has the new backup price."""
    organization, plan = upgraded.organization("10.00"), upgraded.plan("7.30")
    backups(upgraded, plan, "0.0100")
    backed = upgraded.instance(organization, plan)
    upgraded.set(backed, backup_frequency="daily")
    announce(upgraded, plan, "14.60", "2026-03-01 02:00")
    upgraded.hours(1)
    backups(upgraded, plan, "0.0300")
    upgraded.hours(2)
    upgraded.bill()

    assert [
        ("01 00:00", "01 01:00", "0.02", "billed"),
        ("01 01:00", "01 02:00", "0.04", "billed"),
        ("01 02:00", "01 03:00", "0.05", "billed"),
    ] == upgraded.charges()
    assert ["7.3", "7.3", "7.3", "14.6"] == [price for _, _, price, _ in versions(upgraded, plan)]


def test_a_backup_price_set_before_a_run_shows_the_announced_one_changes_backups_alone(
    upgraded: Fleet,
) -> None:
    """Announced for 01:00; the host still shows 7.30 when it makes backups dearer at 02:00; 14.60 stays in force."""
    organization, plan = upgraded.organization("10.00"), upgraded.plan("7.30")
    backups(upgraded, plan, "0.0100")
    backed = upgraded.instance(organization, plan)
    upgraded.set(backed, backup_frequency="daily")
    announce(upgraded, plan, "14.60", "2026-03-01 01:00")
    upgraded.hours(2)
    backups(upgraded, plan, "0.0300")
    upgraded.hours(1)
    upgraded.bill()

    assert [
        ("01 00:00", "01 01:00", "0.02", "billed"),
        ("01 01:00", "01 02:00", "0.03", "billed"),
        ("01 02:00", "01 03:00", "0.05", "billed"),
    ] == upgraded.charges()
    shown = upgraded.rows("select base_price from vps_plans where id = %s", plan)
    assert Decimal("14.60") == shown[0].base_price


def test_a_markup_set_before_a_run_shows_the_announced_price_is_put_on_that(fleet: Fleet) -> None:
    """A base of 14.60 began at 01:00; at 02:00 the host, which shows 7.30, puts 7.30 on top: 21.90 from then on."""
    organization, plan = fleet.organization("10.00"), fleet.plan("7.30")
    fleet.instance(organization, plan)
    announce(fleet, plan, "14.60", "2026-03-01 01:00")
    fleet.hours(2)
    fleet.conn.execute("update vps_plans set markup_price = 7.30 where id = %s", (plan,))
    fleet.hours(1)
    fleet.bill()

    assert ["0.01", "0.02", "0.03"] == [amount for _, _, amount, _ in fleet.charges()]


def test_plans_of_one_name_with_different_backup_prices_are_ambiguous(upgraded: Fleet) -> None:
    """Two active plans share a provider_plan_id and differ in the price of backups only."""
    organization = upgraded.organization("10.00")
    first, _ = (
        upgraded.plan("7.30", provider_plan_id="small"),
        upgraded.plan("7.30", provider_plan_id="small"),
    )
    web = upgraded.instance(organization, "small")
    backups(upgraded, first, "0.0100")
    upgraded.hours(1)
    upgraded.bill()

    assert {web: "ambiguous plan"} == upgraded.quarantine()


def test_a_price_of_a_time_that_was_taken_back_stays_away(fleet: Fleet) -> None:
    """The clock was ahead when a price changed, and nothing was billed then: the price set after it was set right stays."""
    plan = fleet.plan("7.30")
    fleet.instance(fleet.organization(), plan)
    fleet.at("2026-03-01 20:00")
    fleet.reprice(plan, "14.60")
    fleet.at("2026-03-01 02:00")
    fleet.reprice(plan, "21.90")
    fleet.at("2026-03-01 22:00")
    fleet.bill()

    assert [("always", "01 02:00", "7.3", ""), ("01 02:00", "always", "21.9", "")] == versions(fleet, plan)


def test_a_price_set_after_the_clock_went_back_leaves_charged_hours_alone(
    fleet: Fleet, database: str
) -> None:
    """Hours that were billed keep the price they were billed at; the new one begins where billing had come to."""
    plan = fleet.plan("7.30")
    fleet.instance(fleet.organization(), plan)
    fleet.at("2026-03-01 03:00")
    fleet.reprice(plan, "14.60")
    fleet.at("2026-03-01 06:00")
    fleet.bill()
    fleet.at("2026-03-01 02:00")
    fleet.reprice(plan, "21.90")
    fleet.at("2026-03-01 08:00")
    fleet.bill()

    assert [
        ("always", "01 03:00", "7.3", ""),
        ("01 03:00", "01 06:00", "14.6", ""),
        ("01 06:00", "always", "21.9", ""),
    ] == versions(fleet, plan)
    found = verify(database)
    assert found.ok, found.discrepancies
