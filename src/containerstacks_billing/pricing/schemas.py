"""JSON documents of `prices`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from uuid import UUID

from pydantic import Field

from containerstacks_billing.document import Document, Instant, Money
from containerstacks_billing.pricing.model import Correction, OrganizationDifference, Plan, PriceVersion


class PlanDocument(Document):
    """A plan; a deleted one has neither name nor providerPlanId."""

    plan_id: UUID
    name: str | None
    provider_plan_id: str | None
    active: bool
    on_sale: bool


class Version(Document):
    """A price of a plan, per month, and when it holds."""

    valid_from: Instant | None = Field(serialization_alias="from", description="null: since ever")
    valid_to: Instant | None = Field(serialization_alias="until", description="null: until further notice")
    base: Money | None
    markup: Money | None
    hourly_rate: Money | None
    hourly_rate_with_backups: Money | None
    announced: bool
    in_force: bool
    recorded_at: Instant
    recorded_by: str
    reason: str | None


class PricedPlan(PlanDocument):
    """A plan with all its prices, the oldest first."""

    versions: list[Version]


class Prices(Document):
    """The prices of plans."""

    hours_per_month: int
    plans: list[PricedPlan]

    @classmethod
    def of(
        cls, hours_per_month: int, plans: Sequence[Plan], versions: Mapping[UUID, Sequence[PriceVersion]]
    ) -> Prices:
        """Return the document of these plans."""
        priced = [
            PricedPlan(
                **PlanDocument.model_validate(plan).model_dump(),
                versions=[Version.model_validate(one) for one in versions[plan.plan_id]],
            )
            for plan in plans
        ]
        return cls(hours_per_month=hours_per_month, plans=priced)


class PriceSet(Document):
    """What `prices set` did; `version` is null where the price was this one already."""

    plan: PlanDocument
    changed: bool
    version: Version | None


class CorrectionDocument(Document):
    """A price that takes the place of another from one instant until another."""

    correction_id: int | None = Field(description="null while it is only shown")
    plan: PlanDocument
    corrected_from: Instant = Field(serialization_alias="from")
    corrected_until: Instant = Field(serialization_alias="until")
    old_base: Money | None
    old_markup: Money | None
    new_base: Money
    new_markup: Money

    @classmethod
    def of(cls, one: Correction) -> CorrectionDocument:
        """Return the document of a correction."""
        return cls(
            correction_id=one.correction_id,
            plan=PlanDocument.model_validate(one.plan),
            corrected_from=one.corrected_from,
            corrected_until=one.corrected_until,
            old_base=one.old[0],
            old_markup=one.old[1],
            new_base=one.new.base,
            new_markup=one.new.markup,
        )


class Difference(Document):
    """What a correction changes for one organization; past-due hours move no money."""

    organization_id: UUID
    name: str
    instances: int
    hours: Money
    old_amount: Money
    new_amount: Money
    difference: Money
    past_due_instances: int
    past_due_hours: Money
    past_due_old_amount: Money
    past_due_new_amount: Money


class Unposted(Document):
    """Adjustments that the wallet of an organization cannot bear yet."""

    organization_id: UUID
    charges: int
    amount: Money
    reason: str


class Corrected(Document):
    """What a correction posts, and what it cannot post yet."""

    correction: CorrectionDocument | None
    posted: bool
    adjustments: int = 0
    organizations: list[Difference] = Field(default_factory=list)
    difference: Money = Decimal(0)
    unposted: list[Unposted] = Field(default_factory=list)

    @classmethod
    def of(
        cls,
        correction: Correction,
        differences: Sequence[OrganizationDifference],
        short: Sequence[OrganizationDifference] | None,
        adjustments: int = 0,
    ) -> Corrected:
        """Return the document of a correction; `short` is None while it was only shown."""
        return cls(
            correction=CorrectionDocument.of(correction),
            posted=short is not None,
            adjustments=adjustments,
            organizations=[Difference.model_validate(one) for one in differences],
            difference=sum((one.difference for one in differences), Decimal(0)),
            unposted=[
                Unposted(
                    organization_id=one.organization_id,
                    charges=one.unposted_charges,
                    amount=one.unposted_amount,
                    reason=one.why_unposted,
                )
                for one in (differences if short is None else short)
                if one.unposted_charges
            ],
        )
