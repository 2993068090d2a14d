"""`status` and `runs`: who bills and what happened, read with a role that may only read."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from tests.clock import application_side, heartbeat
from tests.command import Command
from tests.daemons import held_lease
from tests.fleet import Fleet

from containerstacks_billing.database import inspect as examination
from containerstacks_billing.database.statements import query
from containerstacks_billing.holds.model import Decision, ReleaseDecision
from containerstacks_billing.holds.release import release
from containerstacks_billing.status.read import quarantine_reasons


@pytest.fixture
def fleet(conn: psycopg.Connection[Any]) -> Fleet:
    return Fleet(conn)


def shown(command: Command, fleet: Fleet, *arguments: str) -> Any:
    """Return the document of a reading verb."""
    done = command(*arguments, "--json", environment={"DATABASE_URL": fleet.conninfo})
    assert (0, "") == (done.returncode, done.stderr)
    return json.loads(done.stdout)


def test_nothing_happened_yet(fleet: Fleet, command: Command) -> None:
    """A new database has no daemon and no run, and is late."""
    document = shown(command, fleet, "status")
    assert (None, None, True) == (document["daemon"], document["lastRun"], document["late"])
    assert {"runs": []} == shown(command, fleet, "runs")
    words = command("status", environment={"DATABASE_URL": fleet.conninfo}).stdout
    assert words.startswith(
        "Nothing bills at present. No billing daemon has ever run on this database. Nothing takes over: "
        "no application side has looked within 5 minutes, and the host debited no wallet within 7 days.\n"
        "warning: There was no successful run yet"
    )


def test_runs_and_what_they_left(fleet: Fleet, command: Command) -> None:
    """The last run and its figures, what is past due, quarantined and held, and when the next run is due."""
    short = fleet.organization("0.02")
    plan = fleet.plan("7.30")
    fleet.instance(short, plan)
    fleet.instance(fleet.organization("10.00"), "no-such-plan")
    fleet.hours(5)
    fleet.bill()
    fleet.at(fleet.now.replace(minute=30))
    document = shown(command, fleet, "status")

    assert ("completed", 1, "0.02", "2.00") == tuple(
        document["lastRun"][key] for key in ("outcome", "instancesBilled", "amount", "hours")
    )
    assert (1, 1, 0, {"no plan": 1}) == tuple(
        document[key] for key in ("pastDueInstances", "quarantinedInstances", "heldInstances", "reasons")
    )
    assert (None, False, {"3": 1}) == (
        document["nextDue"],
        document["late"],
        document["runways"],
    )
    assert [1] == [one["runId"] for one in shown(command, fleet, "runs", "--limit", "5")["runs"]]
    fleet.hours(1.2)
    assert shown(command, fleet, "status")["late"]


def test_the_daemon_is_judged_by_its_newest_heartbeat(fleet: Fleet, command: Command) -> None:
    """Alive within 90 minutes; an infinite heartbeat is none."""
    insert = (
        "insert into billing_daemon_status (daemon_instance_id, status, heartbeat_at) values (%s, %s, %s)"
    )
    fleet.conn.execute(insert, ("broken-1", "running", "infinity"))
    fleet.conn.execute(insert, ("host-7", "running", fleet.now))
    fleet.conn.execute(insert, ("host-6", "stopped", fleet.hours(-1)))
    fleet.hours(1)
    assert ("host-7", True) == tuple(
        shown(command, fleet, "status")["daemon"][key] for key in ("instanceId", "active")
    )
    fleet.hours(1.6)
    assert not shown(command, fleet, "status")["daemon"]["active"]
    words = command("status", environment={"DATABASE_URL": fleet.conninfo}).stdout
    assert (
        "Nothing bills at present: the daemon host-7 is silent, its last heartbeat was 1 h 36 min ago."
        in words
    )


@pytest.mark.parametrize(
    ("minutes", "status", "side", "biller", "takeover", "words"),
    [
        (4, "running", "auto", "daemon", "built-in", "The billing daemon host-1 bills; its last heartbeat was 4 min 0 s ago."),
        (4, "error", "auto", "daemon", "built-in",
         "The billing daemon host-1 reports an error; its last heartbeat was 4 min 0 s ago."),
        (80, "running", "auto", "nobody", "built-in",
         "Nothing bills at present: the daemon host-1 is silent, its last heartbeat was 1 h 20 min ago. "
         "Built-in billing takes over in 10 min 0 s."),
        (80, "stopped", "auto", "nobody", "built-in",
         "Nothing bills at present: the daemon host-1 is stopped, its last heartbeat was 1 h 20 min ago. "
         "Built-in billing takes over in 10 min 0 s."),
        (80, "stopped", "off", "nobody", "nobody",
         "Nothing takes over: an application side has looked within 5 minutes, with BUILT_IN_BILLING=off."),
        (1, "stopped", None, "nobody", "nobody", "Nothing takes over: no application side has looked within 5 minutes"),
    ],
)  # fmt: skip
def test_a_daemon_that_falls_silent_is_said_long_before_a_takeover(
    fleet: Fleet,
    command: Command,
    minutes: int,
    status: str,
    side: str | None,
    biller: str,
    takeover: str,
    words: str,
) -> None:
    """From the third missing heartbeat on it does not bill, nor does one that was stopped; no successor is made up."""
    heartbeat(fleet, timedelta(minutes=minutes), status=status)
    if side is not None:
        application_side(fleet, side)
    document = shown(command, fleet, "status")
    assert (biller, takeover) == (document["biller"], document["takeover"]["by"])
    assert (minutes == 80 and status == "running") is document["daemon"]["silent"]
    said = command("status", environment={"DATABASE_URL": fleet.conninfo}).stdout
    assert words in " ".join(said.split())


def test_built_in_billing_that_bills_is_said(fleet: Fleet, command: Command) -> None:
    """With a daemon that fell silent and without any; the last run says who began it, and the next is the built-in's."""
    environment = {"DATABASE_URL": fleet.conninfo}
    fleet.instance(fleet.organization("10.00"), fleet.plan("7.30"))
    fleet.hours(1)
    fleet.bill(trigger="built-in")
    fleet.at(timedelta(minutes=3))
    words = " ".join(command("status", environment=environment).stdout.split())
    assert words.startswith("Built-in billing bills. No billing daemon has ever run on this database.")
    assert "run 1 by built-in billing, completed 3 min 0 s ago" in words
    assert "Next due in 57 min 0 s" in words
    heartbeat(fleet, timedelta(minutes=92))
    assert "built-in" == shown(command, fleet, "status")["biller"]
    words = command("status", environment=environment).stdout
    assert words.startswith(
        "Built-in billing bills: the daemon host-1 is silent, its last heartbeat was 1 h 32 min ago."
    )


