"""Schedule of the daemon: ticks and retries, as arithmetic on seconds without a clock.

The ticks are points of one grid, start + n × interval, and never "the end of the last run + interval": a minute
lost in each run would have moved the hour by half a day within a month. A run that is longer than the interval
leaves out the ticks that it covered. Nothing is lost with them, because what is due is a question to the rows and
not to the schedule.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Schedule:
    """A grid of ticks: the first one, in seconds of the clock that the caller waits by, and the distance of two."""

    start: float
    interval_seconds: float

    def next_after(self, moment: float) -> float:
        """Return the first tick that is later than `moment`."""
        return self.start + (self._passed(moment) + 1) * self.interval_seconds

    def skipped(self, due: float, moment: float) -> int:
        """Count the ticks after `due` that have passed at `moment`: those that a long run has covered."""
        return max(0, self._passed(moment) - self._passed(due))

    def every(self, interval_seconds: float, moment: float) -> Schedule:
        """Return a schedule with another interval, counted from the last tick before `moment`."""
        if interval_seconds == self.interval_seconds:
            return self
        return replace(
            self, start=self.next_after(moment) - self.interval_seconds, interval_seconds=interval_seconds
        )

    def _passed(self, moment: float) -> int:
        # Waiting ends a little early now and then; a tick that is a millisecond away has come.
        return math.floor((moment - self.start) / self.interval_seconds + 1e-6)


@dataclass(frozen=True, slots=True)
class Agenda:
    """What the loop waits for: the tick it bills for, when it attempts that next, whether that is a repetition."""

    schedule: Schedule
    due: float
    at: float
    retrying: bool = False

    @classmethod
    def beginning(cls, now: float, interval_seconds: float) -> Agenda:
        """Begin with a tick that is due at once."""
        return cls(Schedule(now, interval_seconds), now, now)

    def ran(self, now: float) -> Agenda:
        """A run has taken its tick, and those that it covered, with it."""
        tick = self.schedule.next_after(now)
        return Agenda(self.schedule, tick, tick)

    def failed(self, now: float, retry_seconds: float | None) -> Agenda:
        """The tick is still due: try again after a pause, at the next tick at the latest; None for exactly then."""
        tick = self.schedule.next_after(now)
        at = tick if retry_seconds is None else min(tick, now + retry_seconds)
        return replace(self, at=at, retrying=True)

    def at_once(self, now: float) -> Agenda:
        """Do not wait any longer for a repetition; a tick is waited for all the same."""
        return replace(self, at=min(self.at, now)) if self.retrying else self

    def every(self, interval_seconds: float, now: float) -> Agenda:
        """Go by another interval from the last tick on."""
        schedule = self.schedule.every(interval_seconds, now)
        if schedule is self.schedule:
            return self
        tick = schedule.next_after(now)
        if self.retrying:
            return replace(self, schedule=schedule, at=min(self.at, tick))
        return Agenda(schedule, tick, tick) if self.at > now else replace(self, schedule=schedule)
