"""Time limits from the settings, and what is counted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from containerstacks_billing.settings import settings_from
from containerstacks_billing.status.failover import Reading
from containerstacks_billing.status.model import Health, Limits, limits_of

NOW = datetime(2026, 3, 1, 12, 20, tzinfo=UTC)


def test_instances_that_wait_for_a_decision_are_not_those_of_bad_data() -> None:
    """A quarantined and a held instance; each is counted once."""
    seen = Health(Reading(NOW), quarantine={"held": 2, "no-plan": 3, "no-price": 4})
    assert (2, 7) == (seen.held_instances, seen.quarantined_instances)


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


def test_where_nothing_is_known_nothing_is_counted() -> None:
    """A database without rows has no lease, no event and no quarantined instance."""
    seen = Health(Reading(NOW))
    assert (0, 0) == (seen.held_instances, seen.quarantined_instances)
    assert (0, 0) == (seen.events_pending, seen.events_dead)
    assert (None, 0) == (seen.lease.holder, seen.lease.seconds_left)
