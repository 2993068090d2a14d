"""Log and report of a compressed day (day.py)."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal

from containerstacks_billing.drill import oracle

LONGEST_GAP_SECONDS = 90.0


@dataclass
class Report:
    """Result of a day."""

    hours: float = 0.0
    speed: float = 0.0
    heartbeat_seconds: int = 60
    suffered: list[str] = field(default_factory=list)
    cuts: int = 0
    changes: int = 0
    beats: int = 0
    away_seconds: float = 0.0
    longest_gap_seconds: float = 0.0
    longest_gap_at_hour: float = 0.0
    memory_kilobytes: list[int] = field(default_factory=list)
    runs: dict[str, int] = field(default_factory=dict)
    runs_lost: int = 0
    one_process: bool = False
    exit_code: int = -1
    verdict: oracle.Verdict | None = None
    findings: list[str] = field(default_factory=list)

    @property
    def memory_growth_kilobytes(self) -> int:
        """How much more memory the daemon had in the last quarter of the day than in the second."""
        quarter = max(len(self.memory_kilobytes) // 4, 1)
        return max(self.memory_kilobytes[-quarter:]) - max(self.memory_kilobytes[quarter : 2 * quarter])

    def judge(self) -> None:
        """Return the faults of the daemon that are not about money."""
        if self.longest_gap_seconds > LONGEST_GAP_SECONDS:
            self.findings.append(f"heartbeats were {self.longest_gap_seconds:.1f} s apart")
        if self.exit_code or not self.one_process:
            self.findings.append("the daemon did not live through the day")

    def text(self) -> str:
        """Return the report as lines."""
        verdict = self.verdict or oracle.Verdict(*[Decimal(0)] * 5)
        runs = ", ".join(f"{count} {how}" for how, count in sorted(self.runs.items()))
        return "\n".join(
            [
                f"day        {self.hours:g} hours at {self.speed:g} times the speed, {self.changes} changes by the host",
                f"suffered   {'; '.join(self.suffered)}; {self.cuts} commits cut",
                f"daemon     {'one process' if self.one_process else 'NOT one process'}, exit {self.exit_code}",
                f"runs       {runs}",
                f"heartbeats {self.beats}, every {self.heartbeat_seconds} s: at most {self.longest_gap_seconds:.1f} s"
                f" apart in database time (hour {self.longest_gap_at_hour:.2f}), beside {self.away_seconds:.0f} s without a server",
                f"memory     {self.memory_kilobytes[0]} KiB early, {self.memory_kilobytes[-1]} at the end,"
                f" {self.memory_growth_kilobytes} more in the last quarter than in the second",
                f"hours      {verdict.due:.2f} due, {verdict.charged:.2f} charged, {verdict.twice:f} twice,"
                f" {verdict.lost:f} lost, {len(verdict.drifts)} drifts",
                *self.findings[:20],
            ]
        )
