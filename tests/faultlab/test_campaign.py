"""The fault campaign in its short form, and what it promises about itself."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any, cast

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from tests.faultlab.__main__ import arguments, campaign
from tests.faultlab.campaign import injection, roles
from tests.faultlab.campaign.campaign_report import CampaignReport
from tests.faultlab.campaign.environment import Environment
from tests.faultlab.campaign.processes import ForkServer
from tests.faultlab.campaign.round import Report
from tests.faultlab.campaign.schedule import KINDS, PER_ROUND, WEIGHTS, Fault, plan_round


def test_faults_are_a_function_of_the_seed() -> None:
    """The same seed plans the same round to the last digit, another seed another one."""
    assert plan_round(7, 20, 8) == plan_round(7, 20, 8)
    assert plan_round(7, 20, 8) != plan_round(8, 20, 8)


def test_every_kind_of_fault_is_planned_in_some_round() -> None:
    """Nothing that is listed is never drawn, and a fault lies inside its round."""
    rounds = [plan_round(seed, 20, 8) for seed in range(20)]
    faults = [fault for one in rounds for fault in one.faults]

    assert set(KINDS) == {fault.kind for fault in faults}
    assert {*WEIGHTS, *PER_ROUND} == set(KINDS)
    assert all(0 < fault.at < 20 for fault in faults)


def test_a_finding_names_the_command_that_replays_it() -> None:
    """In words and in the document; a campaign with a finding is not clean."""
    total = CampaignReport(first_seed=41, round_seconds=20, rate=8)
    total.add(Report(41, fired=Counter({"kill run": 3})))
    assert total.clean
    total.add(Report(42, findings=["something"]))

    assert not total.clean
    assert "./dev faults --rounds 1 --seed 42\n" in total.text()
    assert ["./dev faults --rounds 1 --seed 42"] == [one["replay"] for one in total.document()["findings"]]


def test_the_report_fits_a_terminal() -> None:
    """At most 80 columns, for any numbers."""
    total = CampaignReport(first_seed=1, round_seconds=20, rate=8)
    total.add(
        Report(1, fired=Counter(dict.fromkeys(KINDS, 123_456)), runs=Counter({"daemon completed": 10**6}))
    )

    assert max(len(line) for line in total.text().splitlines()) <= 80
    assert json.loads(json.dumps(total.document()))["faults"] == 123_456 * len(KINDS)


def test_the_billers_of_a_round_have_the_granted_rights_and_no_others(
    conn: psycopg.Connection[Any], database: str, role: str
) -> None:
    """No table, not even a temporary one; no column of the host that billing only reads; nothing of the oracle's."""
    conn.execute("create schema oracle create table prices (id integer)")
    roles.admit_billing(conn, role)
    with psycopg.connect(make_conninfo(database, user=role, password=role), autocommit=True) as biller:
        assert biller.execute("select count(*) from vps_instances").fetchone() == (0,)
        for forbidden in (
            "create table mine (id integer)",
            "create temporary table mine (id integer)",
            "create schema mine",
            "alter table wallets add column mine integer",
            "update vps_plans set base_price = 0",
            "update organizations set name = 'mine'",
            "update payment_transactions set amount = 0",
            "update users set email = 'mine'",
            "select from oracle.prices",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                biller.execute(forbidden)


def test_a_number_that_is_given_out_again_is_not_the_end_of_the_next_process() -> None:
    """A campaign outlives the numbers of the system: what ended under one says nothing about who has it now."""
    said = ['{"spawned": 7}', '{"ended": 7, "status": -9}', '{"spawned": 7}', '{"ended": 8, "status": 0}']
    fork_server = ForkServer.__new__(ForkServer)
    vars(fork_server).update(_process=SimpleNamespace(stdout=said), _answers=SimpleQueue(), _ended={})
    fork_server._read()

    assert (None, 0) == (fork_server.status(7), fork_server.status(8))


def test_a_lock_that_was_not_obtained_leaves_no_session_behind(
    conn: psycopg.Connection[Any], database: str
) -> None:
    """Another session holds the table: the fault has no effect, and its connection is closed."""
    environment = SimpleNamespace(conninfo=database, after=None)
    fault = Fault(at=0.0, kind="lock tables", whom=1, seconds=0.1, count=1, strength=0.5)
    with conn.transaction():
        conn.execute("lock table vps_billing_cycles")

        assert not injection.inject(cast("Environment", environment), fault)


def test_a_missing_right_is_found_in_what_a_biller_said(tmp_path: Path) -> None:
    """In the words of the server and of the product; a fault is no missing right, and a biller may have said nothing."""
    said = [
        'reason="The database role may not do this: permission denied for table wallets."',
        "RightsMissing: The role billing lacks rights on billing_events.",
        'event="Rights are missing that billing can do without"',
    ]
    log = tmp_path / "daemon.log"
    log.write_text("\n".join([said[0], 'reason="the database went away"', *said[1:]]))

    assert said == roles.missing_rights([log, tmp_path / "run.log"])


@pytest.mark.slow
def test_nothing_is_charged_twice_or_lost_under_random_faults() -> None:
    """Real billers for a minute under kills, cuts, restarts and a clock that jumps: 0/0/0, and they live on.

    On a slow machine fewer faults hit something, so only a few are asked for; the long form is `./dev faults`.
    """
    total = campaign(arguments(["--rounds", "3", "--seed", "10", "--seconds", "17", "--rate", "5"]))

    assert 3 == len(total.reports)
    for report in total.reports:
        assert [] == report.findings
        assert (0, 0, 0) == (report.twice, report.lost, report.drifts)
        assert report.hours > 100
        assert report.fired.total() >= 5
