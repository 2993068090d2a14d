"""Bodies, signatures, answers and pauses, as values."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest

from containerstacks_billing.errors import ConfigurationError
from containerstacks_billing.notifications.model import (
    ATTEMPTS,
    DeliveryOutcome,
    Event,
    body,
    delivery_outcome,
    pause_seconds,
    signature,
    signing_keys,
)
from containerstacks_billing.settings import settings_from

EVENT = Event(
    7,
    UUID(int=1),
    "past_due",
    UUID(int=2),
    UUID(int=3),
    4,
    datetime(2026, 3, 1, tzinfo=UTC),
    {"pastDue": "0.03"},
)


def test_the_body_is_the_event_and_nothing_else() -> None:
    """The attempt is not in it: a repetition has the same bytes."""
    expected = (
        '{"id":"00000000-0000-0000-0000-000000000001","kind":"past_due","sequence":7,'
        '"occurredAt":"2026-03-01T00:00:00Z","organizationId":"00000000-0000-0000-0000-000000000002",'
        '"walletId":"00000000-0000-0000-0000-000000000003","runId":4,"data":{"pastDue":"0.03"}}'
    )
    assert expected == body(EVENT).decode()
    assert 1 == EVENT.attempt
    assert expected == body(replace(EVENT, attempt=2)).decode()


def test_a_body_is_plain_utf_8() -> None:
    """A name arrives as it is written; the signature is of these bytes."""
    assert '"data":{"organization":"Zürich"}}'.encode() in body(
        replace(EVENT, payload={"organization": "Zürich"})
    )


# The vector that the Standard Webhooks specification and its libraries are tested with.
VECTOR_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
VECTOR = ("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, b'{"test": 2432232314}')


def test_the_signature_is_that_of_standard_webhooks() -> None:
    """A receiver verifies with a library of its own language, so the published vector has to come out."""
    expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    keys = signing_keys(VECTOR_SECRET)
    message_id, stamp, content = VECTOR
    assert expected == signature(keys, *VECTOR)
    assert expected != signature(keys, "another", stamp, content)
    assert expected != signature(keys, message_id, stamp + 1, content)
    assert expected != signature(keys, message_id, stamp, content + b" ")
    assert expected != signature(signing_keys("x" * 24), *VECTOR)


def test_two_secrets_sign_while_rotating() -> None:
    """Old and new receiver accept the same request: one signature for each secret, in their order."""
    old, new = VECTOR_SECRET, "whsec_" + "A" * 32
    both = signature(signing_keys(f"{new},{old}"), *VECTOR)
    assert both == f"{signature(signing_keys(new), *VECTOR)} {signature(signing_keys(old), *VECTOR)}"


@pytest.mark.parametrize(
    "secret",
    [
        "x",
        "x" * 23,
        "whsec_",
        "whsec_AAAA",
        "whsec_" + "A" * 100,
        "whsec_" + "%" * 32,
        " ".join(["x" * 24] * 3),
    ],
)
def test_a_secret_that_signs_nothing_safely_is_refused(secret: str) -> None:
    """Too short, too long, not base64, or one too many: refused by the setting and by the signer."""
    with pytest.raises(ValueError, match=r"."):
        signing_keys(secret)
    with pytest.raises(ConfigurationError, match="WEBHOOK_SECRET must be whsec_"):
        settings_from({"WEBHOOK_SECRET": secret})


@pytest.mark.parametrize(
    ("status", "meaning"),
    [
        (200, DeliveryOutcome.DELIVERED),
        (199, DeliveryOutcome.TRY_AGAIN),
        (204, DeliveryOutcome.DELIVERED),
        (299, DeliveryOutcome.DELIVERED),
        (300, DeliveryOutcome.TRY_AGAIN),
        (301, DeliveryOutcome.TRY_AGAIN),
        (400, DeliveryOutcome.TRY_AGAIN),
        (410, DeliveryOutcome.GONE),
        (429, DeliveryOutcome.TRY_AGAIN),
        (500, DeliveryOutcome.TRY_AGAIN),
    ],
)
def test_a_status_decides_what_comes_next(status: int, meaning: DeliveryOutcome) -> None:
    """Only 2xx is success, only 410 is final."""
    assert meaning is delivery_outcome(status)


def test_twelve_attempts_last_about_a_day() -> None:
    """The pauses double and end; chance moves each by a fifth at most."""
    middle = [pause_seconds(attempt, 0.5) for attempt in range(1, ATTEMPTS + 1)]
    assert (40.0, 80.0, None) == (middle[0], middle[1], middle[-1])
    assert 22 < sum(pause or 0 for pause in middle) / 3600 < 24
    assert (32.0, 48.0) == (pause_seconds(1, 0), pytest.approx(pause_seconds(1, 1)))
