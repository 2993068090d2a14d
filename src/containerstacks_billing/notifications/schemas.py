"""JSON documents of `events` and `runways`."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, Field

from containerstacks_billing.document import Document, Instant, Money


class EventDocument(Document):
    """An event for the host, and how its delivery stands."""

    sequence: int = Field(validation_alias="id")
    event_id: UUID = Field(serialization_alias="id")
    kind: str
    organization_id: UUID | None
    organization: str | None
    wallet_id: UUID | None
    run_id: int | None
    occurred_at: Instant
    payload: dict[str, Any] = Field(serialization_alias="data")
    state: str = Field(description="waiting, delivered or dead")
    attempts: int
    next_attempt_at: Instant | None = Field(description="null unless it waits")
    delivered_at: Instant | None
    dead_at: Instant | None
    last_error: str | None

    @classmethod
    def of(cls, row: dict[str, Any]) -> EventDocument:
        """Return the document of a row of `list_events`."""
        shown = cls.model_validate(row)
        return shown if shown.state == "waiting" else shown.model_copy(update={"next_attempt_at": None})


class Events(Document):
    """The newest events, how many wait, and when the next of them is due."""

    events: list[EventDocument]
    waiting: int
    next_attempt_at: Instant | None


class Runway(Document):
    """When a wallet is empty at its present burn."""

    organization_id: UUID
    organization: str | None = Field(validation_alias="name")
    wallet_id: UUID
    balance: Money
    billing_carry: Money = Field(serialization_alias="carry")
    currency: str
    burn_per_hour: Money | None
    empties_at: Instant | None
    hours_left: Annotated[float, AfterValidator(lambda hours: round(max(hours, 0), 2))] | None
    level: int | None
    past_due_since: Instant | None
    updated_at: Instant


class Runways(Document):
    """Wallets by the time that they last."""

    runways: list[Runway]
