"""The oracle says nothing about right books, and names every wrong that is planted into them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest
from tests.fleet import Fleet, instant

from containerstacks_billing.charging.model import Outcome
from containerstacks_billing.drill import fake_clock as clock
from containerstacks_billing.drill import oracle
from containerstacks_billing.verification.verify import verify


class Books:
    """A small fleet with a history: an instance that is stopped and started, one that is resized, one without money."""

    def __init__(self, conn: psycopg.Connection[Any], **terms: Any) -> None:
        self.conn = conn
        self.fleet = Fleet(conn, **terms)
        oracle.install(
            conn, **{"statuses" if key == "billable_statuses" else key: value for key, value in terms.items()}
        )
        self.small, self.large = self.fleet.plan("7.30"), self.fleet.plan("73.00", "1.11")
        self.acme, self.poor = self.fleet.organization("100.00"), self.fleet.organization("0.25")
        self.web = self.fleet.instance(self.acme, self.small)
        self.shop = self.fleet.instance(self.acme, self.large)
        self.debtor = self.fleet.instance(self.poor, self.large)

    def live(self) -> None:
        """Let ten hours pass in which everything happens that a host does."""
        fleet = self.fleet
        fleet.hours(3)
        fleet.bill()
        fleet.hours(0.75)
        fleet.set(self.web, status="stopped")
        fleet.reprice(self.large, "36.50")
        fleet.hours(2.5)
        fleet.set(self.web, status="running")
        fleet.set(self.shop, plan_id=self.small)
        fleet.bill()
        fleet.top_up(self.poor, "0.50")
        fleet.hours(2.25)
        gone = fleet.instance(self.acme, self.large)
        fleet.hours(1.3)
        fleet.delete(gone)
        fleet.hours(2)
        fleet.bill()

    def charges(self, instance: UUID) -> list[UUID]:
        """The charges of an instance, by their period."""
        rows = self.conn.execute(
            "select id from vps_billing_cycles where vps_instance_id = %s order by billing_period_start",
            (instance,),
        )
        return [row[0] for row in rows]


@pytest.fixture
def books(conn: psycopg.Connection[Any]) -> Books:
    books = Books(conn)
    books.live()
    assert () == oracle.judge(conn).lines
    return books


@pytest.mark.parametrize("partial_hour", ["prorate", "full", "free"])
def test_right_books_are_clean(conn: psycopg.Connection[Any], partial_hour: str) -> None:
    """Under every policy about started hours; what was due is what was charged."""
    books = Books(conn, partial_hour=partial_hour)
    books.live()
    verdict = oracle.judge(conn)

    assert () == verdict.lines
    assert verdict.clean
    assert (0, 0, 0) == (verdict.twice, verdict.lost, verdict.unowed)
    assert verdict.due == verdict.charged > 25


def test_a_double_charge_is_named(books: Books) -> None:
    """One hour charged a second time, half an hour later than the first, so that no key refuses it."""
    books.conn.execute(
        "insert into vps_billing_cycles (organization_id, vps_instance_id, billing_period_start, billing_period_end,"
        " hourly_rate, total_amount, status, run_id, plan_id)"
        " select organization_id, vps_instance_id, billing_period_start + interval '30 min',"
        " billing_period_start + interval '90 min', hourly_rate, hourly_rate, 'billed', run_id, plan_id"
        " from vps_billing_cycles where id = %s",
        (books.charges(books.web)[0],),
    )
    verdict = oracle.judge(books.conn)

    assert Decimal(1) == verdict.twice
    assert any(str(books.web) in line and "charged twice" in line for line in verdict.lines)
    assert verdict.drifts, "and its amount was never debited"


def test_a_lost_hour_is_named(books: Books) -> None:
    """A charge that vanished with its money: the wallet agrees, the instance does not."""
    books.conn.execute("delete from vps_billing_cycles where id = %s", (books.charges(books.debtor)[-1],))
    verdict = oracle.judge(books.conn)

    assert verdict.lost >= 1
    assert any(str(books.debtor) in line and "lost" in line for line in verdict.lines)


def test_a_cent_of_drift_is_named(books: Books) -> None:
    """A balance that was written, not moved."""
    books.conn.execute(
        "update wallets set balance = balance - 0.01 where organization_id = %s", (books.acme,)
    )
    verdict = oracle.judge(books.conn)

    assert [Decimal("0.01")] == [drift.expected - drift.found for drift in verdict.drifts]
    assert 1 == len(verdict.lines)


def test_a_cent_too_much_in_the_ledger_is_named(books: Books) -> None:
    """An entry of billing that says another amount than the charges."""
    books.conn.execute(
        "update payment_transactions set amount = amount - 0.01 where id = (select max(id::text)::uuid"
        " from payment_transactions where provider_transaction_id like 'billing-run-%%')"
    )
    (line,) = oracle.judge(books.conn).lines

    assert "the entries of billing on wallet" in line


def test_a_wrong_price_is_named(books: Books) -> None:
    """The price of before, charged for the hours after the change: rate and amount agree with each other."""
    books.conn.execute(
        "update vps_billing_cycles set hourly_rate = 0.1, total_amount ="
        " round(0.1 * extract(epoch from billing_period_end - billing_period_start) / 3600, 8) where id = %s",
        (books.charges(books.debtor)[-1],),
    )
    (line,) = [line for line in oracle.judge(books.conn).lines if "rate" in line]

    assert str(books.debtor) in line
    assert "should be 0.05000000" in line


def test_an_amount_that_is_not_hours_times_rate_is_named(books: Books) -> None:
    """Wrong in the eighth digit."""
    books.conn.execute(
        "update vps_billing_cycles set total_amount = total_amount + 0.00000001 where id = %s",
        (books.charges(books.web)[0],),
    )
    assert any(str(books.web) in line and "comes to" in line for line in oracle.judge(books.conn).lines)


def test_a_charge_of_a_stopped_hour_is_named(books: Books) -> None:
    """From 03:45 to 06:15 it was off."""
    books.conn.execute(
        "insert into vps_billing_cycles (organization_id, vps_instance_id, billing_period_start, billing_period_end,"
        " hourly_rate, total_amount, status, run_id, plan_id)"
        " values (%s, %s, %s, %s, 0.01, 0.01, 'failed', 1, %s)",
        (books.acme, books.web, instant("2026-03-01 04:00"), instant("2026-03-01 05:00"), books.small),
    )
    verdict = oracle.judge(books.conn)

    assert (Decimal(1), Decimal(0)) == (verdict.unowed, verdict.twice)
    assert any(str(books.web) in line and "were not owed" in line for line in verdict.lines)


def test_a_debt_that_the_wallet_could_pay_is_named(books: Books) -> None:
    """Money came with the host's entry, and no run paid what it could."""
    books.fleet.top_up(books.poor, "50.00")

    assert any("could pay" in line for line in oracle.judge(books.conn).lines)


