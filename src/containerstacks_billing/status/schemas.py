"""JSON documents of billing runs, for `runs --json` and the HTTP API."""

from __future__ import annotations

from uuid import UUID

from pydantic import Field

from containerstacks_billing.document import Document, Instant, Money, Seconds
from containerstacks_billing.status.model import RunRecord


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
