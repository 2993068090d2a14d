"""The brake: whether a run looks so unlike the last one that a person should look first.

It compares three things with the last completed run over the whole fleet: how many instances are billable, what an
instance costs per hour on average, and how far the database's clock advanced while this host's did. The whole fleet is
compared, not what happens to be due: so a run ten minutes after another, the collection of old debts, or an outage that
is caught up, look the same as any hour. A database's first run has nothing to compare with but the clocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

CLOCK_BOUND = timedelta(minutes=15)
FEWEST_INSTANCES = 10


@dataclass(frozen=True, slots=True)
class Reading:
    """What a run saw before its first charge: both clocks, the billable instances, what they cost per hour."""

    as_of: datetime
    host_clock: datetime
    instances: int
    hourly_rate: Decimal

    @property
    def rate_per_instance(self) -> Decimal:
        """Average price of one instance for one hour; zero for an empty fleet."""
        return self.hourly_rate / self.instances if self.instances else Decimal(0)


def objection(last: Reading | None, now: Reading, factor: Decimal) -> str | None:
    """Return the sentence that says why this run must not charge, or None when nothing is unusual.

    `last` is the reading of the last completed run, or the one that an operator released since then.
    """
    return _clock(last, now, factor) or (_fleet(last, now, factor) if last else None)


def _clock(last: Reading | None, now: Reading, factor: Decimal) -> str | None:
    if last is None:
        gap = abs(now.as_of - now.host_clock)
        if gap <= CLOCK_BOUND:
            return None
        return (
            f"the database says {now.as_of:%Y-%m-%d %H:%M:%S %Z} and this host {now.host_clock:%Y-%m-%d %H:%M:%S %Z},"
            f" {_span(gap)} apart"
        )
    database, host = now.as_of - last.as_of, now.host_clock - last.host_clock
    bound = max(CLOCK_BOUND, abs(host) * (float(factor) - 1))
    if abs(database - host) <= bound:
        return None
    return (
        f"since the last run the database's clock moved by {_span(database)} and this host's by {_span(host)}"
    )


def _fleet(last: Reading, now: Reading, factor: Decimal) -> str | None:
    if last.instances and now.instances > max(factor * last.instances, Decimal(FEWEST_INSTANCES)):
        return f"{now.instances:,} instances are billable, {last.instances:,} were at the last run"
    if last.rate_per_instance and now.rate_per_instance > factor * last.rate_per_instance:
        return (
            f"an instance costs {now.rate_per_instance:.6f} per hour on average,"
            f" {last.rate_per_instance:.6f} at the last run"
        )
    return None


def _span(span: timedelta) -> str:
    seconds = int(span.total_seconds())
    sign, seconds = ("-" if seconds < 0 else ""), abs(seconds)
    days, hours, minutes = seconds // 86400, seconds // 3600 % 24, seconds // 60 % 60
    if days:
        return f"{sign}{days} d {hours} h"
    return f"{sign}{hours} h {minutes} min" if hours else f"{sign}{minutes} min {seconds % 60} s"
