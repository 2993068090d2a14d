"""The provider's list of instances, read from a CSV file for comparison with the rows of the fleet.

One bad line costs that line alone: it is reported with its number and left out, and the rest is compared.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from containerstacks_billing.errors import ConfigurationError

_LONGEST = 1_000_000
_PROBLEMS_KEPT = 100
# Heading of a column, in lower case and without blanks, to the field that it fills.
_COLUMNS = {
    "id": "provider_instance_id",
    "linode_id": "provider_instance_id",
    "provider_instance_id": "provider_instance_id",
    "provider_id": "provider_instance_id",
    "label": "label",
    "name": "label",
    "plan": "plan",
    "type": "plan",
    "backups": "backups",
    "backups_enabled": "backups",
}
_YES = frozenset({"true", "yes", "1", "on", "enabled", "t", "y", "daily", "weekly"})


@dataclass(frozen=True, slots=True)
class Inventory:
    """What the provider has, by its id; `taken_at` is when the file was written."""

    file: str
    taken_at: datetime
    ids: list[str] = field(default_factory=list)
    labels: list[str | None] = field(default_factory=list)
    plans: list[str | None] = field(default_factory=list)
    backups: list[bool] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    bad_lines: int = 0

    def parameters(self) -> dict[str, object]:
        """Return the values that the statements bind."""
        return {
            "ids": self.ids,
            "labels": self.labels,
            "plans": self.plans,
            "backups": self.backups,
            "taken_at": self.taken_at,
        }


def read_inventory(path: Path) -> Inventory:
    """Read a CSV file whose first line names its columns; `id` is needed, `label`, `plan` and `backups` are used.

    Raises ConfigurationError where there is no such file, no such column, or not one line with an id.
    """
    try:
        taken_at = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            lines, problems, bad = _lines(csv.reader(file), path)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
    if not lines:
        raise ConfigurationError(
            f"{path} has no line with an id, so everything would seem to be missing there",
            hint="Export it again: a heading with a column `id`, and one line for each instance.",
        )
    return Inventory(
        str(path),
        taken_at,
        [one["provider_instance_id"] for one in lines],
        [one.get("label") or None for one in lines],
        [one.get("plan") or None for one in lines],
        [one.get("backups", "").lower() in _YES for one in lines],
        problems,
        bad,
    )


def _lines(reader: Iterator[list[str]], path: Path) -> tuple[list[dict[str, str]], list[str], int]:
    """Return the usable lines by field, what is wrong with the others, and how many those are."""
    names = [_COLUMNS.get(cell.strip().lower().replace(" ", "_")) for cell in next(reader, [])]
    if names.count("provider_instance_id") != 1:
        raise ConfigurationError(
            f"{path} needs one column `id` (or `provider_instance_id`) in its first line",
            hint="Its columns label, plan and backups are used too; all others are ignored.",
        )
    lines: list[dict[str, str]] = []
    problems: list[str] = []
    seen: set[str] = set()
    number = bad = 0
    while True:
        number += 1
        try:
            cells = next(reader)
        except StopIteration:
            return lines, problems, bad
        except csv.Error as error:
            cells, fault = [], f"it is no CSV ({error})"
        else:
            if not any(cells):
                continue
            fault = ""
        line = {name: cell.strip() for name, cell in zip(names, cells, strict=False) if name}
        fault = fault or _fault(line, seen)
        if fault:
            bad += 1
            if len(problems) < _PROBLEMS_KEPT:
                problems.append(f"line {number + 1}: {fault}")
            continue
        seen.add(line["provider_instance_id"])
        lines.append(line)
        if len(lines) > _LONGEST:
            raise ConfigurationError(
                f"{path} has more than {_LONGEST:,} lines, which is no list of instances"
            )


def _fault(line: dict[str, str], seen: set[str]) -> str:
    """Return what is wrong with a line; empty where nothing is."""
    identifier = line.get("provider_instance_id", "")
    if not identifier:
        return "it has no id"
    if any("\0" in cell for cell in line.values()):
        return "it holds a NUL character"
    return f"the id {identifier!r} stands in an earlier line too" if identifier in seen else ""
