"""Who bills, decided from readings: no database, no clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from containerstacks_billing.status.failover import (
    ACTIVE_SENTENCE,
    Decision,
    HeartbeatClamp,
    Reading,
    decide,
    fallback,
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
    """Whoever reads it looks for the service that fell silent, or for one that was never installed."""
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
    assert expected == decision(last_run_at=NOW - timedelta(minutes=minutes), last_outcome=outcome)


def test_a_returning_heartbeat_ends_built_in_billing_whatever_else_is_due() -> None:
    """The daemon comes first."""
    last = NOW - timedelta(hours=5)
    assert Decision.DAEMON_ACTIVE == decision(heartbeat_at=NOW, last_run_at=last, last_outcome="completed")


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


@pytest.mark.parametrize(
    ("switch", "host_debits", "who", "is_sound"),
    [
        ("auto", False, "ours", True),
        ("on", False, "ours", True),
        ("off", False, "nobody", False),
        ("auto", True, "host", True),
        ("on", True, "both", False),
        ("off", True, "host", True),
    ],
)
def test_one_built_in_billing_takes_over_or_somebody_is_told(
    switch: Any, host_debits: bool, who: str, is_sound: bool
) -> None:
    """None at all and two at once are both wrong, and said to be."""
    said = fallback(Reading(NOW, host_debit_at=NOW if host_debits else None), switch)
    assert (who, is_sound) == (said.who, said.is_sound)


def test_waiting_ends_when_the_decision_can_change_and_after_a_minute_at_most() -> None:
    """It takes over within a minute and never spins."""
    soon = decide(Reading(NOW, NOW - NINETY + timedelta(seconds=20)), NINETY)
    late = decide(Reading(NOW, NOW), NINETY)
    now = decide(Reading(NOW, NOW - NINETY + timedelta(microseconds=1)), NINETY)
    assert [20.0, 60.0, 1.0] == [pause_seconds(verdict) for verdict in (soon, late, now)]


def test_a_heartbeat_from_the_future_is_one_of_when_it_was_first_seen() -> None:
    """It counts as fresh, but not for ever: a dead daemon's wrong clock must not switch built-in billing off."""
    clamp = HeartbeatClamp()
    later = NOW + timedelta(hours=2)

    assert NOW == clamp.clamp(NOW, None, "infinity")
    assert NOW == clamp.clamp(later, None, "infinity")
    assert later == clamp.clamp(later, None, "2030-01-01")
    assert None is clamp.clamp(later, None, None)
    assert NOW == clamp.clamp(later, NOW, None)


def test_of_two_heartbeats_the_newer_counts() -> None:
    """One daemon's wrong clock makes another's heartbeat neither newer nor older."""
    clamp = HeartbeatClamp()
    later = NOW + timedelta(hours=2)

    assert NOW == clamp.clamp(NOW, NOW - timedelta(hours=1), "infinity")
    assert later == clamp.clamp(later, later, "infinity")
