"""JSON documents of `run`, of its dry run, and of `quarantine`."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, Field

from containerstacks_billing.charging.model import Outcome, RunResult
from containerstacks_billing.document import Document, Hours, Instant, Money, Seconds


class FinishedRun(Document):
    """A run that ended, and what it debited."""

    run_id: int | None
    outcome: Outcome
    trigger: str
    as_of: Instant
    instances_billed: int
    hours: Money
    amount: Money = Field(description="Exact; `debited` is what left the wallets, in whole cents")
    past_due_instances: int
    quarantined_instances: int
    held_instances: int
    batches: int
    duration_seconds: Seconds
    error_message: str | None
    debited: Money

    @classmethod
    def of(cls, result: RunResult, debited: Decimal) -> FinishedRun:
        """Return the document of a run."""
        return cls.model_validate(
            {name: getattr(result, name) for name in result.__slots__} | {"debited": debited}
        )


class OrganizationInDryRun(Document):
    """What a run would bill one organization, and its wallet afterwards."""

    organization_id: UUID = Field(validation_alias="organization")
    name: str | None
    instances: int
    hours: Money
    amount: Money
    debit: Money
    balance: Money
    carry: Money
    owed: Money
    missing: Money


class InstanceInDryRun(Document):
    """An instance that would be quarantined or held, and why."""

    organization_id: UUID = Field(validation_alias="organization")
    instance_id: UUID = Field(validation_alias="instance")
    label: str | None
    reason: str
    detail: str


class LastRun(Document):
    """The run that a dry run is compared with."""

    run_id: int
    instances_billed: int
    amount: Money


class DryRun(FinishedRun):
    """What a run would come to: the keys of a run, and what only a dry run has."""

    run_id: int | None = None
    trigger: str = "manual"
    dry_run: bool = True
    changes: list[str]
    last_run: LastRun | None
    organizations_billed: int
    organizations_short: int
    organizations: list[OrganizationInDryRun] = Field(validation_alias="largest")
    short: list[OrganizationInDryRun]
    set_aside: list[InstanceInDryRun] = Field(validation_alias="quarantine")


class QuarantinedInstance(Document):
    """An instance or a closed segment of one that the last run left out."""

    reason: str
    detail: str
    since: Instant = Field(validation_alias="first_seen_at")
    hours_due: Hours | None = Field(validation_alias="due_hours")
    organization_id: UUID
    organization: str | None
    instance_id: UUID
    segment_id: Annotated[int | None, AfterValidator(lambda number: number or None)] = Field(
        description="null: not a closed segment but the instance as it is"
    )
    label: str | None


class Quarantine(Document):
    """The instances that were left out, and whether there are more than the limit."""

    instances: list[QuarantinedInstance]
    more: bool
