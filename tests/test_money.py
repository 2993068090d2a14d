"""Money: floored to the cent, nothing lost, written exactly."""

from decimal import Context, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containerstacks_billing.money import CENT, display, floor_to_cent, plain

EXACT = Context(prec=60)
AMOUNTS = st.decimals(min_value=0, max_value=Decimal(10) ** 20, places=8)


@given(AMOUNTS)
def test_what_is_floored_away_is_below_one_cent(amount: Decimal) -> None:
    """A debit is never above the amount, and what is carried on stays below one cent, however large the amount."""
    assert 0 <= EXACT.subtract(amount, floor_to_cent(amount)) < CENT


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        ("10.9999977", "10.9999977"),
        ("5", "5.00"),
        ("0.01506850", "0.0150685"),
        ("1E+3", "1000.00"),
        ("-3.5", "-3.50"),
        ("1E-8", "0.00000001"),
    ],
)
def test_an_amount_is_written_exactly_and_without_exponent(amount: str, text: str) -> None:
    """JSON and logs carry the exact decimal."""
    assert plain(Decimal(amount)) == text


def test_people_see_thousands_and_the_currency() -> None:
    """Grouping changes no digit."""
    assert display(Decimal("-1234567.5"), "EUR") == "-1,234,567.50 EUR"
    assert display(Decimal("0.0099977")) == "0.0099977 USD"
