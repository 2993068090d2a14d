"""The daemon bills on its own through a day in which its server is restarted, crashes, is out of reach and is replaced."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.faultlab import day
from tests.faultlab.day_log import LONGEST_GAP_SECONDS, Report


def judge(report: Report) -> None:
    print(report.text())
    assert [] == report.findings
    assert report.one_process
    assert 0 == report.exit_code
    assert LONGEST_GAP_SECONDS >= report.longest_gap_seconds
    assert report.cuts > 0
    assert report.runs_lost > 0
    assert report.verdict is not None
    assert report.verdict.charged == report.verdict.due > 0


@pytest.mark.slow
def test_an_hour_of_the_daemon_between_restarts_cuts_and_a_promotion(tmp_path: Path) -> None:
    """The short form: most of an hour at 180 times the speed, billed every two minutes, with a beat each half minute."""
    report = day.live(
        tmp_path,
        hours=0.8,
        speed=180,
        seed=1,
        course=day.SHORT_COURSE,
        HEARTBEAT_SECONDS="30",
        BILLING_INTERVAL_MINUTES="2",
    )
    judge(report)


@pytest.mark.slow
def test_a_day_of_the_daemon_between_restarts_cuts_and_promotions(tmp_path: Path) -> None:
    """Six minutes for 24 hours; its memory stays what it was.

    A machine that runs other tests beside it is late by tenths of a second, which are half a minute here; so the beats come
    twice as often as by default. `python -m tests.faultlab.day` lives the day with the defaults, on a machine left alone.
    """
    report = day.live(tmp_path, hours=24, speed=240, seed=1, HEARTBEAT_SECONDS="30")
    judge(report)
    assert report.memory_growth_kilobytes < 2048
