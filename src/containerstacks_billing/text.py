"""Spans of time, instants, hours and counts in English words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal


def span(time: timedelta) -> str:
    """Return a span in its two largest units, seconds at the least: `2 d 4 h`, `3 min 5 s`; a negative one is `0 s`."""
    seconds = max(int(time.total_seconds()), 0)
    days, hours, minutes = seconds // 86400, seconds // 3600 % 24, seconds // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds % 60} s" if minutes else f"{seconds} s"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun in the singular or plural: `1 instance`, `1,200 instances`, `2 batches`."""
    return f"{number:,} {noun if number == 1 else plural(noun)}"


def plural(noun: str) -> str:
    """Return the regular plural of a noun: instances, batches, policies, discrepancies."""
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}es" if noun.endswith(("ch", "s", "x")) else f"{noun}s"


def minute(at: datetime) -> str:
    """Return an instant in UTC to the minute: `2026-03-01 05:00`."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M}"


def instant(at: datetime) -> str:
    """Return an instant in UTC to the minute, and to the second where it has seconds."""
    at = at.astimezone(UTC)
    return f"{at:%Y-%m-%d %H:%M:%S}" if at.second else minute(at)


def moment(at: datetime) -> str:
    """Return an instant to the second, with its zone: `2026-03-01 05:00:00 UTC`."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def hours(amount: Decimal) -> str:
    """Return hours with their unit: `1 hour`, `61.53 hours`, `less than 0.1 hours`."""
    text = hour_digits(amount)
    if text == "0" and amount > 0:
        return "less than 0.1 hours"
    return "1 hour" if text == "1" else f"{text} hours"


def hour_digits(amount: Decimal, digits: int = 2) -> str:
    """Return a number of hours with so many decimals at most: `61.53`, `1,200`."""
    text = f"{round(amount, digits):,f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