def test_the_next_run_is_the_one_that_the_page_announces(fleet: Fleet, command: Command) -> None:
    """A run by hand does not move the daemon's schedule; without a daemon nothing is due."""
    environment = {"DATABASE_URL": fleet.conninfo}
    fleet.bill(trigger="manual")
    words = " ".join(command("status", environment=environment).stdout.split())
    assert "Next due when a daemon or built-in billing is started" in words
    assert "Last run 1 by hand, completed" in words
    heartbeat(fleet, timedelta(seconds=20))
    fleet.conn.execute(
        "update billing_daemon_status set metadata = jsonb_build_object('next_run_at', %s::text)",
        ((fleet.now + timedelta(minutes=22)).isoformat(),),
    )
    assert (
        f"{fleet.now + timedelta(minutes=22):%Y-%m-%dT%H:%M:%SZ}"
        == shown(command, fleet, "status")["nextDue"]
    )
    assert "Next due in 22 min 0 s" in " ".join(command("status", environment=environment).stdout.split())
    fleet.at(timedelta(minutes=47))
    assert "Next due overdue for 25 min 0 s" in " ".join(
        command("status", environment=environment).stdout.split()
    )


def test_a_long_interval_is_not_late(fleet: Fleet, command: Command) -> None:
    """Every three hours, and 100 minutes ago; two intervals without a run are late."""
    fleet.bill(trigger="daemon")
    fleet.hours(1.7)
    environment = {"DATABASE_URL": fleet.conninfo, "BILLING_INTERVAL_MINUTES": "180"}
    done = command("status", "--json", environment=environment)
    assert not json.loads(done.stdout)["late"]
    fleet.hours(4.4)
    assert json.loads(command("status", "--json", environment=environment).stdout)["late"]


