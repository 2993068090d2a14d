"""The chart of recent runs: a bar for each, drawn by the server. For the public all bars are equally high."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from containerstacks_billing.status.model import RunRecord

WIDTH = 960
HEIGHT = 120
LONGEST = 48
# Fewer runs than this leave room to their left instead of growing broader.
SLOTS = 12
ODD = 4
OUTCOMES = ("completed", "interrupted", "held", "failed", "open")
_SMALLEST = 3.0
# A run that ended otherwise and charged nothing is a mark at the base: high enough to see its colour, and no amount.
_MARK = 9.0


@dataclass(frozen=True, slots=True)
class Bar:
    """A run as a rectangle in units of the drawing."""

    x: float
    y: float
    width: float
    height: float
    outcome: str
    run: RunRecord


@dataclass(frozen=True, slots=True)
class Chart:
    """Bars from the oldest to the newest, and the amount that the highest stands for."""

    bars: tuple[Bar, ...]
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


def chart_of(runs: Sequence[RunRecord], *, figures: bool) -> Chart:
    """Draw runs that come newest first. A run that billed nothing still shows, as a mark at the base."""
    shown = list(reversed(runs[:LONGEST]))
    highest = max((run.amount for run in shown if run.amount.is_finite()), default=Decimal(0))
    slots = max(len(shown), SLOTS)
    slot = WIDTH / slots
    first = slots - len(shown)
    bars = []
    for number, run in enumerate(shown, start=first):
        share = float(run.amount / highest) if highest > 0 and run.amount.is_finite() else 0.0
        least = _SMALLEST if run.outcome in {"completed", None} else _MARK
        height = max(share * HEIGHT, least) if figures else float(HEIGHT)
        x = number * slot + slot * 0.14
        bars.append(
            Bar(
                round(x, 1),
                round(HEIGHT - height, 1),
                round(slot * 0.72, 1),
                round(height, 1),
                run.outcome or "open",
                run,
            )
        )
    return Chart(tuple(bars), highest)
