"""Events as values: kinds, body, signature, and the schedule of delivery attempts.

The body depends on the event alone, so it is the same in every attempt. The signature covers the time of its attempt,
so a receiver can refuse a replay. Headers and signature follow the Standard Webhooks specification
(https://github.com/standard-webhooks/standard-webhooks), for which verifying libraries exist in many languages.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
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

KEY_PREFIX = "whsec_"
SHORTEST_KEY_BYTES = 24
LONGEST_KEY_BYTES = 64


class Kind(StrEnum):
    """Kind of an event; `test` is sent on request and never stored."""

    RUNWAY_72H = "runway_72h"
    RUNWAY_24H = "runway_24h"
    RUNWAY_3H = "runway_3h"
    PAST_DUE = "past_due"
    RECOVERED = "recovered"
    RUN_HELD = "run_held"
    INSTANCE_HELD = "instance_held"
    INSTANCE_QUARANTINED = "instance_quarantined"
    REVERSED = "reversed"
    CREDITED = "credited"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class Event:
    """One event: `sequence` grows with time, `attempt` counts from 1, `payload` is the data of its kind."""

    sequence: int
    event_id: UUID
    kind: str
    organization_id: UUID | None
    wallet_id: UUID | None
    run_id: int | None
    occurred_at: datetime
    payload: Mapping[str, Any] = field(default_factory=dict)
    attempt: int = 1


class DeliveryOutcome(StrEnum):
    """Meaning of the receiver's HTTP status for an event."""

    DELIVERED = "delivered"
    TRY_AGAIN = "try again"
    GONE = "gone"


def delivery_outcome(status: int) -> DeliveryOutcome:
    """Return what an HTTP status means: any 2xx is delivered, 410 is final, all others (redirects too) are retried."""
    if 200 <= status < 300:
        return DeliveryOutcome.DELIVERED
    return DeliveryOutcome.GONE if status == _GONE else DeliveryOutcome.TRY_AGAIN


def body(event: Event) -> bytes:
    """Return the JSON document of an event; the same bytes for every attempt."""
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


def signing_keys(secrets: str) -> tuple[bytes, ...]:
    """Return the keys of WEBHOOK_SECRET: one secret, or two separated by a comma or space while rotating.

    A secret is `whsec_` and the base64 of 24 to 64 bytes. A plain text of at least 24 characters is accepted too: its
    bytes are the key, so a library is given `whsec_` and its base64. Raises ValueError for anything else.
    """
    keys = tuple(_signing_key(secret) for secret in re.split(r"[,\s]+", secrets.strip()))
    if len(keys) > 2:
        raise ValueError("more than two secrets")
    return keys


def _signing_key(secret: str) -> bytes:
    if not secret.startswith(KEY_PREFIX):
        if len(secret) < SHORTEST_KEY_BYTES:
            raise ValueError("a plain secret that is too short")
        return secret.encode()
    try:
        key = base64.b64decode(secret.removeprefix(KEY_PREFIX), validate=True)
    except binascii.Error:
        raise ValueError("not base64") from None
    if not SHORTEST_KEY_BYTES <= len(key) <= LONGEST_KEY_BYTES:
        raise ValueError("a key of the wrong length")
    return key


def signature(keys: tuple[bytes, ...], message_id: str, unix_seconds: int, content: bytes) -> str:
    """Return the value of `webhook-signature`: for each key `v1,` and the base64 HMAC-SHA256 of id, time and body."""
    signed = f"{message_id}.{unix_seconds}.".encode() + content
    digests = (hmac.new(key, signed, hashlib.sha256).digest() for key in keys)
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)


def pause_seconds(attempt: int, chance: float) -> float | None:
    """Return the pause in seconds after a failed attempt, None after the last.

    Pauses double from 40 s on: twelve attempts in about 23 hours. `chance` between 0 and 1 spreads each by a fifth.
    """
    if attempt >= ATTEMPTS:
        return None
    return FIRST_PAUSE_SECONDS * 2.0 ** (attempt - 1) * (1 - JITTER + 2 * JITTER * chance)
