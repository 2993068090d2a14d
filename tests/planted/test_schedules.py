"""A schedule for each bug that is planted: what the product survives, and what each of those bugs does not.

Something happens after every statement of a batch, one after the other, so nothing here depends on luck. The deeds are
those that charging/README.md names. What takes a moment stands first, so that a bug is found soon.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from tests.daemons import eventually
from tests.planted.scheduled_fleet import Killed, ScheduledFleet

from containerstacks_billing.charging import lease as leases
from containerstacks_billing.charging import run_record as runs
from containerstacks_billing.charging.batch import charge_batch
from containerstacks_billing.charging.model import Terms
from containerstacks_billing.database.connection import connect
from containerstacks_billing.drill.commit_proxy import CommitProxy, Where, mentions
from containerstacks_billing.errors import LeaseLost

_OF_A_WORKER = re.compile(
    r"insert into (vps_billing_cycles|payment_transactions)|update (vps_instances|wallets|billing_usage_segments)\b"
)


@pytest.fixture
def scheduled(conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch) -> ScheduledFleet:
    return ScheduledFleet(conn, monkeypatch)


def statements(scheduled: ScheduledFleet) -> range:
    """Number the statements of a batch that has something to do."""
    scheduled.fleet.hours(1)
    count = scheduled.run()
    assert count > 5
    return range(1, count + 1)


def of_a_worker(transaction: Sequence[str]) -> bool:
    """Whether a transaction charges, moves watermarks or posts; the lease is left alone, for it would be waited for."""
    return any(_OF_A_WORKER.search(statement) for statement in transaction)


def set_to(column: str, value: object, instance: UUID) -> Callable[[psycopg.Connection[Any]], object]:
    return lambda host: host.execute(
        f"update vps_instances set {column} = %s where id = %s", (str(value), instance)
    )


def move_money(organization: UUID, amount: str) -> Callable[[psycopg.Connection[Any]], None]:
    """As the host does: by a delta, with an entry, and never below zero."""

    def move(host: psycopg.Connection[Any]) -> None:
        moved = host.execute(
            "update wallets set balance = balance + %(amount)s where organization_id = %(organization)s"
            " and balance + %(amount)s >= 0",
            {"amount": amount, "organization": organization},
        ).rowcount
        if moved:
            host.execute(
                "insert into payment_transactions (organization_id, amount, currency, payment_method, payment_provider,"
                " status, description) values (%s, %s, 'USD', 'paypal', 'paypal', 'completed', 'By hand')",
                (organization, amount),
            )

    return move


@pytest.mark.parametrize(("before", "after"), [("pending", "running"), ("running", "stopped")])
def test_an_instance_may_change_before_its_first_charge(
    scheduled: ScheduledFleet, before: str, after: str
) -> None:
    """Nothing but its creation says where it stands, and the change ends a segment all the same."""
    organization, plan = scheduled.fleet.organization("10.00"), scheduled.fleet.plan("7.30")
    subject = scheduled.fleet.instance(organization, plan, status=before)
    scheduled.fleet.hours(2.5)
    scheduled.fleet.set(subject, status=after)
    scheduled.judge(hours=2)


def test_a_number_that_is_given_twice_does_not_let_two_in(scheduled: ScheduledFleet) -> None:
    """A promoted replica that lost the last commits gives the same fencing token to another; the nonce tells them apart."""
    scheduled.populate()
    scheduled.fleet.hours(1)
    with connect(scheduled.fleet.conninfo, purpose="billing") as old:
        lease = leases.try_acquire(old, "old")
        assert lease is not None
        run = runs.open_run(
            old, lease, Terms(), trigger="test", as_of=scheduled.fleet.now, host_clock=scheduled.fleet.now
        )
        batches = list(runs.plan_batches(old, run, 1000))
        scheduled.fleet.conn.execute(
            "update billing_leases set fencing_token = fencing_token - 1, expires_at = '-infinity'"
        )
        again = leases.try_acquire(scheduled.fleet.conn, "new")
        assert again is not None
        assert lease.fencing_token == again.fencing_token
        with pytest.raises(LeaseLost):
            charge_batch(old, run, batches[0])
    scheduled.fleet.conn.execute("update billing_leases set expires_at = '-infinity'")
    scheduled.judge()


@pytest.mark.parametrize("sealed", [False, True], ids=["as a restore does", "with a seal that lies"])
@pytest.mark.parametrize("minutes", [180, 30])
def test_a_row_that_is_restored_charges_no_hour_again(
    scheduled: ScheduledFleet, sealed: bool, minutes: int
) -> None:
    """An instance comes back as it was, our own columns included; the key is the last that refuses a second copy."""
    instances, _ = scheduled.populate()
    for _ in range(3):
        scheduled.fleet.hours(1)
        scheduled.fleet.bill()
    with scheduled.fleet.conn.transaction():
        scheduled.fleet.conn.execute("set local session_replication_role = replica")
        scheduled.fleet.conn.execute(
            "update vps_instances set last_billed_at = last_billed_at - %(back)s, rated_until = rated_until - %(back)s,"
            " sealed_by = case when %(sealed)s then pg_current_xact_id()::xid else sealed_by end where id = %(instance)s",
            {
                "back": timedelta(minutes=60 if sealed else minutes),
                "sealed": sealed,
                "instance": instances[0],
            },
        )
    # Under the lying seal the row has the ordinary hour due that was charged last.
    scheduled.fleet.hours(0.5 if sealed else 1)
    scheduled.fleet.bill()

    scheduled.judge(hours=1)


def test_money_that_waits_for_its_own_commit_is_seen(scheduled: ScheduledFleet) -> None:
    """The host holds a wallet when the batch comes: what the batch writes stands on what the host commits."""
    organization = scheduled.fleet.organization("10.00")
    scheduled.fleet.instance(organization, scheduled.fleet.plan("7.30"))
    scheduled.fleet.hours(1)
    with psycopg.Connection.connect(scheduled.fleet.conninfo) as host:
        move_money(organization, "5.00")(host)
        run = threading.Thread(target=scheduled.run)
        run.start()
        eventually(scheduled.a_session_waits)
        host.commit()
        run.join(180)
    scheduled.judge()


@pytest.mark.parametrize("hours", [1, 3])
@pytest.mark.parametrize(("column", "value"), [("status", "stopped"), ("plan_id", "")])
def test_an_instance_may_change_while_the_batch_waits_for_its_row(
    scheduled: ScheduledFleet, hours: int, column: str, value: str
) -> None:
    """The batch has read the row as it was before; the watermark is compared again when the lock is given."""
    instances, _ = scheduled.populate()
    dear = scheduled.fleet.plan("9.10")
    # Sealed by a run, so that the flush passes the row by, and the statement that charges waits for it.
    scheduled.fleet.hours(1)
    scheduled.fleet.bill()
    scheduled.fleet.hours(hours)
    with psycopg.Connection.connect(scheduled.fleet.conninfo) as host:
        set_to(column, value or dear, instances[0])(host)
        run = threading.Thread(target=scheduled.run)
        run.start()
        eventually(scheduled.a_session_waits)
        host.commit()
        run.join(180)
    scheduled.fleet.hours(1)
    scheduled.fleet.set(instances[0], status="running")
    scheduled.judge()


_CLOCK_AHEAD = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>
int clock_gettime(clockid_t clock, struct timespec *at) {
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(clock, at);
    if (clock == CLOCK_REALTIME) at->tv_sec += 600;
    return failed;
}
"""
_ASK_FOR_THE_LEASE = """
import sys, psycopg
from containerstacks_billing.charging import lease as leases
with psycopg.connect(sys.argv[1], autocommit=True) as connection:
    print("taken" if leases.try_acquire(connection, "ahead") else "refused")
"""


