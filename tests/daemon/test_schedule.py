"""Ticks on a grid, pauses that grow, complaints that become rare."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containerstacks_billing.backoff import pause_seconds, silence_seconds
from containerstacks_billing.daemon.schedule import Agenda, Schedule


def test_ticks_stay_on_the_grid_however_long_runs_take() -> None:
    """Runs of 7 minutes every 60 begin at 0, 60, 120; nothing drifts."""
    agenda = Agenda.beginning(0, 60)
    begun = []
    for _ in range(4):
        begun.append(agenda.at)
        agenda = agenda.ran(agenda.at + 7)

    assert [0, 60, 120, 180] == begun


def test_a_run_longer_than_the_interval_leaves_out_the_ticks_it_covered() -> None:
    """A run from 0 to 150 covers the ticks 60 and 120; the next begins at 180."""
    agenda = Agenda.beginning(0, 60)

    assert (2, 180) == (agenda.schedule.skipped(agenda.due, 150), agenda.ran(150).at)
    assert [0, 1] == [agenda.schedule.skipped(60, moment) for moment in (110, 150)]


def test_a_failure_leaves_its_tick_due_and_never_waits_beyond_the_next() -> None:
    """After a failure at 10: again at 15, at 60 at the latest, and at once when the reason is gone."""
    agenda = Agenda.beginning(0, 60)

    assert (0, 15) == (agenda.failed(10, 5).due, agenda.failed(10, 5).at)
    assert [60, 60] == [agenda.failed(10, 300).at, agenda.failed(10, None).at]
    assert 11 == agenda.failed(10, 30).at_once(11).at
    assert 60 == agenda.ran(10).at_once(11).at


def test_a_new_interval_counts_from_the_last_tick() -> None:
    """At 70 of an hourly grid in minutes, 30 makes the next tick 90, and 240 makes it 300."""
    agenda = Agenda.beginning(0, 60).ran(10).ran(65)

    assert [90, 300] == [agenda.every(30, 70).at, agenda.every(240, 70).at]
    assert agenda.every(60, 70) is agenda


def test_a_new_interval_postpones_nothing_that_is_due() -> None:
    """A tick that is due now stays due now; a repetition comes when it would have, or at the new tick before it."""
    assert 60 == Agenda.beginning(0, 60).ran(10).every(30, 60).at

    failed = Agenda.beginning(0, 60).failed(10, 30)
    assert [(30, True), (40, True)] == [
        (agenda.at, agenda.retrying) for agenda in (failed.every(30, 20), failed.every(240, 20))
    ]


@given(st.floats(0, 1e9), st.sampled_from([60.0, 300.0, 3600.0, 86400.0]), st.floats(0, 1e7))
def test_the_next_tick_is_later_and_at_most_one_interval_away(
    start: float, interval: float, passed: float
) -> None:
    """At any instant; a tick within a rounding error counts as passed."""
    schedule = Schedule(start, interval)
    wait = schedule.next_after(start + passed) - (start + passed)

    assert 0 < wait <= interval * (1 + 1e-5)


def test_pauses_double_within_bounds_and_differ() -> None:
    """Half of a pause is certain, the other half is chance."""
    assert [1, 2, 4, 8, 10, 10] == [pause_seconds(n, 10, 1) for n in range(1, 7)]
    assert [0.5, 1, 2] == [pause_seconds(n, 10, 0) for n in range(1, 4)]
    assert 60 == pause_seconds(10_000, 60, 1)


def test_a_trouble_is_repeated_after_minutes_that_double_up_to_an_hour() -> None:
    """What was never said is said again as what was said once."""
    assert [60, 60, 120, 240, 480, 960, 1920, 3600, 3600] == [silence_seconds(said) for said in range(9)]
    assert 3600 == silence_seconds(10_000)


@pytest.mark.parametrize("hours", [1, 24, 168])
def test_a_long_outage_is_mentioned_rarely(hours: int) -> None:
    """At once, then after 1, 2, 4 … minutes, then hourly: a week fills no log."""
    times = itertools.accumulate(silence_seconds(said) for said in range(1, 1000))
    mentioned = 1 + sum(1 for at in times if at <= hours * 3600)

    assert mentioned <= 7 + hours
