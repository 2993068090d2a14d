"""The chart of recent runs on an axis of time, drawn by the server. For the public all bars are equally high."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from itertools import pairwise
from statistics import median

from containerstacks_billing.status.model import RunRecord
from containerstacks_billing.web.plot import HEIGHT, WIDTH, Gap, highest_shown

LONGEST = 48
# Fewer steps than this leave room to their left instead of growing broader.
SLOTS = 12
ODD = 4
OUTCOMES = ("completed", "interrupted", "held", "failed", "open")
_SMALLEST = 3.0
# A run that ended otherwise and charged nothing is a mark at the base: high enough to see its colour, and no amount.
_MARK = 9.0
_HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Bar:
    """A run as a rectangle in units of the drawing; one that stands far above the rest is cut off."""

    x: float
    y: float
    width: float
    height: float
    outcome: str
    run: RunRecord
    is_cut: bool


@dataclass(frozen=True, slots=True)
class Chart:
    """Bars from the oldest to the newest, the time between them without a run, and the amount of the full height."""

    bars: tuple[Bar, ...]
    gaps: tuple[Gap, ...]
    highest: Decimal

    @property
    def ended(self) -> int:
        """How many of the runs came to an end."""
        return sum(bar.run.outcome is not None for bar in self.bars)

    @property
    def counts(self) -> dict[str, int]:
        """How many runs ended how, in the order of the legend."""
        found = [bar.outcome for bar in self.bars]
        return {outcome: found.count(outcome) for outcome in OUTCOMES if outcome in found}

    @property
    def odd(self) -> tuple[RunRecord, ...]:
        """The last few runs that ended otherwise than completed, the newest first."""
        odd = [bar.run for bar in reversed(self.bars) if bar.outcome not in {"completed", "open"}]
        return tuple(odd[:ODD])

    @property
    def completed(self) -> int:
        """How many of the runs completed."""
        return sum(bar.outcome == "completed" for bar in self.bars)

    @property
    def cut(self) -> tuple[RunRecord, ...]:
        """The runs whose bar is cut off."""
        return tuple(bar.run for bar in self.bars if bar.is_cut)


def chart_of(runs: Sequence[RunRecord], *, figures: bool) -> Chart:
    """Draw runs that come newest first. A run that billed nothing still shows, as a mark at the base."""
    shown = sorted(runs[:LONGEST], key=lambda run: (run.as_of, run.run_id))
    if not shown:
        return Chart((), (), Decimal(0))
    amounts = [float(run.amount) if run.amount.is_finite() else 0.0 for run in shown]
    top = highest_shown(amounts)
    step = _usual_distance(shown)
    last = shown[-1].as_of
    steps = max((last - shown[0].as_of) / step + 1, SLOTS)
    slot = WIDTH / steps
    bars = []
    for run, amount in zip(shown, amounts, strict=True):
        least = _SMALLEST if run.outcome in {"completed", None} else _MARK
        height = max(min(amount / top, 1.0) * HEIGHT if top > 0 else 0.0, least) if figures else float(HEIGHT)
        x = WIDTH - ((last - run.as_of) / step + 1) * slot + slot * 0.14
        bars.append(
            Bar(
                round(x, 1),
                round(HEIGHT - height, 1),
                round(max(slot * 0.72, 1.0), 1),
                round(height, 1),
                run.outcome or "open",
                run,
                figures and amount > top,
            )
        )
    return Chart(tuple(bars), tuple(_gaps(shown, step, slot)), Decimal(round(top, 2)))


def _usual_distance(runs: Sequence[RunRecord]) -> timedelta:
    distances = [(after.as_of - before.as_of).total_seconds() for before, after in pairwise(runs)]
    return max(timedelta(seconds=median(distances)), timedelta(minutes=1)) if distances else _HOUR


def _gaps(runs: Sequence[RunRecord], step: timedelta, slot: float) -> list[Gap]:
    """Return the time between two runs that are farther apart than one and a half steps."""
    last = runs[-1].as_of
    found = []
    for before, after in pairwise(runs):
        missing = (after.as_of - before.as_of) / step - 1
        if missing > 0.5:
            x = WIDTH - (last - before.as_of) / step * slot
            hours = (after.as_of - before.as_of) / _HOUR
            title = f"No run for {hours:,.1f}".removesuffix(".0") + " hours"
            found.append(Gap(round(x, 1), round(missing * slot, 1), title))
    return found
