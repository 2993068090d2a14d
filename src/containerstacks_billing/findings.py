"""Findings of `doctor` and of installation checks: level, message and hint."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from containerstacks_billing.errors import BillingError


class Level(StrEnum):
    """Severity: OK, WARN (billing works, attention needed) or FAIL (billing does not work)."""

    OK = "OK"
    WARN = "WARN"
    FAIL = "FAIL"


@dataclass(frozen=True)
class Finding:
    """One line of `doctor`; a hint of several lines holds statements to copy."""

    check: str
    level: Level
    message: str
    hint: str | None = None


def ok(check: str, message: str) -> Finding:
    """Return a finding of level OK."""
    return Finding(check, Level.OK, message)


def warn(check: str, message: str, hint: str | None = None) -> Finding:
    """Return a finding of level WARN."""
    return Finding(check, Level.WARN, message, hint)


def fail(check: str, message: str, hint: str | None = None) -> Finding:
    """Return a finding of level FAIL."""
    return Finding(check, Level.FAIL, message, hint)


def failure(check: str, error: BillingError) -> Finding:
    """Return a finding of level FAIL from an error, with its hint."""
    return fail(check, str(error), error.hint)