def test_money_beside_the_ledger_is_named(books: Books) -> None:
    """A top-up that was added to the balance twice."""
    books.fleet.top_up(books.acme, "5.00")
    assert oracle.judge(books.conn).clean
    books.conn.execute("update wallets set balance = balance + 5 where organization_id = %s", (books.acme,))

    assert [Decimal("-5.00")] == [drift.expected - drift.found for drift in oracle.judge(books.conn).drifts]


def test_a_clock_that_is_set_back_charges_nothing_twice(conn: psycopg.Connection[Any]) -> None:
    """What the clock had reached stays charged; changes in the time that comes again begin after it."""
    books = Books(conn)
    clock.start_clock(conn, instant("2026-03-01 00:00"))

    def bill_at(moment: str) -> None:
        clock.set_clock(conn, instant(moment))
        now = clock.read_clock(conn)
        assert Outcome.COMPLETED is books.fleet.bill(as_of=now, host_clock=now).outcome

    bill_at("2026-03-01 05:00")
    clock.set_clock(conn, instant("2026-03-01 02:30"))
    books.fleet.set(books.web, status="stopped")
    bill_at("2026-03-01 03:30")
    assert oracle.judge(conn).clean
    books.fleet.set(books.web, status="running")
    bill_at("2026-03-01 08:00")
    verdict = oracle.judge(conn)

    assert () == verdict.lines
    assert Decimal(24) == verdict.charged


