"""Calendar months in a time zone, as spans of instants."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo

from containerstacks_billing.errors import BillingError

_MONTH = re.compile(r"([0-9]{4})-(0[1-9]|1[0-2])", re.ASCII)


class MonthRefused(BillingError):
    """A month or a time zone that cannot be read."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Month:
    """A calendar month: `name` is 2026-11, [starts_at, ends_at) are its instants in the time zone `timezone`."""

    name: str
    timezone: str
    starts_at: datetime
    ends_at: datetime

    @property
    def zone(self) -> tzinfo:
        """Return its time zone."""
        return zone_named(self.timezone)


def month_named(name: str, timezone: str = "UTC") -> Month:
    """Read 2026-11; raises MonthRefused for what is no month of the years 2000 to 2999, or no time zone."""
    match = _MONTH.fullmatch(name)
    if match is None or not 2000 <= int(match[1]) < 3000:
        raise MonthRefused(f"{name!r} is no month.", "Write it like 2026-11.")
    year, month = int(match[1]), int(match[2])
    zone = zone_named(timezone)
    begin = datetime(year, month, 1, tzinfo=zone)
    end = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=zone)
    return Month(name, timezone, begin.astimezone(UTC), end.astimezone(UTC))


def month_of(at: datetime, timezone: str = "UTC") -> Month:
    """Return the month in which an instant lies."""
    return month_named(f"{at.astimezone(zone_named(timezone)):%Y-%m}", timezone)


def zone_named(name: str) -> tzinfo:
    """Return a time zone by its name in the tz database; raises MonthRefused."""
    if name == "UTC":
        return UTC
    from zoneinfo import ZoneInfo  # noqa: PLC0415 - only few ask for another zone than UTC

    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        raise MonthRefused(
            f"There is no time zone {name!r} on this machine.",
            "Write it like Europe/Berlin; where the machine has no time zones at all, install its package tzdata.",
        ) from None
