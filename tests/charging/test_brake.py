"""The brake's decision, without a database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from containerstacks_billing.charging.brake import Reading, hold_reason

LAST_RUN = datetime(2026, 3, 1, 12, tzinfo=UTC)
FACTOR = Decimal(3)
HOUR = timedelta(hours=1)


def reading(hours: float = 0, host_hours: float | None = None, **changes: Any) -> Reading:
    """What a run saw so many hours after the last: 100 instances of one plan, a cent an hour each."""
    host = hours if host_hours is None else host_hours
    fleet: dict[str, Any] = {
        "instances": 100,
        "rated_instances": 100,
        "hourly_rate": Decimal("1.00"),
        "rates": {"small": Decimal("0.01")},
    }
    return Reading(LAST_RUN + hours * HOUR, LAST_RUN + host * HOUR, **(fleet | changes))


def small_fleet(instances: int, rate: str) -> dict[str, Any]:
    """Instances that cost so much each."""
    return {
        "instances": instances,
        "rated_instances": instances,
        "hourly_rate": instances * Decimal(rate),
        "rates": {},
    }


@pytest.mark.parametrize(
    ("last", "now"),
    [
        pytest.param(None, reading(), id="a database's first run, of any size"),
        pytest.param(reading(), reading(1), id="an hour later"),
        pytest.param(reading(), reading(0.01), id="by hand, half a minute later"),
        pytest.param(reading(), reading(71), id="after an outage of days"),
        pytest.param(reading(), reading(1, **small_fleet(300, "0.01")), id="exactly the factor"),
        pytest.param(reading(**small_fleet(1, "0.01")), reading(1, **small_fleet(4, "0.01")), id="1 to 4"),
        pytest.param(
            reading(**small_fleet(3, "0.01")),
            reading(1, **small_fleet(9, "0.50")),
            id="three small, nine large",
        ),
        pytest.param(reading(**small_fleet(0, "0")), reading(1), id="the first customers"),
        pytest.param(reading(), reading(1, **small_fleet(0, "0")), id="the last customers"),
        pytest.param(
            reading(rates={"small": Decimal(0)}, hourly_rate=Decimal(0)),
            reading(1),
            id="what was free has a price",
        ),
        pytest.param(
            reading(rated_instances=1, hourly_rate=Decimal("0.01"), rates={}),
            reading(1),
            id="prices were unusable at the last run",
        ),
        pytest.param(reading(), reading(1, rates={"large": Decimal(9)}), id="a plan that nobody used before"),
        pytest.param(reading(), reading(-72, 1), id="the database's clock goes back"),
        pytest.param(reading(), reading(1, 49), id="the host's clock jumps ahead"),
        pytest.param(reading(0, -9), reading(0.1), id="another machine billed, whose clock was wrong"),
        pytest.param(reading(72, 0), reading(73, 1), id="ahead, but not since the last run"),
        pytest.param(reading(72, 0), reading(1), id="the database's clock was repaired"),
        pytest.param(reading(), reading(1.2, 1), id="some minutes between the clocks"),
        pytest.param(reading(), reading(1.25, 1), id="exactly what clocks may differ by"),
        pytest.param(
            reading(0.25, 0), reading(1.5, 1), id="exactly what clocks may part by between two runs"
        ),
        pytest.param(
            reading(), reading(1, rates={"small": Decimal("0.03")}), id="exactly the factor on a plan"
        ),
        pytest.param(
            reading(rates={}),
            reading(1, hourly_rate=Decimal("3.00"), rates={}),
            id="exactly the factor on average",
        ),
        pytest.param(
            reading(**small_fleet(1, "0.01")), reading(1, **small_fleet(10, "0.01")), id="exactly the fewest"
        ),
        pytest.param(None, reading(0.25, 0), id="a first run, exactly what clocks may differ by"),
        pytest.param(
            reading(**small_fleet(9, "0.01")), reading(1, **small_fleet(27, "1")), id="nine have no average"
        ),
    ],
)
def test_what_is_no_reason(last: Reading | None, now: Reading) -> None:
    """A brake that holds without need is a brake that people switch off."""
    assert hold_reason(last, now, FACTOR) is None


@pytest.mark.parametrize(
    ("last", "now", "sentence"),
    [
        (
            None,
            reading(2, 1),
            "the database's clock says 2026-03-01 14:00:00 UTC and this host's 2026-03-01 13:00:00 UTC, 1 h 0 min behind",
        ),
        (
            None,
            reading(965 / 3600, 0),
            "the database's clock says 2026-03-01 12:16:05 UTC and this host's 2026-03-01 12:00:00 UTC, 16 min 5 s behind",
        ),
        (
            None,
            reading(901 / 3600, 0),
            "the database's clock says 2026-03-01 12:15:01 UTC and this host's 2026-03-01 12:00:00 UTC, 15 min 1 s behind",
        ),
        (
            reading(),
            reading(24, 0),
            "since the last run the database's clock moved by 1 d 0 h and this host's by 0 min 0 s:"
            " the database says 2026-03-02 12:00:00 UTC",
        ),
        (
            reading(),
            reading(1, -2),
            "since the last run the database's clock moved by 1 h 0 min and this host's by -2 h 0 min:"
            " the database says 2026-03-01 13:00:00 UTC",
        ),
        (
            reading(),
            reading(73, 1),
            "since the last run the database's clock moved by 3 d 1 h and this host's by 1 h 0 min:"
            " the database says 2026-03-04 13:00:00 UTC",
        ),
        (
            reading(),
            reading(1, rates={"small": Decimal("0.1")}, labels={"small": "Small (vc-1)"}),
            "plan Small (vc-1) costs 0.1 per hour, 0.01 at the last run",
        ),
        (
            reading(),
            reading(1, highest={"small": Decimal("0.1")}),
            "plan small cost up to 0.1 per hour since the last run (now 0.01; 0.01 before)",
        ),
        (
            reading(rates={name: Decimal("0.01") for name in "abcde"}),
            reading(1, rates={name: Decimal(1) for name in "abcde"}),
            "plan a costs 1 per hour, 0.01 at the last run; plan b costs 1 per hour, 0.01 at the last run;"
            " plan c costs 1 per hour, 0.01 at the last run; and 2 plans more",
        ),
        (
            reading(rates={name: Decimal("0.01") for name in "abc"}),
            reading(1, rates={name: Decimal(1) for name in "abc"}),
            "plan a costs 1 per hour, 0.01 at the last run; plan b costs 1 per hour, 0.01 at the last run;"
            " plan c costs 1 per hour, 0.01 at the last run",
        ),
        (
            reading(**small_fleet(1, "0.01")),
            reading(1, **small_fleet(11, "0.01")),
            "11 instances are billable, 1 was at the last run",
        ),
        (
            reading(),
            reading(1, instances=301, billable_statuses=("*",)),
            "301 instances are billable, 100 were at the last run",
        ),
        (
            reading(billable_statuses=("stopped", "running")),
            reading(1, instances=301, billable_statuses=("running", "stopped")),
            "301 instances are billable, 100 were at the last run",
        ),
        (
            reading(),
            reading(1, **small_fleet(301, "0.01")),
            "301 instances are billable, 100 were at the last run",
        ),
        (
            reading(billable_statuses=("running",)),
            reading(1, instances=1301, billable_statuses=("*",)),
            "1,301 instances are billable, 100 were at the last run (BILLABLE_STATUSES was running and is *)",
        ),
        (
            reading(),
            reading(1, **small_fleet(100, "0.031")),
            "an instance costs 0.031000 per hour on average, 0.010000 at the last run",
        ),
        (
            reading(**small_fleet(10, "0.01")),
            reading(1, **small_fleet(10, "0.031")),
            "an instance costs 0.031000 per hour on average, 0.010000 at the last run",
        ),
    ],
)
def test_what_is_held_and_what_is_said(last: Reading | None, now: Reading, sentence: str) -> None:
    """The sentence holds the two figures that the decision needs."""
    assert sentence == hold_reason(last, now, FACTOR)


def test_a_fleet_without_a_price_costs_nothing_on_average() -> None:
    """There is nothing to divide by."""
    assert Decimal(0) == reading(rated_instances=0, hourly_rate=Decimal(0)).rate_per_instance
