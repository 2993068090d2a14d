"""Who bills, decided from readings: no database, no clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from containerstacks_billing.status.failover import (
    ACTIVE_SENTENCE,
    ApplicationSide,
    Decision,
    Reading,
    decide,
    failover_target,
    heartbeat_is_fresh,
    pause_seconds,
)

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
NINETY = timedelta(minutes=90)


def decision(switch: Any = "auto", **facts: Any) -> Decision:
    return decide(Reading(NOW, **facts), NINETY, switch).decision


@pytest.mark.parametrize(
    ("age", "expected"),
    [
        (timedelta(0), Decision.DAEMON_ACTIVE),
        (timedelta(minutes=89, seconds=59), Decision.DAEMON_ACTIVE),
        (NINETY - timedelta(microseconds=1), Decision.DAEMON_ACTIVE),
        (NINETY, Decision.BILL),
        (NINETY + timedelta(seconds=1), Decision.BILL),
        (timedelta(days=400), Decision.BILL),
    ],
)
def test_a_heartbeat_counts_for_ninety_minutes_and_not_a_microsecond_longer(
    age: timedelta, expected: Decision
) -> None:
    """At 89:59 the daemon is active, at 90:00 it is not."""
    assert expected == decision(heartbeat_at=NOW - age)
    assert (expected is Decision.DAEMON_ACTIVE) == heartbeat_is_fresh(Reading(NOW, NOW - age), NINETY)


def test_an_active_daemon_is_told_in_the_words_that_operators_search_for() -> None:
    """The sentence is a contract."""
    assert "Billing daemon is active, skipping built-in billing" == ACTIVE_SENTENCE
    assert ACTIVE_SENTENCE == decide(Reading(NOW, NOW), NINETY).sentence


def test_without_any_daemon_built_in_billing_bills() -> None:
    """No row in the status table is a daemon that is not there."""
    assert decision() is Decision.BILL
    assert not heartbeat_is_fresh(Reading(NOW), NINETY)


def test_the_sentence_tells_a_silent_daemon_from_one_that_never_was() -> None:
    """The reason distinguishes a service that fell silent from one that was never installed."""
    assert (
        "No billing daemon has ever reported, built-in billing bills" == decide(Reading(NOW), NINETY).sentence
    )
    silent = decide(Reading(NOW, NOW - NINETY), NINETY)
    assert "The billing daemon is silent, built-in billing bills" == silent.sentence


@pytest.mark.parametrize(
    ("minutes", "outcome", "expected"),
    [
        (0, "completed", Decision.NOT_DUE),
        (59, "completed", Decision.NOT_DUE),
        (60, "completed", Decision.BILL),
        (59, "held", Decision.NOT_DUE),
        (60, "held", Decision.BILL),
        (4, "failed", Decision.NOT_DUE),
        (5, "failed", Decision.BILL),
        (0, "interrupted", Decision.BILL),
        (0, None, Decision.BILL),
        (-600, "completed", Decision.NOT_DUE),
    ],
)
def test_the_next_run_is_due_an_hour_after_the_last_one(
    minutes: int, outcome: str | None, expected: Decision
) -> None:
    """A run by any replica counts; one that failed, or whose process died, is worth another attempt."""
    assert expected == decision(built_in_run_at=NOW - timedelta(minutes=minutes), built_in_outcome=outcome)


def test_a_returning_heartbeat_ends_built_in_billing_whatever_else_is_due() -> None:
    """The daemon comes first."""
    last = NOW - timedelta(hours=5)
    assert Decision.DAEMON_ACTIVE == decision(
        heartbeat_at=NOW, built_in_run_at=last, built_in_outcome="completed"
    )


@pytest.mark.parametrize(
    ("switch", "debit_days_ago", "expected"),
    [
        ("auto", None, Decision.BILL),
        ("auto", 8, Decision.BILL),
        ("auto", 6, Decision.HOST_BILLS),
        ("on", 0, Decision.BILL),
        ("off", None, Decision.SWITCHED_OFF),
    ],
)
def test_auto_leaves_billing_to_a_host_that_still_debits_by_itself(
    switch: str, debit_days_ago: int | None, expected: Decision
) -> None:
    """Two built-in billers must not wake up for one silence."""
    debit = None if debit_days_ago is None else NOW - timedelta(days=debit_days_ago)
    assert expected == decision(switch, host_debit_at=debit)


def test_a_host_counts_as_billing_for_a_week_after_its_last_debit() -> None:
    """Seven days, and not a microsecond longer."""
    week = timedelta(days=7)
    assert Decision.BILL == decision(host_debit_at=NOW - week)
    assert Decision.HOST_BILLS == decision(host_debit_at=NOW - week + timedelta(microseconds=1))


def side(setting: Any, failover_after: timedelta = NINETY) -> ApplicationSide:
    return ApplicationSide(f"built-in {setting}", setting, failover_after, NOW)


@pytest.mark.parametrize(
    ("settings", "host_debits", "who", "is_sound"),
    [
        ([], False, "nobody", False),
        (["off"], False, "nobody", False),
        (["auto"], False, "built-in", True),
        (["on"], False, "built-in", True),
        (["off", "auto"], False, "built-in", True),
        ([], True, "host", True),
        (["off"], True, "host", True),
        (["auto"], True, "host", True),
        (["on"], True, "both", False),
        (["auto", "on"], True, "both", False),
    ],
)
def test_only_what_has_given_a_sign_of_life_takes_over(
    settings: list[Any], host_debits: bool, who: str, is_sound: bool
) -> None:
    """An application side that looked lately, or a scheduler of the host that debits; none and two are both unsound."""
    sides = tuple(side(setting) for setting in settings)
    reading = Reading(NOW, host_debit_at=NOW if host_debits else None, application_sides=sides)
    target = failover_target(reading, NINETY)
    assert (who, is_sound) == (target.who, target.is_sound)


@pytest.mark.parametrize(
    ("minutes", "host_debits", "expected"),
    [([], False, 15), ([], True, 90), ([30], False, 30), ([30, 20], False, 20), ([120], True, 90)],
)
def test_the_time_of_a_takeover_is_that_of_what_takes_over(
    minutes: list[int], host_debits: bool, expected: int
) -> None:
    """Each application side has its own threshold, the host's scheduler has 90 minutes, and the earliest counts."""
    sides = tuple(side("on", timedelta(minutes=one)) for one in minutes)
    reading = Reading(NOW, host_debit_at=NOW if host_debits else None, application_sides=sides)
    assert timedelta(minutes=expected) == failover_target(reading, timedelta(minutes=15)).after


def test_waiting_ends_when_the_decision_can_change_and_after_a_minute_at_most() -> None:
    """It takes over within a minute and never spins."""
    soon = decide(Reading(NOW, NOW - NINETY + timedelta(seconds=20)), NINETY)
    late = decide(Reading(NOW, NOW), NINETY)
    now = decide(Reading(NOW, NOW - NINETY + timedelta(microseconds=1)), NINETY)
    assert [20.0, 60.0, 1.0] == [pause_seconds(decided) for decided in (soon, late, now)]


@pytest.mark.parametrize(
    ("minutes_ago", "expected"), [(-91, False), (-90, True), (0, True), (10079, True), (10080, False)]
)
def test_a_debit_a_little_ahead_of_the_clock_is_one_of_now(minutes_ago: int, expected: bool) -> None:
    """A clock that was set back by an hour changes nothing; a debit of another age is none."""
    debited = NOW - timedelta(minutes=minutes_ago)
    assert expected == (decision(host_debit_at=debited) is Decision.HOST_BILLS)
