"""JSON documents of billing runs and of the status, for `--json` and the HTTP API."""

from __future__ import annotations

from uuid import UUID

from pydantic import Field

from containerstacks_billing.document import Document, Instant, Money, Seconds
from containerstacks_billing.settings import Settings
from containerstacks_billing.status.model import DaemonRow, RunRecord, Status
from containerstacks_billing.status.sentences import takeover_of
from containerstacks_billing.status.verdict import Biller, Condition, Verdict, verdict_of


class Run(Document):
    """A billing run."""

    run_id: int
    trigger: str = Field(description="daemon, built-in, or who else started it")
    holder: str = Field(description="The process that billed")
    organization_id: UUID | None = Field(
        validation_alias="organization", description="null: a run over the whole fleet"
    )
    outcome: str | None = Field(
        description="completed, interrupted, failed or held; null while it is in progress"
    )
    as_of: Instant
    started_at: Instant
    finished_at: Instant | None
    duration_seconds: Seconds | None = Field(description="null while it is in progress")
    instances_planned: int
    instances_billed: int
    hours: Money
    amount: Money
    past_due_instances: int
    quarantined_instances: int
    held_instances: int
    batches: int
    batches_planned: int
    error_message: str | None

    @classmethod
    def of(cls, row: RunRecord) -> Run:
        """Return the document of a run."""
        return cls.model_validate(row)


class RunList(Document):
    """The newest runs."""

    runs: list[Run]


class TakeoverDocument(Document):
    """What takes over when the daemon is silent; only what has given a sign of life is named."""

    by: str = Field(description="built-in, host, both or nobody")
    at: Instant | None
    sentence: str
    reason: str


class DaemonDocument(Document):
    """The daemon with the newest heartbeat, as it wrote its row, and whether it bills."""

    daemon_instance_id: str = Field(serialization_alias="instanceId")
    status: str
    active: bool
    silent: bool
    heartbeat_at: Instant | None
    started_at: Instant | None
    last_run_at: Instant | None
    last_run_success: bool | None
    error_message: str | None

    @classmethod
    def of(cls, row: DaemonRow, verdict: Verdict) -> DaemonDocument:
        """Return the document of a row of the daemon."""
        return cls(
            daemon_instance_id=row.daemon_instance_id,
            status=row.status,
            active=verdict.condition is Condition.RUNNING and verdict.biller is Biller.DAEMON,
            silent=verdict.condition in {Condition.SILENT, Condition.GONE},
            heartbeat_at=row.heartbeat_at,
            started_at=row.started_at,
            last_run_at=row.last_run_at,
            last_run_success=row.last_run_success,
            error_message=row.error_message,
        )


class StatusDocument(Document):
    """What bills, the last runs, and instances and wallets that need a decision or money."""

    now: Instant
    late: bool
    biller: Biller
    since: Instant | None
    takeover: TakeoverDocument
    daemon: DaemonDocument | None
    lease_holder: str | None
    open_run: Run | None
    last_run: Run | None
    last_success: Run | None
    next_due: Instant | None
    past_due_instances: int
    quarantined_instances: int
    held_instances: int
    reasons: dict[str, int] = Field(description="Quarantined and held instances, by reason")
    runways: dict[int, int] = Field(description="Wallets that are empty within 3, 24 and 72 hours")

    @classmethod
    def of(cls, found: Status, settings: Settings) -> StatusDocument:
        """Return the document of a status."""
        health, verdict = found.health, verdict_of(found.health, settings)
        failover = verdict.failover
        return cls(
            now=found.now,
            late=verdict.success_is_late,
            biller=verdict.biller,
            since=verdict.since,
            takeover=TakeoverDocument(
                by=failover.who, at=verdict.takeover_at, sentence=takeover_of(verdict), reason=failover.reason
            ),
            daemon=DaemonDocument.of(health.daemon, verdict) if health.daemon else None,
            lease_holder=health.lease.holder,
            open_run=_run(health.in_progress),
            last_run=_run(found.last_run),
            last_success=_run(health.last_successful),
            next_due=verdict.next_run,
            past_due_instances=found.past_due_instances,
            quarantined_instances=health.quarantined_instances,
            held_instances=health.held_instances,
            reasons=dict(health.quarantine),
            runways=dict(found.runways),
        )


def _run(row: RunRecord | None) -> Run | None:
    return Run.of(row) if row else None
