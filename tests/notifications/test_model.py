"""Bodies, signatures, answers and pauses, as values."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest

from containerstacks_billing.notifications.model import (
    ATTEMPTS,
    Answer,
    Event,
    answer,
    body,
    pause_seconds,
    signature,
)

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


def test_the_signature_is_of_time_and_body() -> None:
    """Computed once by another program: printf '1700000000.{}' | openssl dgst -sha256 -hmac secret."""
    expected = "t=1700000000,v1=b8569b78799ff9e3cbff0fc2d63a33a2b57f3282abd07c37ae5e8e7d79a5f163"
    made = signature("secret", b"{}", 1_700_000_000)
    assert expected == made
    assert made != signature("secret", b"{}", 1_700_000_001)
    assert made != signature("Secret", b"{}", 1_700_000_000)
    assert made != signature("secret", b"{ }", 1_700_000_000)


@pytest.mark.parametrize(
    ("status", "meaning"),
    [
        (200, Answer.DELIVERED),
        (199, Answer.TRY_AGAIN),
        (204, Answer.DELIVERED),
        (299, Answer.DELIVERED),
        (300, Answer.TRY_AGAIN),
        (301, Answer.TRY_AGAIN),
        (400, Answer.TRY_AGAIN),
        (410, Answer.GONE),
        (429, Answer.TRY_AGAIN),
        (500, Answer.TRY_AGAIN),
    ],
)
def test_a_status_decides_what_comes_next(status: int, meaning: Answer) -> None:
    """Only 2xx is success, only 410 is final."""
    assert meaning is answer(status)


def test_twelve_attempts_last_about_a_day() -> None:
    """The pauses double and end; chance moves each by a fifth at most."""
    middle = [pause_seconds(attempt, 0.5) for attempt in range(1, ATTEMPTS + 1)]
    assert (40.0, 80.0, None) == (middle[0], middle[1], middle[-1])
    assert 22 < sum(pause or 0 for pause in middle) / 3600 < 24
    assert (32.0, 48.0) == (pause_seconds(1, 0), pytest.approx(pause_seconds(1, 1)))
