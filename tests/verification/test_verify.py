"""Verification of the books: correct books pass after any history and during concurrent writes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from tests.books import Books, failed, varied_books
from tests.fleet import Fleet

from containerstacks_billing.charging.model import Outcome, Progress
from containerstacks_billing.verification.model import Verification
from containerstacks_billing.verification.verify import verify


def test_a_varied_ledger_is_right(books: Books) -> None:
    """Segments, moves, deletions, dated prices, debts paid, split and open: every check holds and examined something."""
    verification = books.verify()
    assert [] == list(verification.discrepancies)
    assert verification.ok
    assert [] == [check.name for check in verification.checks if not check.examined]
    assert 1 == verification.open_items.past_due_instances
    assert 0 == verification.host.cycles


@pytest.mark.parametrize("partial_hour", ["prorate", "full", "free"])
def test_every_end_of_an_hour_is_right(conn: psycopg.Connection[Any], partial_hour: str) -> None:
    """Stops, a start inside a paid hour, a resize and a deletion under each policy; what is not charged is explained."""
    fleet = Fleet(conn, partial_hour=partial_hour)
    small, large = fleet.plan("7.30"), fleet.plan("14.60")
    organization = fleet.organization("0.04")
    fleet.bill()
    web, gone = fleet.instance(organization, small), fleet.instance(organization, large)
    fleet.hours(1.3)
    fleet.set(web, status="stopped")
    fleet.set(gone, plan_id=small)
    fleet.hours(0.2)
    fleet.set(web, status="running")
    fleet.bill()
    fleet.hours(2.7)
    fleet.delete(gone)
    fleet.bill()
    fleet.top_up(organization, "0.05")
    fleet.hours(1)
    fleet.bill()
    assert () == verify(fleet.conninfo).discrepancies


def test_what_waits_for_a_decision_is_no_discrepancy(conn: psycopg.Connection[Any]) -> None:
    """Held and quarantined hours are counted, and nothing is missing."""
    fleet = Fleet(conn)
    organization = fleet.organization()
    fleet.instance(organization, fleet.plan("7.30"))
    fleet.instance(organization, "no-such-plan")
    fleet.hours(73)
    fleet.bill()
    verification = verify(fleet.conninfo)
    assert () == verification.discrepancies
    assert (1, 1) == (verification.open_items.held_instances, verification.open_items.quarantined_instances)


def test_hours_per_month_may_change_while_somebody_owes(conn: psycopg.Connection[Any]) -> None:
    """A debt keeps the rate of its run, whichever run collects it."""
    fleet = Fleet(conn)
    organization = fleet.organization("0.02")
    fleet.instance(organization, fleet.plan("7.30"))
    fleet.hours(3)
    fleet.bill()
    fleet.top_up(organization, "1.00")
    fleet.terms = Fleet(conn, at=fleet.now, hours_per_month=720).terms
    fleet.hours(2)
    fleet.bill()
    assert () == verify(fleet.conninfo).discrepancies


def test_backups_have_their_price(conn: psycopg.Connection[Any]) -> None:
    """In the successor's schema an hour costs more with backups; both rates are known, and a segment says which."""
    conn.execute("alter table vps_instances add column backup_frequency varchar(20) default 'none'")
    conn.execute("alter table vps_plans add column backup_price_hourly numeric(10,4) default 0.01")
    conn.execute("select billing_adapt_to_host()")
    fleet = Fleet(conn)
    organization = fleet.organization()
    web = fleet.instance(organization, fleet.plan("7.30"))
    fleet.set(web, backup_frequency="daily")
    fleet.hours(2)
    fleet.set(web, backup_frequency="none")
    fleet.hours(1)
    fleet.bill()
    assert ["0.04", "0.01"] == [amount for _, _, amount, _ in fleet.charges()]
    assert () == verify(fleet.conninfo).discrepancies
    conn.execute("update billing_usage_segments set backups = false")
    assert {"rates"} == failed(verify(fleet.conninfo))


def test_an_instance_may_come_back_under_its_identifier(books: Books) -> None:
    """Deleted and inserted again an hour later: the hour between is not charged."""
    fleet = books.fleet
    row = fleet.rows("select * from vps_instances where id = %s", books.web)[0]
    fleet.delete(books.web)
    fleet.hours(1)
    fleet.conn.execute(
        "insert into vps_instances (id, organization_id, plan_id, provider_instance_id, label, status, created_at)"
        " values (%s, %s, %s, 'again', 'again', 'running', %s)",
        (row.id, row.organization_id, row.plan_id, fleet.now),
    )
    fleet.hours(2)
    fleet.bill()
    assert () == books.verify().discrepancies


def test_a_deleted_organization_cannot_be_compared_and_is_counted(books: Books) -> None:
    """Its wallet and its ledger go with it; its charges stay, and their hours are still proven."""
    charges = books.one("select count(*) from vps_billing_cycles where organization_id = %s", books.rich)
    books.fleet.conn.execute("delete from organizations where id = %s", (books.rich,))
    verification = books.verify()
    assert () == verification.discrepancies
    assert charges == verification.open_items.charges_without_organization


