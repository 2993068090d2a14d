"""`run` as operators meet it: one process, eight at once, stopped, killed, and rehearsed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.command import Command
from tests.daemons import eventually, held_lease, waits_for_lock
from tests.fleet import Fleet
from tests.forked import Forked, fork_server

from containerstacks_billing import text
from containerstacks_billing.charging.dry_run import dry_run
from containerstacks_billing.charging.forecast import Limits
from containerstacks_billing.charging.model import Outcome

KEYS = {
    "runId", "outcome", "trigger", "asOf", "instancesBilled", "hours", "amount", "pastDueInstances",
    "quarantinedInstances", "heldInstances", "batches", "durationSeconds",
}  # fmt: skip
TABLES = (
    "vps_instances", "vps_billing_cycles", "payment_transactions", "wallets", "vps_plans", "plan_price_versions",
    "billing_usage_segments", "billing_quarantine", "billing_policies", "billing_runs", "billing_leases",
    "billing_events", "billing_runways",
)  # fmt: skip
SMALL_BATCHES = {"BILLING_BATCH_SIZE": "1", "BILLING_WORKERS": "1"}


@pytest.fixture
def fleet(conn: psycopg.Connection[Any]) -> Fleet:
    return Fleet(conn)


@pytest.fixture
def start(tmp_path: Path, fleet: Fleet) -> Iterator[Any]:
    """A function that starts `run` on the fleet's database as a process of its own and does not wait for it."""
    started: list[subprocess.Popen[str]] = []

    def popen(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
        clean = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "DATABASE_URL": fleet.conninfo}
        process = subprocess.Popen(
            [sys.executable, "-m", "containerstacks_billing", "run", *arguments],
            cwd=tmp_path,
            env={**clean, **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield popen
    for process in started:
        with process:
            process.kill()


@contextlib.contextmanager
def blocked(fleet: Fleet, statement: str, *values: Any) -> Iterator[None]:
    """Hold a lock in another transaction until the block ends."""
    with psycopg.connect(fleet.conninfo) as other:
        other.execute(statement, values or None)
        yield
        other.rollback()


def wait_until_blocked(fleet: Fleet, process: subprocess.Popen[str] | Forked) -> None:
    """Return when a connection of the product waits for a lock."""
    eventually(lambda: process.poll() is not None or waits_for_lock(fleet.conn, "containerstacks-billing%"))
    assert process.poll() is None, f"it ended with {process.returncode}"


def three_organizations(fleet: Fleet) -> list[Any]:
    """Three organizations with one instance each, two hours due at one cent, in the order of their batches."""
    plan = fleet.plan("7.30")
    organizations = sorted(fleet.organization("10.00") for _ in range(3))
    for organization in organizations:
        fleet.instance(organization, plan)
    fleet.hours(2)
    return organizations


def test_a_second_run_says_that_all_is_billed(fleet: Fleet, command: Command) -> None:
    """The document has the keys that scripts rely on; people read it in one sentence."""
    three_organizations(fleet)
    environment = {"DATABASE_URL": fleet.conninfo}
    first = command("run", "--json", environment=environment)
    second = command("run", environment=environment)

    document = json.loads(first.stdout)
    assert document.keys() >= KEYS
    assert ("completed", 3, "0.06", "0.06") == tuple(
        document[key] for key in ("outcome", "instancesBilled", "amount", "debited")
    )
    assert second.stdout.startswith("Run 2 completed: 0 charged, all already billed.\n")
    assert (0, 0) == (first.returncode, second.returncode)


def test_a_run_that_could_charge_nothing_says_what_waits_for_whom(fleet: Fleet, command: Command) -> None:
    """Nothing is billed already where all is held, quarantined or past due, nor where there is no instance."""
    environment = {"DATABASE_URL": fleet.conninfo}

    def told(*arguments: str) -> list[str]:
        return [
            command("run", *arguments, *more, environment=environment).stdout.splitlines()[0]
            for more in (("--dry-run",), ())
        ]

    def both(sentence: str, run: int) -> list[str]:
        return [
            f"A run would charge nothing now: {sentence}.",
            f"Run {run} completed: 0 charged; {sentence}.",
        ]

    plan, rich, poor = fleet.plan("7.30"), fleet.organization("9.00"), fleet.organization("0.00")
    assert both("there is no instance to bill", 1) == told()
    fleet.instance(rich, plan)
    fleet.hours(100)
    assert both("1 instance waits for a decision", 2) == told()
    fleet.instance(rich, "no-such-plan")
    fleet.hours(1)
    assert both("2 instances wait for a decision or a repair", 3) == told()
    fleet.instance(poor, plan)
    fleet.hours(1)
    assert both("1 instance is past due, 2 instances wait for a decision or a repair", 4) == told()
    assert both("1 instance is past due", 5) == told("--organization", str(poor))
    fleet.instance(rich, plan)
    assert [
        "A run would charge nothing now: all is already billed.",
        "Run 6 completed: 0 charged, all already billed.",
    ] == told()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_finishes_the_batch_under_way(fleet: Fleet, start: Any, number: int, code: int) -> None:
    """Stopped in its first of three batches, the run charges that one, says so, and leaves the rest to the next."""
    first, *_ = three_organizations(fleet)
    with blocked(fleet, "select from wallets where organization_id = %s for update", first):
        process = start("--json", environment=SMALL_BATCHES)
        wait_until_blocked(fleet, process)
        process.send_signal(number)
        assert process.stderr.readline() == "Stopping after the batches under way.\n"
        process.send_signal(number)
    document = json.loads(process.communicate()[0])

    assert (code, "interrupted", 1, 1) == (
        process.returncode, document["outcome"], document["batches"], document["instancesBilled"],
    )  # fmt: skip
    assert 2 == fleet.bill().instances_billed
    assert [("01 00:00", "01 02:00", "0.02", "billed")] * 3 == fleet.charges()


def test_a_signal_ends_the_wait_for_another_biller(fleet: Fleet, start: Any) -> None:
    """A run that waits for the lease charges nothing and ends with the signal's code; after too long a wait, with 75."""
    three_organizations(fleet)
    with held_lease(fleet.conninfo, "other-1"):
        patient, impatient = start(), start("--wait", "0")
        assert patient.stderr.readline().startswith("other-1 is billing now; waiting up to 90 s")
        patient.send_signal(signal.SIGINT)
        assert (130, 75) == (patient.wait(180), impatient.wait(180))
    assert "other-1 is billing now" in impatient.stderr.read()
    assert [] == fleet.charges()


def test_eight_runs_at_once_charge_each_hour_once(fleet: Fleet, start: Any) -> None:
    """All eight end well, one after another; together they charged what one would have."""
    organizations = three_organizations(fleet)
    processes = [start("--json", environment=SMALL_BATCHES) for _ in range(8)]
    documents = [json.loads(process.communicate(timeout=180)[0]) for process in processes]

    assert [0] * 8 == [process.returncode for process in processes]
    assert [0] * 7 + [3] == sorted(document["instancesBilled"] for document in documents)
    assert [("01 00:00", "01 02:00", "0.02", "billed")] * 3 == fleet.charges()
    assert {(Decimal("9.98"), Decimal(0))} == {fleet.balance(one) for one in organizations}


KILLED_AT = [
    "lock table billing_policies in access exclusive mode",
    "lock table billing_runs in share row exclusive mode",
    "lock table vps_billing_cycles in share row exclusive mode",
    "lock table payment_transactions in share row exclusive mode",
    "lock table billing_quarantine in access exclusive mode",
    "select from billing_runs for update",
    *[f"select from wallets where organization_id = (select id from organizations order by id offset {n} limit 1) for update" for n in range(7)],
    *[f"select from vps_instances where organization_id = (select id from organizations order by id offset {n} limit 1) for update" for n in range(7)],
]  # fmt: skip


def test_a_run_that_is_killed_loses_and_doubles_nothing(
    fleet: Fleet, tmp_path: Path, command: Command
) -> None:
    """Killed at twenty planted moments, an hour apart, then run to the end: the ledger is that of twenty quiet hours."""
    plan = fleet.plan("7.30")
    organizations = [fleet.organization("10.00") for _ in range(7)]
    for organization in organizations:
        fleet.instance(organization, plan)
    environment = {"PATH": os.environ["PATH"], "DATABASE_URL": fleet.conninfo, **SMALL_BATCHES}
    for moment in KILLED_AT:
        fleet.hours(1)
        with blocked(fleet, moment), (tmp_path / "log").open("ab") as log:
            streams = (0, log.fileno(), log.fileno())
            process = fork_server().start(["run"], tmp_path, environment, streams)
            wait_until_blocked(fleet, process)
            process.kill()
            process.wait(180)
        # Nobody else bills while the dead process holds the lease; thirty seconds later it has expired.
        fleet.conn.execute("update billing_leases set expires_at = '-infinity'")
    final = command("run", "--json", environment={"DATABASE_URL": fleet.conninfo})
    books = command("verify", "--json", environment={"DATABASE_URL": fleet.conninfo})

    assert 20 == len(KILLED_AT)
    assert "completed" == json.loads(final.stdout)["outcome"]
    hours = fleet.rows(
        "select vps_instance_id, sum(extract(epoch from billing_period_end - billing_period_start)) / 3600 as hours,"
        " sum(total_amount) as amount, min(billing_period_start) as first, max(billing_period_end) as last"
        " from vps_billing_cycles where status = 'billed' group by 1"
    )
    assert [(20, Decimal("0.20"), 20)] * 7 == [
        (row.hours, row.amount, (row.last - row.first).total_seconds() / 3600) for row in hours
    ]
    assert {(Decimal("9.80"), Decimal(0))} == {fleet.balance(one) for one in organizations}
    assert (0, []) == (books.returncode, json.loads(books.stdout)["discrepancies"])


def troubled_fleet(fleet: Fleet) -> None:
    """A fleet with everything in it: debts, a short wallet, slices, a resize, a raised price, bad data, a held instance."""
    fleet.terms = replace(fleet.terms, brake_factor=Decimal(1000))
    cheap, dear = fleet.plan("7.30"), fleet.plan("73.00")
    indebted, short, large, plain = (
        fleet.organization(balance) for balance in ("0.03", "0.25", "500.00", "9.99")
    )
    old = fleet.instance(indebted, cheap)
    fleet.hours(5)
    fleet.bill()
    fleet.hours(80)
    fleet.set(old, plan_id=dear)
    fleet.top_up(indebted, "0.10")
    for _ in range(9):
        fleet.instance(large, dear)
    for organization in (short, short, plain, plain):
        fleet.instance(organization, cheap)
    resized, stopped = fleet.instance(plain, cheap), fleet.instance(short, dear)
    fleet.instance(plain, "no-such-plan")
    fleet.instance(fleet.organization(None), cheap)
    fleet.hours(1.5)
    fleet.set(resized, plan_id=dear)
    fleet.set(stopped, status="stopped")
    fleet.reprice(cheap, "14.60")
    fleet.hours(3.7)


def checksums(fleet: Fleet) -> dict[str, Any]:
    """Add up every table by content, whatever the place of its rows."""
    return {
        table: fleet.rows(f"select count(*) as rows, sum(hashtext(t::text)) as content from {table} t")[0]
        for table in TABLES
    }


@pytest.mark.parametrize("batch_size", [4, 2500])
def test_a_dry_run_changes_nothing_and_foretells_the_run(fleet: Fleet, batch_size: int) -> None:
    """Every figure of the run, and every wallet, is what the rehearsal said; the database is what it was."""
    troubled_fleet(fleet)
    before = checksums(fleet)
    foretold = dry_run(fleet.order(batch_size=batch_size), Limits(None, None, None))
    assert before == checksums(fleet)

    run = fleet.bill(batch_size=batch_size)
    assert (Outcome.COMPLETED, Outcome.COMPLETED) == (foretold.outcome, run.outcome)
    fields = (
        "instances_billed", "hours", "amount", "past_due_instances", "quarantined_instances", "held_instances",
    )  # fmt: skip
    assert {field: getattr(run, field) for field in fields} == {
        field: getattr(foretold, field) for field in fields
    }
    assert {one.instance: one.reason for one in foretold.quarantine} == fleet.quarantine()
    assert {one.organization: (one.balance, one.carry) for one in foretold.largest} == {
        one.organization: fleet.balance(one.organization) for one in foretold.largest
    }
    owed = {
        row.organization_id: row.owed
        for row in fleet.rows(
            "select organization_id, sum(total_amount) as owed from vps_billing_cycles where status = 'failed' group by 1"
        )
    }
    assert {one.organization: one.owed for one in foretold.short} == owed


def test_a_dry_run_brings_the_changes_of_its_run(fleet: Fleet) -> None:
    """A new BILLABLE_STATUSES is announced, and rehearsed with the segments that it closes."""
    organization = fleet.organization("10.00")
    plan = fleet.plan("7.30")
    fleet.instance(organization, plan)
    fleet.instance(organization, plan, status="stopped")
    fleet.hours(3)
    fleet.bill()
    fleet.hours(2.5)
    fleet.terms = replace(fleet.terms, billable_statuses=("stopped",))
    before = checksums(fleet)
    foretold = dry_run(fleet.order(), Limits())

    assert before == checksums(fleet)
    assert foretold.changes == (
        "BILLABLE_STATUSES changes from running to stopped with the next run; hours before it are charged by the old ones",
    )
    run = fleet.bill()
    assert (1, Decimal("0.025"), Decimal("2.5")) == (run.instances_billed, run.amount, run.hours)
    assert (run.instances_billed, run.amount, run.hours) == (
        foretold.instances_billed, foretold.amount, foretold.hours,
    )  # fmt: skip


def test_a_new_billable_statuses_holds_from_its_run_on_and_is_told(fleet: Fleet, command: Command) -> None:
    """The run that brings it says so, once; the first settings of all hold since ever and are nothing to tell."""
    plan, organization = fleet.plan("7.30"), fleet.organization("10.00")
    fleet.instance(organization, plan)
    fleet.instance(organization, plan, status="stopped")
    told = []
    for statuses in ("running", "*", "*"):
        fleet.hours(2)
        environment = {"DATABASE_URL": fleet.conninfo, "BILLABLE_STATUSES": statuses, "LOG_FORMAT": "logfmt"}
        told.append(command("run", environment=environment).stderr)

    sentence = "The billing policy changed; hours before this run are charged by the old one"
    assert [False, True, False] == [sentence in one for one in told], told
    # Four hours of the stopped one lie before the change: they are never charged.
    assert (
        Decimal(8)
        == fleet.rows(
            "select sum(extract(epoch from billing_period_end - billing_period_start)) / 3600 as hours from vps_billing_cycles"
        )[0].hours
    )


def test_a_dry_run_works_beside_a_biller(fleet: Fleet, command: Command) -> None:
    """It takes no lease: while another process bills, it says what is due, in words and as a document."""
    three_organizations(fleet)
    environment = {"DATABASE_URL": fleet.conninfo}
    with held_lease(fleet.conninfo, "other-1"):
        words = command("run", "--dry-run", environment=environment)
        document = json.loads(command("run", "--dry-run", "--json", environment=environment).stdout)

    assert 0 == words.returncode
    assert words.stdout.startswith("A run would charge 3 instances for 6 hours.\n")
    assert words.stdout.endswith("This was a dry run: nothing was changed.\n")
    assert all(len(line) <= 80 for line in words.stdout.splitlines())
    assert document.keys() >= KEYS
    assert (None, True, 3, "0.06") == tuple(
        document[key] for key in ("runId", "dryRun", "instancesBilled", "amount")
    )


def test_a_fraction_of_an_hour_is_not_nothing() -> None:
    """What rounds to zero was charged all the same."""
    told = [text.hours(Decimal(hours)) for hours in ("0", "0.004", "0.5", "1", "61.528")]
    assert ["0 hours", "less than 0.1 hours", "0.5 hours", "1 hour", "61.53 hours"] == told


def test_a_dry_run_of_one_organization_is_not_compared_with_the_fleet(fleet: Fleet, command: Command) -> None:
    """The last run charged three of them; of one of them alone nothing is "2 instances less"."""
    first, *_ = three_organizations(fleet)
    fleet.bill()
    fleet.hours(1)
    environment = {"DATABASE_URL": fleet.conninfo}
    one = command("run", "--dry-run", "--organization", str(first), environment=environment)
    every = command("run", "--dry-run", environment=environment)
    document = command("run", "--dry-run", "--organization", str(first), "--json", environment=environment)

    assert (False, True) == ("Compared" in one.stdout, "Compared" in every.stdout)
    assert None is json.loads(document.stdout)["lastRun"]


def test_what_a_run_is_asked_for_has_to_exist(fleet: Fleet, command: Command) -> None:
    """An organization that nobody knows, and --all without --dry-run, are usage errors."""
    environment = {"DATABASE_URL": fleet.conninfo}
    unknown = command(
        "run", "--organization", "00000000-0000-0000-0000-000000000001", environment=environment
    )
    alone = command("run", "--all", environment=environment)
    assert (2, 2) == (unknown.returncode, alone.returncode)
    assert "there is no organization 00000000" in unknown.stderr


def test_a_held_run_says_why_and_what_to_do(fleet: Fleet, command: Command) -> None:
    """Forty times as many instances as at the last run: nothing is charged, exit 1."""
    plan, organization = fleet.plan("7.30"), fleet.organization("10.00")
    fleet.instance(organization, plan)
    fleet.hours(1)
    fleet.bill()
    for _ in range(39):
        fleet.instance(organization, plan)
    fleet.hours(1)
    environment = {"DATABASE_URL": fleet.conninfo}
    rehearsed, held = (
        command("run", "--dry-run", environment=environment),
        command("run", environment=environment),
    )

    assert (1, 1) == (rehearsed.returncode, held.returncode)
    assert "A run would be held now: 40 instances are billable, 1 was at the last run." in rehearsed.stdout
    assert held.stdout.startswith("Run 2 is held and charged nothing: 40 instances are billable")
    assert "containerstacks-billing release" in held.stdout
    preview = command("release", "--dry-run", environment=environment)
    assert (0, True) == (preview.returncode, "would charge 40 instances for 40 hours: 0.4" in preview.stdout)
    assert 1 == len(fleet.charges())
