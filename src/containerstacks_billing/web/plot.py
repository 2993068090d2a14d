"""Bars on an axis of time as SVG, drawn by the server: gaps are marked, and one huge bar flattens no other.

A bar that stands far above the rest is cut off at the top and marked; its value is in its title and in the table.
A library for charts would be a hundred kilobytes of script for eight plots that have to be readable without one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

WIDTH = 960
HEIGHT = 120
TICKS = 6
# A bar is cut off when it is this many times the height of the bar below which nine tenths of all stand.
_FAR_ABOVE = 2.5
_SMALLEST = 2.0
_HOUR = timedelta(hours=1)
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Point:
    """A value of the step that begins at an instant; None is not known."""

    at: datetime
    value: float | None


@dataclass(frozen=True, slots=True)
class Bar:
    """A value as a rectangle in units of the drawing."""

    x: float
    y: float
    width: float
    height: float
    title: str
    is_cut: bool


@dataclass(frozen=True, slots=True)
class Gap:
    """Steps without any value as a rectangle, and in words."""

    x: float
    width: float
    title: str


@dataclass(frozen=True, slots=True)
class Tick:
    """An instant of the axis, `percent` of its length from the left."""

    percent: float
    text: str


@dataclass(frozen=True, slots=True)
class Plot:
    """Bars, gaps and ticks; `top` is what the full height stands for, `cut` what stands above it."""

    bars: tuple[Bar, ...]
    gaps: tuple[Gap, ...]
    ticks: tuple[Tick, ...]
    top: str
    latest: str
    cut: tuple[str, ...]
    missing: int

    @property
    def summary(self) -> str:
        """The plot in a sentence, for those who do not see it."""
        if not self.bars:
            return "no values"
        without = f", {self.missing} without a run" if self.missing else ""
        return f"{len(self.bars)} values up to {self.top}, the latest {self.latest}{without}"


def plot_of(
    points: Sequence[Point], start: datetime, end: datetime, step: timedelta, write: Callable[[float], str]
) -> Plot:
    """Place values on the axis from `start` until `end`; what has no value between the first and now is a gap."""
    first = _floor(start, step)
    scale = WIDTH / ((end - first) / step)
    known = [point for point in points if point.at >= first and point.value is not None]
    values = [point.value or 0.0 for point in known]
    top = highest_shown(values)
    bars = []
    for point, value in zip(known, values, strict=True):
        height = max(min(value / top, 1.0) * HEIGHT, _SMALLEST) if top > 0 else _SMALLEST
        x = (point.at - first) / step * scale
        title = f"{label(point.at, step)}: {write(value)}"
        bars.append(
            Bar(
                round(x + scale * 0.1, 2),
                round(HEIGHT - height, 1),
                round(max(min(scale * 0.8, WIDTH - x - scale * 0.1), 0.5), 2),
                round(height, 1),
                title,
                value > top,
            )
        )
    gaps = _gaps(points, first, end, step, scale)
    return Plot(
        tuple(bars),
        tuple(Gap(round(x, 2), round(width, 2), title) for x, width, title, _ in gaps),
        _ticks(first, end),
        write(top),
        write(values[-1]) if values else "",
        tuple(bar.title for bar in bars if bar.is_cut),
        sum(steps for *_, steps in gaps),
    )


def label(at: datetime, step: timedelta) -> str:
    """Write the step that begins at an instant, in UTC."""
    at = at.astimezone(UTC)
    return f"{at:%d %b %Y}" if step >= 24 * _HOUR else f"{at:%d %b %H:%M} UTC"


def highest_shown(values: Sequence[float]) -> float:
    """Return the value of the full height: the greatest, unless a few stand far above the rest."""
    if not values:
        return 0.0
    ordered = sorted(values)
    usual = ordered[int((len(ordered) - 1) * 0.9)]
    greatest = ordered[-1]
    return usual * 1.25 if 0 < usual * _FAR_ABOVE < greatest else greatest


def _gaps(
    points: Sequence[Point], first: datetime, end: datetime, step: timedelta, scale: float
) -> list[tuple[float, float, str, int]]:
    """Return the spans without a run after the first one, until the last whole step before `end`."""
    taken = sorted(point.at for point in points if point.at >= first)
    if not taken:
        return []
    # The present step may still get its run.
    bounds = [*taken, _floor(end, step)]
    found = []
    for before, after in pairwise(bounds):
        steps = round((after - before) / step) - 1
        if steps > 0:
            begin = before + step
            unit = "day" if step >= 24 * _HOUR else "hour" if step == _HOUR else "time"
            title = f"{label(begin, step)}: no run for {steps} {unit}{'s' if steps > 1 else ''}"
            found.append(((begin - first) / step * scale, steps * scale, title, steps))
    return found


def _ticks(first: datetime, end: datetime) -> tuple[Tick, ...]:
    length = end - first
    every = next(
        (width for width in (4 * _HOUR, 24 * _HOUR, 5 * 24 * _HOUR) if length / width <= TICKS + 2),
        61 * 24 * _HOUR,
    )
    at = _floor(first, every) + every
    ticks = []
    while at < end - length * 0.03:
        text = (
            f"{at:%H:%M}"
            if every < 24 * _HOUR
            else f"{at:%d %b}"
            if every < 60 * 24 * _HOUR
            else f"{at:%b %Y}"
        )
        if (at - first) / length > 0.03:
            ticks.append(Tick(round((at - first) / length * 100, 2), text))
        at += every
    return tuple(ticks)


def _floor(at: datetime, step: timedelta) -> datetime:
    return at - (at - _EPOCH) % step