@pytest.mark.parametrize("poison", ["'infinity'", "'-infinity'", "'294000-01-01'", "'0044-03-15 BC'", "null"])
def test_a_date_that_no_calendar_holds_hides_no_daemon(fleet: Fleet, command: Command, poison: str) -> None:
    """Such a row ranks last, and alone it is shown without its dates; `doctor` reads it too."""
    fleet.conn.execute(
        "insert into billing_daemon_status (daemon_instance_id, status, heartbeat_at, started_at, last_run_at)"
        f" values ('odd', 'running', {poison}, {poison}, {poison})"
    )
    daemon = shown(command, fleet, "status")["daemon"]
    assert ("odd", None, None, None, False) == tuple(
        daemon[key] for key in ("instanceId", "heartbeatAt", "startedAt", "lastRunAt", "active")
    )
    assert [("odd", None)] == [(one.instance_id, one.age_seconds) for one in examination.daemons(fleet.conn)]
    heartbeat(fleet)
    assert "host-1" == shown(command, fleet, "status")["daemon"]["instanceId"]
    assert ["host-1", "odd"] == [one.instance_id for one in examination.daemons(fleet.conn)]


def test_after_a_clock_was_set_back_a_heartbeat_is_one_of_now(fleet: Fleet, command: Command) -> None:
    """An hour ahead: the daemon is alive, and is not hidden by one that stopped long ago."""
    heartbeat(fleet, timedelta(days=3), daemon="old", status="stopped")
    heartbeat(fleet, -timedelta(hours=1))
    daemon = shown(command, fleet, "status")["daemon"]
    assert ("host-1", f"{fleet.now:%Y-%m-%dT%H:%M:%SZ}", True) == (
        daemon["instanceId"],
        daemon["heartbeatAt"],
        daemon["active"],
    )


def test_the_quarantine_is_counted_where_it_changes(fleet: Fleet) -> None:
    """A run, a run over one organization, a release and a repair: the few rows say what counting all rows says."""
    plan = fleet.plan("7.30")
    organizations = [fleet.organization("100.00") for _ in range(3)]
    for organization in organizations:
        fleet.instance(organization, "no-such-plan")
        fleet.instance(organization, plan)
    fleet.hours(200)

    def counted() -> dict[str, int]:
        rows = fleet.rows(
            "select reason, count(distinct instance_id) as number from billing_quarantine group by reason"
        )
        assert {row.reason: row.number for row in rows} == quarantine_reasons(fleet.conn)
        return quarantine_reasons(fleet.conn)

    fleet.bill()
    assert {"held": 3, "no plan": 3} == counted()
    assert {"held": 1, "no plan": 1} == quarantine_reasons(fleet.conn, organizations[0])
    order = ReleaseDecision(Decision.CHARGE, "anna", "goodwill", organization=organizations[0])
    release(fleet.conninfo, fleet.terms, order, "anna")
    assert {"held": 2, "no plan": 3} == counted()
    fleet.conn.execute("update vps_instances set plan_id = %s where plan_id = 'no-such-plan'", (plan,))
    fleet.bill(organization=organizations[1])
    assert {"held": 3, "no plan": 2} == counted()
    fleet.conn.execute("delete from vps_instances")
    fleet.conn.execute("delete from billing_usage_segments")
    fleet.hours(1)
    fleet.bill()
    assert {} == counted()


def test_a_run_under_way_is_shown(fleet: Fleet, command: Command) -> None:
    """With its holder and how far it is; without a holder, or with a lease from the future, it was left open."""
    fleet.conn.execute(
        "insert into billing_runs (trigger, holder, fencing_token, as_of, host_clock, hours_per_month, batches_planned,"
        " batches, instances_planned, instances_billed) values ('daemon', 'host-7', 1, %s, %s, 730, 4, 1, 10000, 2500)",
        (fleet.now, fleet.now),
    )
    environment = {"DATABASE_URL": fleet.conninfo}
    assert "run 1 was left open by host-7" in command("status", environment=environment).stdout
    fleet.conn.execute(
        "update billing_leases set holder = 'host-7', expires_at = clock_timestamp() + interval '25 hours'"
    )
    assert "run 1 was left open by host-7" in command("status", environment=environment).stdout
    with held_lease(fleet.conninfo, "host-7"):
        words = command("status", environment=environment).stdout
    assert "25%, 2,500 of" in words
    assert all(line == line.rstrip() for line in words.splitlines())


