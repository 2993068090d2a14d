"""Spans, instants, hours and counts in words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest

from containerstacks_billing import text


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(-5, "0 s"), (59, "59 s"), (185, "3 min 5 s"), (5520, "1 h 32 min"), (187_200, "2 d 4 h")],
)
def test_a_span_has_its_two_largest_units(seconds: int, written: str) -> None:
    """A person needs no third; a span that has not begun is none."""
    assert written == text.span(timedelta(seconds=seconds))


@pytest.mark.parametrize(
    ("number", "noun", "written"),
    [
        (1, "instance", "1 instance"),
        (0, "instance", "0 instances"),
        (1200, "instance", "1,200 instances"),
        (2, "batch", "2 batches"),
        (2, "policy", "2 policies"),
        (2, "day", "2 days"),
    ],
)
def test_a_count_has_its_noun_in_the_right_number(number: int, noun: str, written: str) -> None:
    """Regular plurals, and thousands set apart."""
    assert written == text.counted(number, noun)


def test_instants_are_in_utc() -> None:
    """In any time zone of the reading session; seconds only where there are some."""
    at = datetime(2026, 3, 1, 5, 30, tzinfo=UTC).astimezone(timezone(timedelta(hours=2)))
    assert ("2026-03-01 05:30", "2026-03-01 05:30", "2026-03-01 05:30:00 UTC") == (
        text.minute(at),
        text.instant(at),
        text.moment(at),
    )
    assert "2026-03-01 05:30:07" == text.instant(at.replace(second=7))


@pytest.mark.parametrize(
    ("hours", "digits", "written"),
    [
        ("61.528", 2, "61.53"),
        ("1200", 2, "1,200"),
        ("5.00", 2, "5"),
        ("95.0001", 4, "95.0001"),
        ("0", 2, "0"),
    ],
)
def test_hours_have_no_needless_digits(hours: str, digits: int, written: str) -> None:
    """Two decimals for a look, four where a decision is taken."""
    assert written == text.hour_digits(Decimal(hours), digits)
