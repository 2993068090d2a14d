"""The chart of recent runs: a bar for each, drawn by the server. For the public all bars are equally high."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from containerstacks_billing.billing.status import RunRecord

WIDTH = 960
HEIGHT = 120
LONGEST = 48
# Fewer runs than this leave room to their left instead of growing broader.
SLOTS = 12
_SMALLEST = 3.0


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
    def completed(self) -> int:
        """How many of the runs completed."""
        return sum(bar.outcome == "completed" for bar in self.bars)


def chart_of(runs: Sequence[RunRecord], *, figures: bool) -> Chart:
    """Draw runs that come newest first. A run that billed nothing still shows, and a failed one is never small."""
    shown = list(reversed(runs[:LONGEST]))
    highest = max((run.amount for run in shown if run.amount.is_finite()), default=Decimal(0))
    slots = max(len(shown), SLOTS)
    slot = WIDTH / slots
    first = slots - len(shown)
    bars = []
    for number, run in enumerate(shown, start=first):
        share = float(run.amount / highest) if highest > 0 and run.amount.is_finite() else 0.0
        settled = run.outcome in {"completed", None}
        height = max(share * HEIGHT, _SMALLEST) if figures and settled else float(HEIGHT)
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
