"""What migrations did to a database, would do to it, and found in it.

Values only. A finding is something the host application left in its tables that billing can live with and an operator
should know of: it is counted and reported with the command to look at it or to fix it, and never stops a migration.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from enum import Enum


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of thing found in the host's data, how often, and what to do about it.

    `count` is None where counting took too long. `command` is SQL to be run with psql, or empty.
    """

    kind: str
    count: int | None
    sentence: str
    command: str


class MigrationState(Enum):
    """Where a migration stands in one database."""

    APPLIED = "applied"
    PENDING = "pending"
    CHANGED = "changed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class MigrationStatus:
    """One schema file and its record; the last two are None while it is pending. A repeatable file has the number 0."""

    version: int
    name: str
    state: MigrationState
    applied_at: datetime | None
    duration_ms: int | None


@dataclass(frozen=True, slots=True)
class PlannedMigration:
    """A pending schema file: its steps, and what they would change and lock in this very database, as sentences."""

    version: int
    name: str
    steps: tuple[str, ...]
    effects: tuple[str, ...]

    @property
    def label(self) -> str:
        """The name with its number: 001_baseline, or code/triggers."""
        return f"{self.version:03}_{self.name}" if self.version else self.name

    @property
    def beside_daemon(self) -> str:
        """What a daemon that bills meanwhile notices of it: a batch waits for the locks, or is waited for."""
        lasting = [effect for effect in self.effects if re.search(r"\babout \d+ s\b", effect)]
        if lasting and not all("concurrently" in effect for effect in lasting):
            return "safe; batches wait as long as is said above"
        if any("locked" in effect and "nothing is locked" not in effect for effect in self.effects):
            return "safe; batches wait for milliseconds"
        return "safe; no batch waits"


@dataclass(frozen=True, slots=True)
class MigrationReport:
    """What one call of migrate applied, oldest first, and the findings afterwards."""

    applied: tuple[MigrationStatus, ...]
    findings: tuple[Finding, ...]