def test_an_hour_that_is_charged_ahead_is_named(books: Books) -> None:
    """A watermark that an error let run ahead, and a host that stops the instance before: it paid for what it did not run."""
    fleet = books.fleet
    fleet.conn.execute(
        "with ahead as (update vps_billing_cycles set billing_period_end = billing_period_end + interval '3 hours',"
        " total_amount = total_amount + 3 * hourly_rate where id = %s returning billing_period_end)"
        " update vps_instances set last_billed_at = billing_period_end, rated_until = billing_period_end from ahead"
        " where vps_instances.id = %s",
        (books.charges(books.shop)[-1], books.shop),
    )
    fleet.set(books.shop, status="stopped")
    fleet.hours(5)
    fleet.bill()

    assert any(str(books.shop) in line and "were not owed" in line for line in oracle.judge(books.conn).lines)


def test_the_clock_stands_still_inside_a_transaction(conn: psycopg.Connection[Any]) -> None:
    """Metering and the journal write the same instant, to the microsecond; the next transaction reads a later one."""
    books = Books(conn)
    clock.start_clock(conn, instant("2026-03-01 00:00"), 3600)
    with conn.transaction():
        first = clock.read_clock(conn)
        books.fleet.set(books.web, status="stopped")
        assert first == clock.read_clock(conn)
    assert first < clock.read_clock(conn)
    metered, journaled = conn.execute(
        "select ended_at, at from billing_closed_segments(), oracle.instances j where not j.status = 'running'"
    ).fetchone() or (0, 1)

    assert first == metered == journaled


def test_a_rolled_back_change_leaves_no_entry(books: Books) -> None:
    """The journal commits and rolls back with the change: what was not committed was never due."""
    with books.conn.transaction(force_rollback=True):
        books.fleet.set(books.web, status="stopped")
        books.fleet.top_up(books.acme, "5.00")
    books.fleet.hours(2)
    books.fleet.bill()

    assert () == oracle.judge(books.conn).lines


def test_the_journal_begins_before_the_first_charge(conn: psycopg.Connection[Any]) -> None:
    """What was charged before nobody wrote down could only be guessed."""
    fleet = Fleet(conn)
    fleet.instance(fleet.organization(), fleet.plan("7.30"))
    fleet.hours(2)
    fleet.bill()

    with pytest.raises(ValueError, match="before the first charge"):
        oracle.install(conn)


def test_verify_agrees(books: Books, database: str) -> None:
    """Two judges that share nothing, one opinion."""
    found = verify(database)

    assert found.ok, found.discrepancies


def test_what_ended_in_a_time_that_was_taken_back_is_due_when_it_comes(conn: psycopg.Connection[Any]) -> None:
    """Stopped while the clock was ahead: at rest, where the clock has come at most, the hours until then are charged."""
    books = Books(conn)
    clock.start_clock(conn, instant("2026-03-01 00:00"))
    clock.set_clock(conn, instant("2026-03-01 09:30"))
    books.fleet.set(books.web, status="stopped")
    clock.set_clock(conn, instant("2026-03-01 02:00"))
    assert instant("2026-03-01 09:30") == clock.highest(conn)
    clock.set_clock(conn, clock.highest(conn))
    now = clock.read_clock(conn)
    books.fleet.bill(as_of=now, host_clock=now)
    verdict = oracle.judge(conn)

    assert () == verdict.lines
    assert Decimal("27.5") == verdict.charged
