"""How the page writes instants, durations and money: readable without a script, alive with one.

An instant is a `<time>` whose text is UTC. The script rewrites it in the viewer's zone, leaves UTC in its title, and
lets ages and countdowns run. All of it is escaped; what people entered is isolated, so that letters that are written
from right to left, or marks that claim it, turn nothing around them.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from markupsafe import Markup

_INSTANT = Markup('<time datetime="{iso}" data-show="{show}" title="{utc}">{text}</time>')
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def instant(at: datetime, show: str = "instant") -> Markup:
    """Write an instant: `instant` in full, `clock` as hours and minutes."""
    at = at.astimezone(UTC)
    text = f"{at:%H:%M} UTC" if show == "clock" else f"{at:%d %b %Y, %H:%M} UTC"
    return _INSTANT.format(
        iso=f"{at:%Y-%m-%dT%H:%M:%SZ}", show=show, utc=f"{at:%Y-%m-%d %H:%M:%S} UTC", text=text
    )


def age(at: datetime, now: datetime) -> Markup:
    """Write how long ago an instant was."""
    return _relative(at, "age", f"{duration(now - at)} ago" if now >= at else "now")


def left(at: datetime, now: datetime) -> Markup:
    """Write how long it is until an instant."""
    return _relative(at, "left", f"in {duration(at - now)}" if at > now else "due now")


def countdown(at: datetime, now: datetime) -> Markup:
    """Write hours, minutes and seconds until an instant."""
    seconds = max(int((at - now).total_seconds()), 0)
    text = f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return _relative(at, "countdown", text)


def _relative(at: datetime, show: str, text: str) -> Markup:
    at = at.astimezone(UTC)
    return _INSTANT.format(
        iso=f"{at:%Y-%m-%dT%H:%M:%SZ}", show=show, utc=f"{at:%Y-%m-%d %H:%M:%S} UTC", text=text
    )


def duration(span: timedelta | float) -> str:
    """Write a duration in its two largest units: `1 d 4 h`, `12 min 5 s`; below ten seconds with a decimal."""
    seconds = span.total_seconds() if isinstance(span, timedelta) else span
    if isinstance(span, float) and seconds < 10:
        return f"{max(seconds, 0):.1f} s"
    rest = max(int(seconds), 0)
    for index, (size, unit) in enumerate(_UNITS):
        if rest >= size or size == 1:
            first = f"{rest // size} {unit}"
            # Ages count whole minutes above one, so that a page without a script does not pretend to be exact.
            if size <= 60 or index + 1 == len(_UNITS):
                return first
            next_size, next_unit = _UNITS[index + 1]
            second = rest % size // next_size
            return f"{first} {second} {next_unit}" if second else first
    return "0 s"


def money(amount: Decimal, decimals: int = 2) -> str:
    """Write an amount, rounded for the eye; exact ones are the API's."""
    return f"{amount:,.{decimals}f}"


def whole(number: Decimal | float) -> str:
    """Write a count or hours: whole ones without decimals, others with one."""
    text = f"{number:,.1f}"
    return text.removesuffix(".0")
