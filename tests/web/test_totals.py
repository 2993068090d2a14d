"""Counters out of the tables: they go on after a restart and after housekeeping, and promtool has nothing to say."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import psycopg
import pytest
from tests.fleet import Fleet
from tests.web.client import client_of

from containerstacks_billing.daemon.housekeeping import remove_old
from containerstacks_billing.status.totals import add_up_runs
from containerstacks_billing.verification.results import record
from containerstacks_billing.verification.schemas import VerificationDocument
from containerstacks_billing.verification.verify import verify

PREFIX = "containerstacks_billing_"


@pytest.fixture
def fleet(conn: psycopg.Connection[Any]) -> Fleet:
    return Fleet(conn)


def scraped(fleet: Fleet) -> dict[str, str]:
    """The samples of a process that has just started."""
    with client_of(fleet.conninfo) as client:
        lines = client.get("/metrics").text.splitlines()
    return dict(
        line.removeprefix(PREFIX).rsplit(" ", 1)
        for line in lines
        if line.startswith(PREFIX)  # type: ignore[misc]
    )


def test_counters_go_on_while_old_runs_are_removed(fleet: Fleet) -> None:
    """Three runs charge, one fails; what is removed or added up stays counted, once."""
    acme = fleet.organization()
    fleet.instance(acme, fleet.plan("730.00"))
    for _ in range(3):
        fleet.hours(1)
        fleet.bill()
    fleet.conn.execute(
        "insert into billing_runs (trigger, holder, fencing_token, as_of, host_clock, hours_per_month, started_at, finished_at,"
        " outcome) select 'daemon', 'host', 1, as_of, as_of, 730, started_at, started_at + interval '7 seconds', 'failed'"
        " from billing_runs where id = 1"
    )
    fleet.hours(1)
    fleet.bill()
    expected = {
        'runs_total{outcome="failed",trigger="daemon"}': "1.0",
        'charged_amount_total{currency="USD"}': "4.0",
        "charged_usage_seconds_total": "14400.0",
        'run_duration_seconds_bucket{le="5.0"}': "4.0",
        'run_duration_seconds_bucket{le="15.0"}': "5.0",
        "run_duration_seconds_count": "5.0",
        "run_duration_seconds_sum": "7.0",
    }
    before = scraped(fleet)
    assert expected == {name: before.get(name) for name in expected}

    add_up_runs(fleet.conn)
    add_up_runs(fleet.conn)
    fleet.hours(24 * 100)
    assert {"billing_runs": 1} == remove_old(fleet.conn, retention_days=90, instance_id="none")
    after = scraped(fleet)
    assert expected == {name: after.get(name) for name in expected}


def test_a_run_in_progress_is_counted_when_it_has_ended(fleet: Fleet) -> None:
    """What ended after it waits for it, so that nothing is counted twice or left out."""
    fleet.instance(fleet.organization(), fleet.plan("730.00"))
    fleet.hours(1)
    fleet.bill()
    fleet.conn.execute("update billing_runs set outcome = null, finished_at = null where id = 1")
    add_up_runs(fleet.conn)
    assert "0.0" == scraped(fleet)["charged_usage_seconds_total"]
    fleet.conn.execute("update billing_runs set outcome = 'completed', finished_at = started_at where id = 1")
    add_up_runs(fleet.conn)
    assert "3600.0" == scraped(fleet)["charged_usage_seconds_total"]


def test_what_is_owed_waits_and_was_proven_is_told(fleet: Fleet) -> None:
    """One wallet pays for two hours of five; three are past due, and the events about it wait for an hour."""
    fleet.instance(fleet.organization("2.00"), fleet.plan("730.00"))
    fleet.hours(1)
    fleet.bill()
    fleet.hours(4)
    fleet.bill()
    record(fleet.conninfo, VerificationDocument.of(verify(fleet.conninfo)), "ada@host")
    fleet.hours(1)
    found = scraped(fleet)
    assert ("3.0", "1.0", "0.0", "0.0") == (
        found['past_due_amount{currency="USD"}'],
        found['wallets_ending{within="3h"}'],
        found['wallets_ending{within="72h"}'],
        found["last_verify_discrepancies"],
    )
    assert float(found["events_oldest_pending_seconds"]) >= 3600
    assert str(fleet.now.timestamp() - 3600) == str(float(found["last_verify_timestamp_seconds"]))


def test_promtool_has_nothing_to_say(fleet: Fleet) -> None:
    """Names, units and help of every metric are by convention."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is missing: apt-get install prometheus")
    fleet.instance(fleet.organization(), fleet.plan("730.00"))
    fleet.hours(1)
    fleet.bill()
    with client_of(fleet.conninfo) as client:
        text = client.get("/metrics").text
    done = subprocess.run(
        [program, "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)
