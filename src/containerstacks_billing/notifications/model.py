"""Events as the host receives them: their body, their signature, and how long a sender keeps trying.

Nothing here sends. A body depends on the event alone, so it is the same in every attempt; a signature carries the time
of its attempt, so a receiver can refuse what somebody recorded and plays back.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

ATTEMPTS = 12
FIRST_PAUSE_SECONDS = 40.0
JITTER = 0.2
# After so many failures an event no longer holds back those that follow it in its organization.
ATTEMPTS_IN_ORDER = 3
STALE_HOURS = 72

_GONE = 410


class Kind(StrEnum):
    """What an event says; `test` is sent on request and never stored."""

    RUNWAY_72H = "runway_72h"
    RUNWAY_24H = "runway_24h"
    RUNWAY_3H = "runway_3h"
    PAST_DUE = "past_due"
    RECOVERED = "recovered"
    RUN_HELD = "run_held"
    INSTANCE_HELD = "instance_held"
    INSTANCE_QUARANTINED = "instance_quarantined"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class Event:
    """An event on its way: `sequence` grows with time, `attempt` counts from 1, `payload` is what its kind tells."""

    sequence: int
    event_id: UUID
    kind: str
    organization_id: UUID | None
    wallet_id: UUID | None
    run_id: int | None
    occurred_at: datetime
    payload: Mapping[str, Any] = field(default_factory=dict)
    attempt: int = 1


class Answer(StrEnum):
    """What the receiver's status means for an event."""

    DELIVERED = "delivered"
    TRY_AGAIN = "try again"
    GONE = "gone"


def answer(status: int) -> Answer:
    """Judge an HTTP status: any 2xx is delivered, 410 is final, everything else, redirects too, is tried again."""
    if 200 <= status < 300:
        return Answer.DELIVERED
    return Answer.GONE if status == _GONE else Answer.TRY_AGAIN


def body(event: Event) -> bytes:
    """Write the JSON document of an event; the same bytes for every attempt."""
    document = {
        "id": str(event.event_id),
        "kind": event.kind,
        "sequence": event.sequence,
        "occurredAt": event.occurred_at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "organizationId": None if event.organization_id is None else str(event.organization_id),
        "walletId": None if event.wallet_id is None else str(event.wallet_id),
        "runId": event.run_id,
        "data": dict(event.payload),
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def signature(secret: str, content: bytes, unix_seconds: int) -> str:
    """Sign a body for one attempt: HMAC-SHA256 over the time, a dot and the body."""
    signed = str(unix_seconds).encode() + b"." + content
    return f"t={unix_seconds},v1={hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()}"


def pause_seconds(attempt: int, chance: float) -> float | None:
    """Return how long to wait after a failed attempt, None when it was the last.

    Pauses double from 40 s on: twelve attempts in about 23 hours. `chance` between 0 and 1 spreads each by a fifth.
    """
    if attempt >= ATTEMPTS:
        return None
    return FIRST_PAUSE_SECONDS * 2.0 ** (attempt - 1) * (1 - JITTER + 2 * JITTER * chance)
