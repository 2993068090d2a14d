"""The shapes of answers: names in camelCase, money as decimal strings, except where the host's page reads a number."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, Field

from containerstacks_billing.document import Document, Money
from containerstacks_billing.status.schemas import Run
from containerstacks_billing.status.verdict import Biller


class BuiltIn(Document):
    """Built-in billing, as this process sees it."""

    setting: str = Field(description="BUILT_IN_BILLING: auto, on or off")
    running: bool = Field(description="Whether this process looks after built-in billing")
    decision: str | None = Field(description="What it last decided, and null before its first look")
    explanation: str | None
    looked_at: datetime | None
    host_bills: bool | None = Field(description="Whether the host's own built-in billing seems to be alive")


class Takeover(Document):
    """What takes over when the daemon is silent; only what has given a sign of life is named."""

    by: str = Field(description="built-in, host, both or nobody")
    at: datetime | None = Field(description="null where nothing takes over, or no daemon ever reported")
    sentence: str
    reason: str


class Daemon(Document):
    """The billing daemon, and who bills."""

    status: str = Field(
        description="running, stopped or error, as the daemon wrote it; stopped when none ever reported"
    )
    last_run: datetime | None
    last_run_success: bool | None
    instances_billed: int
    total_amount: float
    total_hours: float
    next_scheduled_run: datetime | None
    uptime_minutes: int | None
    is_stale: bool = Field(
        description="Whether the heartbeat is FAILOVER_AFTER_MINUTES old, or there is none"
    )
    warning_threshold_exceeded: bool = Field(
        description="Whether no run ended for FAILOVER_AFTER_MINUTES, or two intervals where those are that long"
    )
    error_message: str | None = None
    daemon_instance_id: str | None
    heartbeat_at: datetime | None
    heartbeat_age_seconds: float | None
    biller: Biller = Field(
        description="What bills at present; nobody while the daemon is stopped or silent and nothing has taken over"
    )
    since: datetime | None = Field(description="Since when it bills; where nothing bills, the last heartbeat")
    takeover: Takeover
    built_in: BuiltIn
    last_successful_run: Run | None
    run_in_progress: Run | None
    past_due_instances: int
    quarantined_instances: int
    held_instances: int


class DaemonHealth(Document):
    """The answer that the host application's page reads."""

    success: bool
    timestamp: datetime
    daemon: Daemon


class ApiHealth(Document):
    """Whether the application side works."""

    success: bool
    timestamp: datetime
    status: str = Field(description="ok, or degraded when the database does not answer")
    database: str = Field(description="ok or unavailable")


class State(BaseModel):
    """One word."""

    status: str


class Runs(Document):
    """A page of runs, newest first."""

    runs: list[Run]
    next_before: int | None = Field(description="Pass it as `before` for the next page; null on the last one")


class Window(Document):
    """What the runs of a while billed."""

    runs: int
    hours: Money
    amount: Money


class Summary(Document):
    """Billing in a few figures."""

    timestamp: datetime
    currency: str
    biller: Biller
    day: Window
    week: Window
    thirty_days: Window
    past_due_instances: int
    quarantined_instances: int
    held_instances: int
    set_aside: dict[str, int] = Field(description="Instances quarantined or held, by reason")
    last_run: Run | None
    last_successful_run: Run | None
    run_in_progress: Run | None
