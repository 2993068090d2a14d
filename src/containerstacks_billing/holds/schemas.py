"""JSON documents of `release`."""

from __future__ import annotations

from uuid import UUID

from pydantic import Field

from containerstacks_billing.document import Document, Instant, Money
from containerstacks_billing.holds.model import Decision, ReleaseDecision, ReleaseResult


class ReleasedInstance(Document):
    """What a decision means for one instance."""

    organization_id: UUID = Field(validation_alias="organization")
    instance_id: UUID = Field(validation_alias="instance")
    label: str | None
    set_aside_for: str | None = Field(validation_alias="quarantine_reason")
    hours_approved: Money
    amount_approved: Money | None
    hours_waived: Money
    amount_waived: Money | None


class Released(Document):
    """A decision about held instances and its sums; `listed` holds the first of them."""

    decision: Decision
    dry_run: bool
    decided_by: str
    reason: str
    as_of: Instant
    instances: int
    unpriced_instances: int
    hours_approved: Money
    amount_approved: Money
    hours_waived: Money
    amount_waived: Money
    other_reasons: dict[str, int]
    listed: list[ReleasedInstance]

    @classmethod
    def of(cls, result: ReleaseResult, decision: ReleaseDecision) -> Released:
        """Return the document of a decision that was taken, or would be."""
        taken = ("decision", "dry_run", "decided_by", "reason")
        counted = cls.model_fields.keys() - set(taken)
        return cls.model_validate(
            {name: getattr(decision, name) for name in taken}
            | {name: getattr(result, name) for name in counted}
        )


class WouldCharge(Document):
    """What the next run would charge after a release."""

    instances: int = Field(validation_alias="instances_billed")
    hours: Money
    amount: Money


class ReleasedRun(Document):
    """A held run, and whether it was released."""

    released: bool
    run_id: int | None
    sentence: str | None
    held_at: Instant | None = None
    decided_by: str | None = None
    reason: str | None = None
    dry_run: bool
    would_charge: WouldCharge | None = None
