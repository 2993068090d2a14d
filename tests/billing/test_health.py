"""Who bills, to the microsecond, and what is counted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from containerstacks_billing.billing.failover import Reading
from containerstacks_billing.billing.health import Biller, DaemonRow, Health, biller, run_is_late

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


def test_a_run_is_late_from_ninety_minutes_after_the_last_one() -> None:
    """To the microsecond; a daemon that never ran is late at once."""

    def late(last: datetime | None) -> bool:
        row = DaemonRow("d", "running", None, last, True, 1, Decimal(1), Decimal(1), NOW, NOW, None)
        return run_is_late(Health(Reading(NOW, NOW), row), NINETY)

    assert [False, True, True] == [late(NOW - NINETY + INSTANT), late(NOW - NINETY), late(None)]


def test_where_nothing_is_known_nothing_is_counted() -> None:
    """A database without rows has no lease, no event and no instance set aside, and its daemon is late."""
    seen = Health(Reading(NOW))
    assert (0, 0) == (seen.held_instances, seen.quarantined_instances)
    assert (0, 0) == (seen.events_pending, seen.events_dead)
    assert (None, 0) == (seen.lease.holder, seen.lease.seconds_left)
    assert run_is_late(seen, NINETY)
