"""JSON documents of `reverse` and `credit`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from pydantic import Field

from containerstacks_billing.adjustments.model import Outcome
from containerstacks_billing.adjustments.records import MovedOrganization, RecordedOrder
from containerstacks_billing.document import Document, Hours, Instant, Money


class EffectDocument(Document):
    """What an order changes for one organization; a negative amount goes to the customer."""

    organization_id: UUID
    name: str
    charges: int
    instances: int
    hours: Money
    charged: Money = Field(description="What these hours were charged at")
    stands_at: Money = Field(description="What they stand at now, after earlier adjustments")
    amount: Money = Field(description="The difference")
    posted: Money = Field(description="What of it moves now; the rest waits for the wallet")
    past_due_hours: Money
    past_due_amount: Money = Field(description="What falls off past-due charges; no money moves for it")
    already_charges: int
    changed_charges: int
    unposted_charges: int
    unposted_amount: Money
    balance: Money | None = Field(description="null: it has no wallet")
    balance_after: Money | None
    runway_after_hours: Hours | None
    credited_by_hand: Money = Field(validation_alias="by_hand")


class AnswersDocument(Document):
    """The sums, sorted by what happens."""

    organizations: int
    charges: int
    hours: Money
    now: Money
    past_due: Money
    already_charges: int
    already_hours: Money
    changed_charges: int
    no_wallet_organizations: int
    unposted_charges: int
    no_wallet: Money
    wallet_short_organizations: int
    wallet_short: Money
    credited_by_hand: Money = Field(validation_alias="by_hand")


class OrderResult(Document):
    """What `reverse`, `credit` or an undo did, or would do."""

    id: int | None = Field(description="null while it is only shown for the first time")
    kind: str
    mode: str
    undoes: int | None
    scope: dict[str, Any]
    dry_run: bool
    posted: bool
    adjustments: int = Field(description="Adjustments of billed charges that were written")
    repriced: int = Field(description="Past-due charges that were rated anew in place")
    uncharged_instances: int = Field(description="Instances with hours of the span that are not charged yet")
    uncharged_hours: Money
    answers: AnswersDocument
    organizations: list[EffectDocument] = Field(description="The largest amounts first, 1,000 at most")
    more: int = Field(description="Organizations that are not listed")

    @classmethod
    def of(cls, shown: Outcome, done: Outcome | None) -> OrderResult:
        """Return the document of what was shown, and of what was done then."""
        order = (done or shown).order
        return cls(
            id=order.order_id,
            kind=order.kind,
            mode=order.mode,
            undoes=order.undoes,
            scope=order.scope.document(),
            dry_run=done is None,
            posted=done is not None,
            adjustments=done.adjustments if done else 0,
            repriced=done.repriced if done else 0,
            uncharged_instances=shown.uncharged.instances,
            uncharged_hours=shown.uncharged.hours,
            answers=AnswersDocument.model_validate(shown.effects.answers),
            organizations=[EffectDocument.model_validate(one) for one in shown.effects.largest],
            more=shown.effects.organizations - len(shown.effects.largest),
        )


class OrderDocument(Document):
    """A recorded order."""

    id: int
    kind: str
    mode: str
    scope: dict[str, Any]
    undoes: int | None
    undone_by: int | None
    decided_at: Instant
    decided_by: str
    reason: str
    last_posted_at: Instant | None
    unposted_charges: int | None
    unposted_amount: Money | None
    organizations: int
    charges: int
    amount: Money = Field(description="What it moved so far; a negative amount went to customers")


class OrderList(Document):
    """Recorded orders, the newest first."""

    orders: list[OrderDocument]

    @classmethod
    def of(cls, orders: Sequence[RecordedOrder]) -> OrderList:
        """Return the document of these orders."""
        return cls(orders=[OrderDocument.model_validate(one) for one in orders])


class MovedDocument(Document):
    """What an order moved for one organization."""

    organization_id: UUID
    name: str
    charges: int
    instances: int
    hours: Money
    amount: Money
    entries: int


class OrderDetail(OrderDocument):
    """An order, and what it moved by organization."""

    moved: list[MovedDocument]

    @classmethod
    def of(cls, order: RecordedOrder, moved: Sequence[MovedOrganization]) -> OrderDetail:
        """Return the document of an order."""
        plain = OrderDocument.model_validate(order).model_dump()
        return cls(**plain, moved=[MovedDocument.model_validate(one) for one in moved])
