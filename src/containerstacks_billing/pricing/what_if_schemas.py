"""JSON documents of what another price would do, and of a run compared with a dry run."""

from __future__ import annotations

from uuid import UUID

from pydantic import Field

from containerstacks_billing.charging.dry_run_diff import ChargeDifference
from containerstacks_billing.document import Document, Hours, Instant, Money
from containerstacks_billing.pricing.what_if import WhatIf


class OrganizationWhatIfDocument(Document):
    """A month and a runway of an organization, without the change and with it."""

    organization_id: UUID
    organization: str | None
    balance: Money | None = Field(description="null: it has no wallet in the currency")
    monthly_now: Money
    monthly_then: Money
    difference: Money
    runway_now: Hours | None = Field(description="Hours from now; null: without end")
    runway_then: Hours | None
    short_now: bool = Field(description="Empty within 72 hours of the beginning")
    short_then: bool


class WhatIfDocument(Document):
    """What a change would do to every organization that it touches, the largest difference first."""

    as_of: Instant
    begins_at: Instant
    currency: str
    hours_per_month: int
    monthly_now: Money
    monthly_then: Money
    difference: Money
    organizations: int = Field(description="How many pay something")
    organizations_changed: int
    newly_short: int = Field(description="Empty within 72 hours of the beginning with the change alone")
    changed: list[OrganizationWhatIfDocument]

    @classmethod
    def of(cls, found: WhatIf) -> WhatIfDocument:
        """Return the document of a comparison."""
        changed = [OrganizationWhatIfDocument.model_validate(one) for one in found.changed]
        return cls(
            as_of=found.as_of,
            begins_at=found.begins_at,
            currency=found.currency,
            hours_per_month=found.hours_per_month,
            monthly_now=found.monthly_now,
            monthly_then=found.monthly_then,
            difference=found.monthly_then - found.monthly_now,
            organizations=len(found.organizations),
            organizations_changed=len(changed),
            newly_short=len(found.newly_short),
            changed=changed,
        )


class InstanceDifferenceDocument(Document):
    """An instance that is charged by one of both."""

    instance_id: UUID
    organization_id: UUID | None
    organization: str | None
    label: str | None
    status: str | None
    reason: str


class ChargeDifferenceDocument(Document):
    """A run and a dry run compared, instance by instance; the lists have 1,000 at most."""

    run_id: int
    as_of: Instant
    charged_by_run: int
    charged_now: int
    not_due_yet: int = Field(description="Charged by the run, and no whole hour is due of them now")
    not_charged_now: int
    newly_charged: int
    no_longer: list[InstanceDifferenceDocument]
    newly: list[InstanceDifferenceDocument]

    @classmethod
    def of(cls, found: ChargeDifference) -> ChargeDifferenceDocument:
        """Return the document of a comparison."""
        return cls.model_validate(found)
