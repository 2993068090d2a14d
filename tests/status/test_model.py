"""Who bills, to the microsecond, and what is counted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from containerstacks_billing.settings import settings_from
from containerstacks_billing.status.failover import Reading
from containerstacks_billing.status.model import (
    Biller,
    DaemonRow,
    Health,
    Limits,
    biller,
    limits_of,
    run_is_late,
    silent_for,
)

NOW = datetime(2026, 3, 1, 12, 20, tzinfo=UTC)
INSTANT = timedelta(microseconds=1)
HOUR = timedelta(hours=1)
NINETY = timedelta(minutes=90)


@pytest.mark.parametrize(
    ("reading", "expected"),
    [
        (Reading(NOW), Biller.NOBODY),
        (Reading(NOW, NOW - NINETY + INSTANT), Biller.DAEMON),
        (Reading(NOW, NOW - NINETY), Biller.NOBODY),
        (Reading(NOW, NOW, last_run_at=NOW, host_debit_at=NOW), Biller.DAEMON),
        (Reading(NOW, last_run_at=NOW - 2 * HOUR + INSTANT, host_debit_at=NOW), Biller.BUILT_IN),
        (Reading(NOW, last_run_at=NOW - 2 * HOUR), Biller.NOBODY),
        (Reading(NOW, last_run_at=NOW - 2 * HOUR, host_debit_at=NOW), Biller.HOST),
        (Reading(NOW, host_debit_at=NOW), Biller.HOST),
    ],
)
def test_the_daemon_bills_else_who_did_lately(reading: Reading, expected: Biller) -> None:
    """Built-in billing that has left out two hours does not bill any more."""
    assert expected == biller(Health(reading), NINETY)


def test_instances_that_wait_for_a_decision_are_not_those_of_bad_data() -> None:
    """Both are set aside; each is counted once."""
    seen = Health(Reading(NOW), set_aside={"held": 2, "no-plan": 3, "no-price": 4})
    assert (2, 7) == (seen.held_instances, seen.quarantined_instances)


def row(
    last_run: datetime | None = NOW, started: datetime | None = NOW, status: str = "running"
) -> DaemonRow:
    return DaemonRow("d", status, None, last_run, True, 1, Decimal(1), Decimal(1), started, NOW, None)


def test_a_run_is_late_from_ninety_minutes_after_the_last_one() -> None:
    """To the microsecond; a daemon that never ran has as long from its start, and without a start none."""

    def late(last: datetime | None, started: datetime | None = NOW) -> bool:
        return run_is_late(Health(Reading(NOW, NOW), row(last, started)), NINETY)

    assert [False, True] == [late(NOW - NINETY + INSTANT), late(NOW - NINETY)]
    assert [False, True, True] == [late(None), late(None, NOW - NINETY), late(None, None)]


@pytest.mark.parametrize(
    ("failover", "interval", "heartbeat", "silent", "late"),
    [
        (90, 60, 60, 5, 90),
        (90, 89, 60, 5, 90),
        (90, 90, 60, 5, 180),
        (90, 180, 60, 5, 360),
        (90, 1440, 100, 5, 2880),
        (30, 60, 600, 30, 120),
    ],
)
def test_what_is_too_long_follows_the_settings(
    failover: int, interval: int, heartbeat: int, silent: int, late: int
) -> None:
    """Three heartbeats, five minutes at least; a run that is left out, where runs are as far apart as a failover."""
    texts = {
        "FAILOVER_AFTER_MINUTES": str(failover),
        "BILLING_INTERVAL_MINUTES": str(interval),
        "HEARTBEAT_SECONDS": str(heartbeat),
    }
    minutes = [timedelta(minutes=one) for one in (failover, silent, late, interval)]
    assert Limits(*minutes) == limits_of(settings_from(texts))


@pytest.mark.parametrize(
    ("age", "status", "expected"),
    [
        (timedelta(minutes=5) - INSTANT, "running", None),
        (timedelta(minutes=5), "running", timedelta(minutes=5)),
        (timedelta(minutes=80), "error", timedelta(minutes=80)),
        (timedelta(minutes=80), "stopped", None),
        (NINETY, "running", None),
    ],
)
def test_a_daemon_is_silent_from_a_few_heartbeats_until_somebody_takes_over(
    age: timedelta, status: str, expected: timedelta | None
) -> None:
    """One that was stopped is not missed; after the failover it is gone."""
    seen = Health(Reading(NOW, NOW - age), row(status=status))
    assert expected == silent_for(seen, limits_of(settings_from({})))


def test_where_nothing_is_known_nothing_is_counted() -> None:
    """A database without rows has no lease, no event and no instance set aside, and its daemon is late."""
    seen = Health(Reading(NOW))
    assert (0, 0) == (seen.held_instances, seen.quarantined_instances)
    assert (0, 0) == (seen.events_pending, seen.events_dead)
    assert (None, 0) == (seen.lease.holder, seen.lease.seconds_left)
    assert run_is_late(seen, NINETY)