def test_a_host_whose_clock_is_ahead_takes_no_lease(scheduled: ScheduledFleet, tmp_path: Path) -> None:
    """The lease expires by the database's clock, so ten minutes too many on a host are nothing to it."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("gcc is missing: apt-get install gcc libc6-dev")
    (tmp_path / "ahead.c").write_text(_CLOCK_AHEAD)
    library = tmp_path / "ahead.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, tmp_path / "ahead.c", "-ldl"], check=True)
    with connect(scheduled.fleet.conninfo, purpose="billing") as holder:
        assert leases.try_acquire(holder, "holder") is not None
        asked = subprocess.run(
            [
                "/usr/bin/env",
                f"LD_PRELOAD={library}",
                sys.executable,
                "-c",
                _ASK_FOR_THE_LEASE,
                scheduled.fleet.conninfo,
            ],
            capture_output=True,
            text=True,
            check=True,
            timeout=180,
        )
    assert "refused\n" == asked.stdout


def test_an_answer_that_is_lost_below_a_cent_is_carried_once(scheduled: ScheduledFleet) -> None:
    """No entry is posted whose key could refuse a second one: the attempt's number alone tells its charges from the first's."""
    cheap = scheduled.fleet.organization("1.00")
    scheduled.fleet.instance(cheap, scheduled.fleet.plan("0.73"))
    server = scheduled.fleet.conn.info
    with CommitProxy(server.host, server.port) as proxy:
        for hours in (2, 1, 3):
            scheduled.fleet.hours(hours)
            proxy.arm("after", interesting=mentions("insert into vps_billing_cycles"))
            scheduled.run(conninfo=proxy.conninfo(scheduled.fleet.conninfo))
    assert 3 == proxy.fired
    scheduled.judge()


@pytest.mark.parametrize(("price", "balance"), [("4.38", "0.01"), ("7.30", "0.03")])
def test_money_that_arrives_between_two_attempts_is_paid_from_once(
    scheduled: ScheduledFleet, price: str, balance: str
) -> None:
    """The first attempt pays in part, with or without an entry, and its answer is lost; the second pays the rest."""
    payer = scheduled.fleet.organization(balance)
    scheduled.fleet.instance(payer, scheduled.fleet.plan(price))
    scheduled.fleet.hours(6)
    arrived: list[bool] = []
    server = scheduled.fleet.conn.info
    with CommitProxy(server.host, server.port) as proxy:
        proxy.arm("after", interesting=mentions("insert into vps_billing_cycles"))

        def top_up() -> None:
            if proxy.fired and not arrived:
                arrived.append(True)
                scheduled.fleet.top_up(payer, "0.05")

        scheduled.meanwhile(top_up, workers=1, conninfo=proxy.conninfo(scheduled.fleet.conninfo))

    assert [True] == arrived
    assert not scheduled.fleet.rows("select from vps_billing_cycles where status = 'failed'")
    scheduled.judge()


def test_two_slices_of_an_organization_take_turns(scheduled: ScheduledFleet) -> None:
    """The second waits for the wallet, wherever the first is: else its entry is cut from a carry that changes below it."""
    organization, plan = scheduled.fleet.organization("100.00"), scheduled.fleet.plan("3.65")
    # A cent and a half for each slice: whatever was carried, the first changes what the second has to take off.
    for _ in range(6):
        scheduled.fleet.instance(organization, plan)
    for after in statements(scheduled):
        scheduled.fleet.hours(1)
        first: list[int] = []
        seen: list[int] = []

        def watch(after: int = after, first: list[int] = first, seen: list[int] = seen) -> None:
            first.append(threading.get_ident())
            if threading.get_ident() == first[0]:
                seen.append(1)
                if len(seen) == after:
                    # Nobody waits where the second is held back by something that is no lock of the database.
                    with contextlib.suppress(AssertionError):
                        eventually(lambda: scheduled.a_session_waits() or committed(scheduled), seconds=5)

        scheduled.meanwhile(watch, batch_size=3)
    scheduled.judge()


def committed(scheduled: ScheduledFleet) -> bool:
    """Whether the run that is open has a batch behind it."""
    return bool(scheduled.fleet.rows("select from billing_runs where outcome is null and batches > 0"))


def test_a_lease_that_is_taken_over_after_any_statement_charges_nothing_more(
    scheduled: ScheduledFleet,
) -> None:
    """Either the takeover waits for the batch, or the batch is refused; the run that was closed gets nothing more."""
    scheduled.populate()
    for after in statements(scheduled):
        scheduled.fleet.hours(1)
        taken: list[Any] = []

        def take(taken: list[Any] = taken) -> None:
            taken.extend(take_over(scheduled))

        scheduled.run(after, take)
        if taken:
            run, charges = taken
            assert (after, charges) == (after, charges_of(scheduled, run))
        scheduled.fleet.conn.execute("update billing_leases set expires_at = '-infinity'")
    scheduled.judge()


def take_over(scheduled: ScheduledFleet) -> Iterator[Any]:
    """Take the lease as if it had expired, and close the run; yield the run and its charges unless a batch is waited for."""
    try:
        with (
            psycopg.Connection.connect(scheduled.fleet.conninfo, autocommit=True) as thief,
            thief.transaction(),
        ):
            thief.execute("set local lock_timeout = '50ms'")
            thief.execute(
                "update billing_leases set holder = 'thief', fencing_token = fencing_token + 1,"
                " nonce = gen_random_uuid(), expires_at = clock_timestamp() + interval '1 minute'"
            )
            run = thief.execute(
                "update billing_runs set outcome = 'interrupted', finished_at = started_at"
                " where outcome is null returning id"
            ).fetchone()
    except psycopg.errors.LockNotAvailable:
        return
    assert run is not None
    yield run[0]
    yield charges_of(scheduled, run[0])


def charges_of(scheduled: ScheduledFleet, run: int) -> int:
    return int(scheduled.fleet.rows("select count(*) from vps_billing_cycles where run_id = %s", run)[0][0])


@pytest.mark.parametrize("where", ["after", "during", "before"])
def test_any_commit_may_be_cut(scheduled: ScheduledFleet, where: Where) -> None:
    """An answer that is lost is no answer: the second attempt starts from the rows, and posts nothing of the first."""
    scheduled.populate()
    owing = scheduled.fleet.rows("select organization_id from wallets where past_due_since is not null")[0][0]
    server = scheduled.fleet.conn.info
    with CommitProxy(server.host, server.port) as proxy:
        conninfo = proxy.conninfo(scheduled.fleet.conninfo)
        for batch_size in (1, 1000):
            for skip in range(8):
                if skip % 2:
                    scheduled.fleet.top_up(owing, str(-scheduled.fleet.balance(owing)[0]))
                scheduled.fleet.hours(1 + skip % 2)
                if skip % 2:
                    scheduled.fleet.bill()
                    scheduled.fleet.top_up(owing, "0.50")
                before = proxy.fired
                proxy.arm(where, interesting=of_a_worker, skip=skip)
                scheduled.run(conninfo=conninfo, batch_size=batch_size)
                proxy.disarm()
                scheduled.fleet.bill()
                if proxy.fired == before:
                    break
    scheduled.judge()


def test_a_process_may_die_after_any_statement(scheduled: ScheduledFleet) -> None:
    """Whole batch or none, whatever the number of its transactions."""
    scheduled.populate()

    def die() -> None:
        raise Killed

    for after in statements(scheduled):
        scheduled.fleet.hours(1 + after % 2)
        scheduled.run(after, die)
    scheduled.judge()


def test_money_may_move_after_any_statement(scheduled: ScheduledFleet) -> None:
    """A top-up is never overwritten, and what a manual debit took away first is past due, not a balance below zero."""
    _, small = scheduled.populate()
    for after in statements(scheduled):
        richer, poorer = scheduled.fleet.organization("0.06"), scheduled.fleet.organization("0.06")
        subjects = [scheduled.fleet.instance(organization, small) for organization in (richer, poorer)]
        scheduled.fleet.hours(6)

        def move(richer: UUID = richer, poorer: UUID = poorer) -> None:
            scheduled.beside(move_money(richer, "5.00"))
            scheduled.beside(move_money(poorer, "-0.05"))

        scheduled.run(after, move)
        for subject in subjects:
            scheduled.fleet.delete(subject)
    scheduled.judge()


@pytest.mark.parametrize("hours", [1.25, 2.25])
def test_an_instance_may_change_after_any_statement(scheduled: ScheduledFleet, hours: float) -> None:
    """Instances are not locked: a segment that ends between charge and advance is charged once, at what it was."""
    instances, small = scheduled.populate()
    organization = scheduled.fleet.rows(
        "select organization_id from vps_instances where id = %s", instances[0]
    )[0][0]
    dear = scheduled.fleet.plan("9.10")
    for after in statements(scheduled):
        stopped, resized, deleted = (scheduled.fleet.instance(organization, small) for _ in range(3))
        scheduled.fleet.hours(1)
        scheduled.fleet.bill()

        def change(stopped: UUID = stopped, resized: UUID = resized, deleted: UUID = deleted) -> None:
            scheduled.later()
            scheduled.beside(set_to("status", "stopped", stopped))
            scheduled.beside(set_to("plan_id", dear, resized))
            scheduled.beside(lambda host: host.execute("delete from vps_instances where id = %s", (deleted,)))

        scheduled.fleet.hours(hours)
        scheduled.run(after, change)
        scheduled.fleet.delete(resized)
    scheduled.judge()
