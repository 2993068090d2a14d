"""Built-in billing on a real database, by a clock that obeys."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from tests.clock import heartbeat, hourly_fleet, pass_time, settings_of
from tests.daemons import eventually
from tests.fleet import Fleet

from containerstacks_billing import logs
from containerstacks_billing.charging.model import Outcome
from containerstacks_billing.daemon.built_in import BuiltInBilling, FailoverCheck
from containerstacks_billing.status.failover import ACTIVE_SENTENCE, Decision
from containerstacks_billing.status.read import read_failover

NINETY = timedelta(minutes=90)
SECOND = timedelta(seconds=1)


@pytest.fixture
def fleet(conn: psycopg.Connection[Any]) -> Fleet:
    # The clock stands in the real present: the brake compares it with the host's.
    fleet = Fleet(conn, at=conn.execute("select date_trunc('hour', now()) - interval '1 day'").fetchone()[0])  # type: ignore[index]
    hourly_fleet(fleet)
    return fleet


def built_in(fleet: Fleet, conninfo: str | None = None, **texts: str) -> BuiltInBilling:
    conninfo = conninfo or fleet.conninfo
    return BuiltInBilling(settings_of(conninfo, **texts), conninfo, check_seconds=0.05)


def runs(fleet: Fleet) -> list[tuple[str, str]]:
    return [(row.trigger, row.outcome) for row in fleet.rows("select * from billing_runs order by id")]


def debited(fleet: Fleet) -> Decimal:
    return -sum((row.amount for row in fleet.rows("select amount from payment_transactions")), Decimal(0))


def test_without_a_daemon_it_bills_and_the_books_say_who(
    fleet: Fleet, capfd: pytest.CaptureFixture[str]
) -> None:
    """No row in the status table: it bills at once, under its own trigger, and leaves that table alone."""
    logs.configure(environment={"JOURNAL_STREAM": "8:1"})
    billing = built_in(fleet)
    look = billing.check()

    assert look.result is not None
    assert (Outcome.COMPLETED, 1, Decimal("0.02")) == (
        look.result.outcome,
        look.result.instances_billed,
        look.result.amount,
    )
    row = fleet.rows("select id, fencing_token, trigger, holder from billing_runs")[0]
    ended = f'<6>level=info event="Built-in billing run ended" run={row.id} token={row.fencing_token} '
    assert ended in capfd.readouterr().err
    assert "built-in" == row.trigger
    assert row.holder.startswith("built-in ")
    assert [] == fleet.rows("select * from billing_daemon_status")


def test_a_living_daemon_keeps_it_from_billing(fleet: Fleet, capfd: pytest.CaptureFixture[str]) -> None:
    """It says so in the words that operators search for, once and not at every look."""
    logs.configure()
    heartbeat(fleet, NINETY - SECOND)
    billing = built_in(fleet)
    decisions = [billing.check().decision.decision for _ in range(3)]

    assert [Decision.DAEMON_ACTIVE] * 3 == decisions
    assert 1 == capfd.readouterr().err.count("Billing daemon is active, skipping built-in billing")
    assert "Billing daemon is active, skipping built-in billing" == ACTIVE_SENTENCE
    assert [] == runs(fleet)


@pytest.mark.parametrize("times", [5, pytest.param(100, marks=pytest.mark.slow)])
def test_it_takes_over_at_ninety_minutes_every_time(fleet: Fleet, times: int) -> None:
    """At 89:59 it does nothing, at 90:00 it bills: in a hundred of a hundred."""
    billing = built_in(fleet)
    outcomes = []
    for _ in range(times):
        heartbeat(fleet)
        fleet.at(NINETY - SECOND)
        before = billing.check()
        pass_time(fleet, SECOND)
        after = billing.check()
        outcomes.append((before.decision.decision, after.decision.decision, after.result is not None))

    assert [(Decision.DAEMON_ACTIVE, Decision.BILL, True)] * times == outcomes
    assert [("built-in", "completed")] * times == runs(fleet)


def test_it_bills_hourly_until_a_heartbeat_returns(fleet: Fleet) -> None:
    """What is due is a query: a second look bills nothing, one an hour later does, one beside a heartbeat does not."""
    first, restarted = built_in(fleet), built_in(fleet)
    decisions = [first.check().decision.decision, restarted.check().decision.decision]
    fleet.at(timedelta(minutes=59, seconds=59))
    decisions.append(restarted.check().decision.decision)
    fleet.at(SECOND)
    decisions.append(restarted.check().decision.decision)
    fleet.hours(1)
    heartbeat(fleet)
    decisions.append(restarted.check().decision.decision)

    assert [
        Decision.BILL,
        Decision.NOT_DUE,
        Decision.NOT_DUE,
        Decision.BILL,
        Decision.DAEMON_ACTIVE,
    ] == decisions
    assert Decimal("0.03") == debited(fleet)


def test_it_does_not_bill_when_the_status_table_is_gone(fleet: Fleet) -> None:
    """An unreadable status is no reason to bill; when the table is back, it bills."""
    billing = built_in(fleet)
    fleet.conn.execute("alter table billing_daemon_status rename to hidden")
    look = billing.check()
    fleet.conn.execute("alter table hidden rename to billing_daemon_status")

    assert Decision.CANNOT_TELL == look.decision.decision
    assert "does not bill" in look.decision.sentence
    assert [] == runs(fleet)
    assert Decision.BILL == billing.check().decision.decision


@pytest.mark.parametrize(
    "table", ["billing_daemon_status", "billing_runs", "payment_transactions", "billing_leases"]
)
def test_it_does_not_bill_what_it_may_not_read(fleet: Fleet, role: str, table: str) -> None:
    """Whichever table is closed to its role, nothing is charged and the reason is said."""
    for statement in (
        "grant all on all tables in schema public to {}",
        "grant all on all sequences in schema public to {}",
    ):
        fleet.conn.execute(sql.SQL(statement).format(sql.Identifier(role)))  # type: ignore[arg-type]
    fleet.conn.execute(
        sql.SQL("revoke select on {} from {}").format(sql.Identifier(table), sql.Identifier(role))
    )

    look = built_in(fleet, make_conninfo(fleet.conninfo, user=role, password=role)).check()

    assert Decision.CANNOT_TELL == look.decision.decision
    assert table in look.decision.sentence
    assert [] == runs(fleet)


def test_it_does_not_bill_when_the_database_is_away(fleet: Fleet, tmp_path: Path) -> None:
    """It waits for it, and goes on."""
    nowhere = make_conninfo(fleet.conninfo, host=str(tmp_path))
    look = built_in(fleet, nowhere).check()
    assert Decision.CANNOT_TELL == look.decision.decision


@pytest.mark.parametrize(
    ("switch", "host_debits", "expected"),
    [
        ("auto", False, Decision.BILL),
        ("auto", True, Decision.HOST_BILLS),
        ("on", True, Decision.BILL),
        ("off", False, Decision.SWITCHED_OFF),
    ],
)
def test_the_switch_decides_which_built_in_billing_takes_over(
    fleet: Fleet, switch: str, host_debits: bool, expected: Decision
) -> None:
    """On an adopted site the host's own scheduler wakes by the same rule; auto leaves it to that one."""
    organization = fleet.rows("select id from organizations")[0].id
    if host_debits:
        fleet.conn.execute(
            "insert into payment_transactions (organization_id, amount, payment_method, payment_provider, status,"
            " description, created_at) values (%s, -0.03, 'wallet_debit', 'internal', 'completed',"
            " 'VPS Hourly Billing - web (1h)', %s)",
            (organization, fleet.now - timedelta(days=1)),
        )
    assert expected == built_in(fleet, built_in_billing=switch).check().decision.decision


