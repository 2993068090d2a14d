"""Which prices can be charged and stored, and what a correction reaches."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest

from containerstacks_billing.pricing.model import (
    Correction,
    OrganizationDifference,
    Plan,
    Price,
    PriceColumn,
    price_problem,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SMALL = Plan(UUID(int=1), "Small", "vc-1", active=True, on_sale=True)


def problem(base: str, markup: str = "0", **columns: PriceColumn) -> str | None:
    return price_problem(Price(Decimal(base), Decimal(markup)), columns)


@pytest.mark.parametrize(
    ("base", "markup", "columns"),
    [
        ("0", "0", {}),
        ("0.50", "0", {}),
        ("1", "2", {}),
        ("2", "-2", {}),
        ("2", "-1.50", {}),
        ("99999999.99", "0", {}),
        ("0.123456789", "0", {}),
        ("1.25", "0.50", {"base_price": PriceColumn(8, 2), "markup_price": PriceColumn(8, 2)}),
        ("1.005", "0", {"base_price": PriceColumn(None, None)}),
        ("1.005", "0", {"base_price": PriceColumn(8, None)}),
        ("1000000", "0", {"base_price": PriceColumn(8, None)}),
        ("1000000", "0", {"base_price": PriceColumn(None, 2)}),
        ("999999.99", "-999999.99", {"base_price": PriceColumn(8, 2), "markup_price": PriceColumn(8, 2)}),
        ("1000000", "0", {"markup_price": PriceColumn(8, 2)}),
    ],
)
def test_a_price_that_can_be_charged_and_stored_has_no_problem(
    base: str, markup: str, columns: dict[str, PriceColumn]
) -> None:
    """Nothing costs nothing, a markup may be a discount down to nothing, and a column without bounds has none."""
    assert problem(base, markup, **columns) is None


@pytest.mark.parametrize(
    ("base", "markup", "columns", "sentence"),
    [
        ("-0.01", "1", {}, "The base price is negative."),
        ("1", "-1.01", {}, "Base and markup together are negative."),
        (
            "1.005",
            "0",
            {"base_price": PriceColumn(8, 2)},
            "vps_plans.base_price holds 2 decimals; 1.005 has more.",
        ),
        (
            "1",
            "0.5",
            {"markup_price": PriceColumn(8, 0)},
            "vps_plans.markup_price holds 0 decimals; 0.5 has more.",
        ),
        ("100000000", "0", {}, "The base price is out of range: it has to be below 100,000,000."),
        (
            "1000000",
            "0",
            {"base_price": PriceColumn(8, 2)},
            "The base price is out of range: it has to be below 1,000,000.",
        ),
        (
            "1",
            "1000000",
            {"markup_price": PriceColumn(8, 2)},
            "The markup price is out of range: it has to be below 1,000,000.",
        ),
        (
            "100000000",
            "0",
            {"base_price": PriceColumn(20, 2)},
            "The base price is out of range: it has to be below 100,000,000.",
        ),
    ],
)
def test_a_price_that_cannot_is_refused_with_its_bound(
    base: str, markup: str, columns: dict[str, PriceColumn], sentence: str
) -> None:
    """The narrower of two bounds counts: what the column holds, or what charging accepts."""
    assert sentence == problem(base, markup, **columns)


def test_a_deleted_plan_is_called_by_its_identifier() -> None:
    """It has no name any more, but its prices are still listed."""
    assert "Small" == SMALL.title
    deleted = Plan(UUID(int=1), None, None, active=False, on_sale=False)
    assert "deleted plan 00000000-0000-0000-0000-000000000001" == deleted.title


@pytest.mark.parametrize(
    ("version_until", "expected"),
    [(None, True), (NOW + timedelta(microseconds=1), True), (NOW, False), (NOW - timedelta(1), False)],
)
def test_a_correction_reaches_into_the_future_while_its_version_is_in_force(
    version_until: datetime | None, expected: bool
) -> None:
    """A version that ends at this instant is over."""
    price = Price(Decimal(1), Decimal(0))
    made = Correction(
        SMALL, NOW - timedelta(2), NOW, version_until, (Decimal(2), Decimal(0)), price, Decimal(0), NOW
    )
    assert expected is made.reaches_into_the_future


def test_a_difference_is_what_the_hours_cost_more() -> None:
    """Positive where the organization pays more, negative where it gets back; debts are not in it."""
    at = (UUID(int=2), "Acme", "USD", 1, Decimal(10))
    rest = (0, Decimal(0), Decimal(5), 1, Decimal(3), Decimal(1), Decimal(9))
    assert Decimal("0.50") == OrganizationDifference(*at, Decimal(1), Decimal("1.50"), *rest).difference
    assert Decimal("-0.50") == OrganizationDifference(*at, Decimal("1.50"), Decimal(1), *rest).difference
