"""What a check finds: a level, a sentence, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from containerstacks_billing.errors import BillingError


class Level(StrEnum):
    """How bad a finding is: billing works, billing works but look here, billing does not work."""

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
    """Report that a check found nothing to do."""
    return Finding(check, Level.OK, message)


def warn(check: str, message: str, hint: str | None = None) -> Finding:
    """Report something to look at that does not keep billing from working."""
    return Finding(check, Level.WARN, message, hint)


def fail(check: str, message: str, hint: str | None = None) -> Finding:
    """Report something that keeps billing from working."""
    return Finding(check, Level.FAIL, message, hint)


def failure(check: str, error: BillingError) -> Finding:
    """Report an error of ours as what keeps billing from working."""
    return fail(check, str(error), error.hint)