def test_our_own_debits_are_not_taken_for_the_hosts(fleet: Fleet) -> None:
    """It must not switch itself off by billing."""
    billing = built_in(fleet)
    billing.check()
    fleet.hours(1)
    assert (Decision.BILL, False) == ((look := billing.check()).decision.decision, look.host_bills)


def test_several_replicas_bill_once(fleet: Fleet) -> None:
    """Eight that start at once make one run; the others see it under the lease, or leave it to the holder."""
    replicas = [built_in(fleet) for _ in range(8)]
    together = threading.Barrier(8)

    def start(replica: BuiltInBilling) -> bool:
        together.wait(180)
        return replica.check().result is not None

    for hour in range(1, 4):
        with ThreadPoolExecutor(8) as pool:
            billed = list(pool.map(start, replicas))
        assert 1 == sum(billed)
        assert [("built-in", "completed")] * hour == runs(fleet)
        fleet.hours(1)
    assert Decimal("0.04") == debited(fleet)


def test_it_looks_again_under_the_lease(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that returns between looking and obtaining the lease is left alone."""
    from containerstacks_billing.charging import lease as leases

    obtained = leases.acquire

    def returning(*arguments: Any, **options: Any) -> Any:
        heartbeat(fleet)
        return obtained(*arguments, **options)

    monkeypatch.setattr(leases, "acquire", returning)
    look = built_in(fleet).check()

    assert (Decision.NOT_DUE, None, []) == (look.decision.decision, look.result, runs(fleet))
    assert [(None,)] == fleet.rows("select holder from billing_leases")


def test_a_returning_daemon_and_built_in_billing_charge_each_hour_once(fleet: Fleet) -> None:
    """Both bill at once, hour after hour; the ledger holds every hour once."""
    replica = built_in(fleet)

    def by_daemon(_: int) -> None:
        fleet_bill(
            trigger="daemon", holder="host-1", wait_seconds=60, as_of=None, host_clock=datetime.now(UTC)
        )

    fleet_bill = fleet.bill
    for _ in range(4):
        fleet.hours(1)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda side: side(), [replica.check, lambda: by_daemon(0)]))

    hours = fleet.rows(
        "select extract(epoch from sum(billing_period_end - billing_period_start)) / 3600 as hours from vps_billing_cycles"
        " where run_id is not null"
    )
    assert 6 == hours[0].hours
    assert Decimal("0.06") == debited(fleet)
    assert ([], 0) == (
        fleet.rows("select * from billing_runs where outcome is null"),
        len(fleet.quarantine()),
    )


def test_a_heartbeat_ahead_of_the_clock_does_not_switch_it_off_for_ever(fleet: Fleet) -> None:
    """An hour ahead, after the clock was set back, it counts as one of now; a year or an eternity ahead it is none."""
    billing = built_in(fleet)
    heartbeat(fleet, -timedelta(hours=1))
    decisions = [billing.check().decision.decision]
    fleet.at(timedelta(hours=1) + NINETY - SECOND)
    decisions.append(billing.check().decision.decision)
    fleet.at(SECOND)
    fleet.conn.execute(
        "insert into billing_daemon_status (daemon_instance_id, status, heartbeat_at)"
        " values ('odd', 'running', 'infinity'), ('ahead', 'running', %s)",
        (fleet.now + timedelta(days=365),),
    )
    decisions.append(billing.check().decision.decision)
    assert [Decision.DAEMON_ACTIVE, Decision.DAEMON_ACTIVE, Decision.BILL] == decisions


def test_a_daemon_that_returns_is_logged_at_once(fleet: Fleet, capfd: pytest.CaptureFixture[str]) -> None:
    """It says that it steps back, also within the hour in which it said so before."""
    logs.configure()
    billing = built_in(fleet)
    heartbeat(fleet)
    billing.check()
    pass_time(fleet, NINETY)
    billing.check()
    heartbeat(fleet)
    billing.check()
    assert 2 == capfd.readouterr().err.count(ACTIVE_SENTENCE)


def test_its_sign_of_life_is_there_while_it_looks(fleet: Fleet) -> None:
    """Written by each look with what it would do, and removed when it ends."""
    billing = built_in(fleet, built_in_billing="on", failover_after_minutes="30")
    heartbeat(fleet)
    billing.check()
    fleet.at(timedelta(minutes=3))
    billing.check()
    side = read_failover(fleet.conninfo).application_sides
    assert [("on", timedelta(minutes=30), fleet.now)] == [
        (one.setting, one.failover_after, one.looked_at) for one in side
    ]
    fleet.at(timedelta(minutes=5, seconds=1))
    assert () == read_failover(fleet.conninfo).application_sides
    stopping = threading.Event()
    stopping.set()
    billing.run(stopping)
    assert [] == fleet.rows("select * from billing_application_sides")


def test_it_bills_where_its_sign_of_life_cannot_be_written(
    fleet: Fleet, capfd: pytest.CaptureFixture[str]
) -> None:
    """What is shown is less important than what is billed; the log says what is missing."""
    logs.configure()
    billing = built_in(fleet)
    fleet.conn.execute(
        "create function refuse() returns trigger language plpgsql as $$ begin raise 'refused'; end $$;"
        "create trigger refuse before insert on billing_application_sides execute function refuse()"
    )
    assert Decision.BILL is billing.check().decision.decision
    assert [("built-in", "completed")] == runs(fleet)
    assert "The sign of life could not be written" in capfd.readouterr().err


def test_its_thread_bills_by_itself_and_ends_when_told(fleet: Fleet) -> None:
    """Start, a run, a daemon that comes and goes, another run, stop."""
    billing = built_in(fleet)
    billing.start()
    billing.start()
    eventually(lambda: [("built-in", "completed")] == runs(fleet))
    heartbeat(fleet)
    eventually(
        lambda: (
            billing.last_check is not None and billing.last_check.decision.decision is Decision.DAEMON_ACTIVE
        )
    )
    fleet.at(NINETY)
    eventually(lambda: [("built-in", "completed")] * 2 == runs(fleet))

    assert billing.is_alive
    assert billing.stop()
    assert not billing.is_alive


def test_no_defect_ends_its_thread(fleet: Fleet) -> None:
    """It is the last resort, so a defect costs one look."""
    failures = iter([RuntimeError("a defect")])

    class Defective(BuiltInBilling):
        def check(self, stopping: threading.Event | None = None) -> FailoverCheck:
            for failure in failures:
                raise failure
            return super().check(stopping)

    billing = Defective(settings_of(fleet.conninfo), check_seconds=0.05)
    billing.start()
    eventually(lambda: [("built-in", "completed")] == runs(fleet))
    assert billing.stop()
