"""Report of a fault campaign: faults by kind, seeds, hours, verdict; as text of 80 columns or as JSON."""

from __future__ import annotations

import textwrap
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from tests.faultlab.campaign.round import Report
from tests.faultlab.campaign.schedule import KINDS

_WIDTH = 80
_FINDINGS_SHOWN = 6


@dataclass
class CampaignReport:
    """The rounds so far."""

    first_seed: int
    round_seconds: float
    rate: float
    reports: list[Report] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, report: Report) -> None:
        """Count one more round."""
        self.reports.append(report)

    @property
    def clean(self) -> bool:
        """Whether nothing was found in any round."""
        return not any(report.findings for report in self.reports)

    def replay(self, report: Report) -> str:
        """The command that repeats a round."""
        length = "" if self.round_seconds == 20 else f" --seconds {self.round_seconds:g}"
        density = "" if self.rate == 8 else f" --rate {self.rate:g}"
        return f"./dev faults --rounds 1 --seed {report.seed}{length}{density}"

    def line(self, report: Report) -> str:
        """One line about a round."""
        verdict = (
            f"{len(report.findings)} FINDINGS, the first: {report.findings[0]}"
            if report.findings
            else "clean"
        )
        return (
            f"seed {report.seed}: {report.fired.total()} faults, {report.hours:,.0f} instance-hours,"
            f" {report.seconds:.0f} s: {verdict}"
        )

    def document(self) -> dict[str, Any]:
        """The report as a JSON document."""
        return {
            "verdict": "clean" if self.clean else "found",
            "seeds": [report.seed for report in self.reports],
            "seconds": round(self.seconds, 1),
            "armed": dict(self._sum("armed")),
            "fired": dict(self._sum("fired")),
            "faults": self._sum("fired").total(),
            "instanceHours": str(self._hours()),
            "chargedTwice": str(sum((report.twice for report in self.reports), Decimal(0))),
            "lost": str(sum((report.lost for report in self.reports), Decimal(0))),
            "drifts": sum(report.drifts for report in self.reports),
            "workload": dict(self._sum("workload")),
            "workloadErrors": dict(self._sum("workload_errors")),
            "starts": dict(self._sum("starts")),
            "runs": dict(self._sum("runs")),
            "findings": [
                {"seed": report.seed, "replay": self.replay(report), "lines": report.findings}
                for report in self.reports
                if report.findings
            ],
        }

    def text(self) -> str:
        """The report as text."""
        armed, fired = self._sum("armed"), self._sum("fired")
        lines = [f"{'fault':<24}{'armed':>8}{'fired':>8}"]
        lines += [f"{kind:<24}{armed[kind]:>8,}{fired[kind]:>8,}" for kind in KINDS]
        lines += [f"{'all':<24}{armed.total():>8,}{fired.total():>8,}", ""]
        seeds = [report.seed for report in self.reports]
        runs, workload = self._sum("runs"), self._sum("workload")
        said = (
            f"{len(seeds)} rounds (seeds {seeds[0]} to {seeds[-1]}) in {self.seconds:,.0f} s:"
            f" {self._hours():,.0f} instance-hours charged, {workload.total():,} actions of the host,"
            f" {runs.total():,} runs ({', '.join(f'{count:,} {name}' for name, count in sorted(runs.items()))})."
        )
        lines += textwrap.wrap(said, _WIDTH)
        for report in self.reports:
            if report.findings:
                lines += [
                    "",
                    f"seed {report.seed}: {len(report.findings)} findings; again with",
                    f"  {self.replay(report)}",
                ]
                lines += [f"  {finding}" for finding in report.findings[:_FINDINGS_SHOWN]]
        lines += ["", self._verdict()]
        return "\n".join(lines)

    def _verdict(self) -> str:
        twice = sum((report.twice for report in self.reports), Decimal(0))
        lost = sum((report.lost for report in self.reports), Decimal(0))
        drifts = sum(report.drifts for report in self.reports)
        word = "clean" if self.clean else "NOT CLEAN"
        return f"{word}: {twice:f} instance-hours charged twice, {lost:f} lost, {drifts} wallets adrift"

    def _sum(self, name: str) -> Counter[str]:
        total: Counter[str] = Counter()
        for report in self.reports:
            total.update(getattr(report, name))
        return +total

    def _hours(self) -> Decimal:
        return sum((report.hours for report in self.reports), Decimal(0))
