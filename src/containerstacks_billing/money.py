"""Money as exact decimals: whole minor units on the wallet, the rest carried.

Amounts of charges have eight digits, wallets have two. Nothing here rounds to the nearest: a debit is always
floored, and what is floored away is handed back to the caller to be carried on.
"""

from __future__ import annotations

from decimal import ROUND_FLOOR, Context, Decimal

CENT = Decimal("0.01")
CHARGE_DIGIT = Decimal("0.00000001")

# Wide enough for numeric(18,8) summed over billions of rows; the default context of 28 digits would round
# silently.
_EXACT = Context(prec=60, rounding=ROUND_FLOOR)


def floor_to_cent(amount: Decimal) -> Decimal:
    """Return the largest whole number of cents that is not above `amount`."""
    return amount.quantize(CENT, context=_EXACT)


def carry_of(amount: Decimal) -> Decimal:
    """Return what `floor_to_cent` leaves over: at least zero, below one cent."""
    return _EXACT.subtract(amount, floor_to_cent(amount))


def plain(amount: Decimal) -> str:
    """Write an amount exactly as a decimal string without exponent, for JSON and logs.

    Keeps two decimals at least and drops only zeros that follow them: `10.99`, `0.0099977`, `5.00`.
    """
    text = f"{amount:f}"
    whole, _, fraction = text.partition(".")
    return f"{whole}.{fraction.rstrip('0').ljust(2, '0')}"


def display(amount: Decimal, currency: str = "USD") -> str:
    """Write an amount for people, exactly: `1,234.50 USD`, `0.0099977 USD`."""
    text = plain(amount)
    sign, digits = ("-", text[1:]) if text.startswith("-") else ("", text)
    whole, _, fraction = digits.partition(".")
    return f"{sign}{int(whole):,}.{fraction} {currency}"