VERBS_OF_TABLES = (
    "status",
    "runs",
    "runways",
    "events",
    "quarantine",
    "prices list",
    "config show",
    "run --dry-run",
)


@pytest.mark.parametrize(
    "columns", [40, *(pytest.param(columns, marks=pytest.mark.slow) for columns in (72, 80))]
)
def test_no_word_and_no_date_is_broken_on_any_terminal(
    fleet: Fleet, on_terminal: Callable[..., tuple[int, str]], command: Command, columns: int
) -> None:
    """A table that does not fit is written as records; a pipe gets whole sentences, however long."""
    organization = fleet.organization("0.20", name="Polaris Observatories and Instruments")
    fleet.instance(organization, fleet.plan("7.30", provider_plan_id="vc2-1c-1gb"))
    fleet.instance(organization, "no-such-plan", label="web-frontend-production")
    fleet.hours(100)
    fleet.instance(organization, fleet.plan("7.30"))
    fleet.hours(1)
    fleet.bill()
    environment = {"DATABASE_URL": fleet.conninfo}
    for verb in VERBS_OF_TABLES:
        _, shown = on_terminal(*verb.split(), environment=environment, columns=columns)
        # An id to copy is in one piece on any terminal.
        lines = [line for line in shown.splitlines() if "provider_plan_id" not in line]
        assert max(map(len, lines)) <= columns, shown
        assert not re.search(r"2026-0$|2026-$|\b20$|instance_$|^ *quarantined +\d", shown, re.MULTILINE), (
            shown
        )
        if verb in ("runways", "events"):
            piped = command(verb, environment=environment).stdout
            for word in ("Balance", "Empty at (UTC)", "instance_quarantined", "2026-03-05 05:00"):
                assert (word in piped) == (word in shown), shown
    sentence = (
        "hours are due, more than MAX_CATCH_UP_HOURS (72): decide with containerstacks-billing release\n"
    )
    assert sentence in command("quarantine", environment=environment).stdout


def test_runs_of_a_large_fleet_fit_a_terminal(
    fleet: Fleet, on_terminal: Callable[..., tuple[int, str]]
) -> None:
    """One line a run at 80 columns, amounts to the cent, however large they are."""
    fleet.conn.execute(
        "insert into billing_runs (id, trigger, holder, fencing_token, as_of, host_clock, hours_per_month, outcome,"
        " finished_at, instances_billed, hours, amount) overriding system value"
        " values (87660, 'built-in', 'host-7', 1, %(now)s, %(now)s, 730, 'completed', %(now)s, 25000, 25000.25,"
        " 1234.56785999)",
        {"now": fleet.now},
    )
    _, shown = on_terminal("runs", environment={"DATABASE_URL": fleet.conninfo})
    heading, _, row = shown.rstrip().splitlines()[-3:]
    assert [
        "Run",
        "As",
        "of",
        "(UTC)",
        "By",
        "Outcome",
        "Instances",
        "Hours",
        "Amount",
        "USD",
    ] == heading.split()
    at = f"{fleet.now:%m-%d %H:%M:%S}"
    assert ["87660", *at.split(), "built-in", "completed", "25,000", "25,000.25", "1,234.56"] == row.split()


def test_a_role_that_may_only_read_is_enough(fleet: Fleet, command: Command, role: str) -> None:
    """SELECT on the tables, nothing else."""
    fleet.conn.execute(
        sql.SQL("grant select on all tables in schema public to {}").format(sql.Identifier(role))
    )
    url = make_conninfo(fleet.conninfo, user=role, password=role)
    for verb in ("status", "runs"):
        done = command(verb, environment={"DATABASE_URL": url})
        assert (0, "") == (done.returncode, done.stderr)