def test_the_hosts_own_periods_explain_the_watermark_and_are_counted(books: Books) -> None:
    """The original bills beside us: its periods are no gap of ours, and what both charged is counted, not hidden."""
    fleet = books.fleet
    start = fleet.now
    for begins, ends in ((0, 1), (0, 1), (0.5, 1.5), (-2, -1), (1.5, 2)):
        _host_bills(books, start + timedelta(hours=begins), start + timedelta(hours=ends))
    fleet.set(books.web, last_billed_at=start + timedelta(hours=2))
    fleet.hours(3)
    fleet.bill()
    verification = books.verify()
    assert {"one-biller"} == {one.check for one in verification.discrepancies}
    host = verification.host
    assert (5, 1, 1) == (host.cycles, host.doubled, host.overlapped)
    assert (1, 5) == (host.charged_by_both, host.unkeyed_debits)


def _host_bills(books: Books, begins: Any, ends: Any) -> None:
    """Write what the original writes: a debit, an absolute balance, a billed row."""
    execute = books.fleet.conn.execute
    execute(
        "insert into payment_transactions (organization_id, amount, currency, payment_method, payment_provider, status,"
        " description) values (%s, -0.03, 'USD', 'wallet_debit', 'internal', 'completed', 'VPS Hourly Billing - x (1h)')",
        (books.rich,),
    )
    execute("update wallets set balance = balance - 0.03 where organization_id = %s", (books.rich,))
    execute(
        "insert into vps_billing_cycles (vps_instance_id, organization_id, billing_period_start, billing_period_end,"
        " hourly_rate, total_amount, status) values (%s, %s, %s, %s, 0.027, 0.03, 'billed')",
        (books.web, books.rich, begins, ends),
    )


def test_a_waived_segment_is_explained(books: Books) -> None:
    """A decision that says who waived which hours takes the place of a charge."""
    start = books.fleet.now
    books.fleet.set(
        books.web, last_billed_at=start + timedelta(hours=2), rated_until=start + timedelta(hours=2)
    )
    assert {"gaps"} == failed(books.verify())
    books.fleet.conn.execute(
        "insert into billing_decisions (organization_id, instance_id, decision, waived_from, waived_to, decided_by, reason)"
        " values (%s, %s, 'waive', %s, %s, 'ops', 'our outage')",
        (books.rich, books.web, start, start + timedelta(hours=2)),
    )
    assert () == books.verify().discrepancies


@pytest.mark.parametrize("shared_from", [0, 50_000], ids=["two readers", "one reader"])
def test_a_run_that_commits_meanwhile_is_not_seen(books: Books, shared_from: int) -> None:
    """A whole run passes after the snapshot was taken: both readers see what was before it, so nothing seems to differ."""
    books.fleet.hours(2)
    runs: list[Any] = []

    def progressed(_: str) -> None:
        if not runs:
            runs.append(books.fleet.bill())

    verification = books.verify(progressed=progressed, shared_from=shared_from)
    assert (Outcome.COMPLETED, 4) == (runs[0].outcome, runs[0].instances_billed)
    assert () == verification.discrepancies
    assert () == books.verify().discrepancies


def test_the_middle_of_a_run_is_right(books: Books) -> None:
    """After each batch of a run the books are right, with the run still open."""
    books.fleet.hours(2)
    seen: list[Verification] = []
    between: list[Progress] = []

    def progressed(progress: Progress) -> None:
        between.append(progress)
        seen.append(books.verify())

    books.fleet.bill(batch_size=1, workers=1, progressed=progressed)
    assert len(between) > 2
    assert [()] * len(seen) == [one.discrepancies for one in seen]


def test_one_organization_is_compared_by_itself(books: Books) -> None:
    """Damage elsewhere is not its own; the hours of an instance count wherever it was."""
    books.fleet.conn.execute(
        "update wallets set balance = balance + 1 where organization_id = %s", (books.poor,)
    )
    assert {"balances"} == failed(books.verify())
    assert {"balances"} == failed(books.verify(organization=books.poor))
    assert set() == failed(books.verify(organization=books.rich))
    late = books.one("select organization_id from vps_instances where id = %s", books.moved)
    assert () == books.verify(organization=late).discrepancies
    books.damage("delete from vps_billing_cycles where id = %s", books.charge(books.moved))
    assert "gaps" in failed(books.verify(organization=late))


def test_a_role_that_may_only_read_is_enough(conn: psycopg.Connection[Any], role: str, database: str) -> None:
    """SELECT on the tables, and not even the right to write anything elsewhere."""
    varied_books(conn)
    name = sql.Identifier(role)
    conn.execute(sql.SQL("grant select on all tables in schema public to {}").format(name))
    conn.execute(sql.SQL("alter role {} set default_transaction_read_only = on").format(name))
    conninfo = make_conninfo(database, user=role, password=role)
    assert verify(conninfo).ok


def test_all_discrepancies_are_counted_and_some_are_shown(books: Books) -> None:
    """A bound on what is kept, none on what is counted."""
    books.fleet.conn.execute("update wallets set balance = balance + 1")
    verification = books.verify(shown=2)
    (balances,) = (check for check in verification.checks if not check.ok)
    assert (3, 2) == (balances.found, balances.shown)
    assert 2 == len(verification.discrepancies)
    assert 3 == verification.found


def test_an_empty_database_is_right(database: str) -> None:
    """Nothing was charged, so nothing can be wrong."""
    assert verify(database).ok
    assert verify(database, organization=UUID(int=1)).ok
