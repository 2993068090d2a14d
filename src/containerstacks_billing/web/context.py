"""What every handler of one application shares."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request

from containerstacks_billing.clock import Clock
from containerstacks_billing.daemon.built_in import BuiltInBilling
from containerstacks_billing.database.pool import ReadingPool
from containerstacks_billing.settings import Settings
from containerstacks_billing.throttled_log import RecurringError
from containerstacks_billing.web.cache import Readings
from containerstacks_billing.web.rate_limit import FailedAttempts, FailureLog


def _unanswered() -> RecurringError:
    return RecurringError(Clock(), "Requests cannot be answered", "Requests can be answered again")


@dataclass(slots=True)
class Context:
    """Settings, database, connections, failed attempts, the host's clock, and this process's built-in billing."""

    settings: Settings
    conninfo: str
    pool: ReadingPool
    readings: Readings
    built_in: BuiltInBilling | None = None
    clock: Clock = field(default_factory=Clock)
    attempts: FailedAttempts = field(default_factory=FailedAttempts)
    refusals: FailureLog = field(default_factory=FailureLog)
    unanswered: RecurringError = field(default_factory=_unanswered)


def context_of(request: Request) -> Context:
    """Return the context of the application that answers this request."""
    context: Context = request.app.state.context
    return context


InContext = Annotated[Context, Depends(context_of)]