def test_a_role_without_rights_is_told_so_in_our_words_alone(
    fleet: Fleet, command: Command, role: str
) -> None:
    """Not in those of the driver, which warns of what it ends in the same breath."""
    url = make_conninfo(fleet.conninfo, user=role, password=role)
    for verb in ("status", "runs", "events", "quarantine"):
        done = command(verb, environment={"DATABASE_URL": url})
        assert 78 == done.returncode
        assert done.stderr.startswith("error: The database role may not do this: permission denied")
        assert "psycopg" not in done.stderr


def test_the_status_reads_no_large_table() -> None:
    """Charges, ledger entries, instances and wallets grow with the fleet; the status never looks at them."""
    names = ("newest_daemon", "runs_before", "last_run_of_fleet", "events_waiting", "newest_heartbeat", "last_built_in_run",
             "application_sides", "lease_holder", "last_counts", "last_ended_run", "last_success", "open_run_record",
             "quarantine_reasons", "runway_levels")  # fmt: skip
    large = re.compile(
        r"\b(vps_billing_cycles|payment_transactions|vps_instances|wallets|billing_usage_segments|billing_quarantine)\b"
    )
    assert [] == [name for name in names if large.search(query(name))]


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("quarantine_first", "billing_quarantine_oldest"),
        ("past_due_first", "billing_runways_owing"),
        ("past_due_first", "vps_billing_cycles_past_due_hours"),
        ("runways_first", "billing_runways_ending"),
        ("newest_debit_of_host", "payment_transactions_debits_of_host"),
        ("last_built_in_run", "billing_runs_built_in"),
        ("last_success", "billing_runs_outcome"),
    ],
)
def test_the_lists_of_the_page_are_read_by_index(fleet: Fleet, name: str, index: str) -> None:
    """Each index serves its question: the first rows are found without sorting or looking at the others."""
    with fleet.conn.transaction():
        for way in ("seqscan", "bitmapscan", "sort", "hashjoin", "mergejoin"):
            fleet.conn.execute(f"set local enable_{way} = off")
        plan = fleet.conn.execute(("explain " + query(name)).encode(), {"limit": 8}).fetchall()
    assert any(index in line for (line,) in plan), plan


def test_watching_ends_with_ctrl_c(fleet: Fleet, tmp_path: Path) -> None:
    """It shows the status at once and again, and Ctrl-C is no failure."""
    with subprocess.Popen(
        [sys.executable, "-m", "containerstacks_billing", "status", "--watch"],
        cwd=tmp_path,
        env={"DATABASE_URL": fleet.conninfo, "HOME": str(tmp_path), "TERM": "xterm", "FORCE_COLOR": "1"},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert "No billing daemon" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert 0 == process.wait(180)


STATUS_CHECKS = [
    """SELECT
  daemon_instance_id,
  status,
  last_run_at,
  last_run_success,
  instances_billed,
  total_amount,
  heartbeat_at,
  EXTRACT(EPOCH FROM (NOW() - heartbeat_at))/60 as minutes_since_heartbeat
FROM billing_daemon_status
ORDER BY heartbeat_at DESC
LIMIT 1;""",
    """SELECT error_message, last_run_at
FROM billing_daemon_status
WHERE error_message IS NOT NULL
ORDER BY last_run_at DESC
LIMIT 5;""",
    "SELECT COUNT(*) FROM vps_instances WHERE status = 'running';",
    """SELECT
  daemon_instance_id,
  heartbeat_at,
  EXTRACT(EPOCH FROM (NOW() - heartbeat_at))/60 as minutes_since_heartbeat
FROM billing_daemon_status
ORDER BY heartbeat_at DESC
LIMIT 1;""",
    "TRUNCATE TABLE billing_daemon_status;",
]


def test_the_statements_of_the_handbook_work(fleet: Fleet, command: Command) -> None:
    """Operators copy them into psql; after the last one the status is that of a database without a daemon."""
    fleet.conn.execute(
        "insert into billing_daemon_status (daemon_instance_id, status, heartbeat_at, error_message)"
        " values ('host-7', 'error', now(), 'away')"
    )
    found = [fleet.conn.execute(statement.encode()) for statement in STATUS_CHECKS]
    assert [1, 1, 1, 1] == [answer.rowcount for answer in found[:4]]
    assert shown(command, fleet, "status")["daemon"] is None
