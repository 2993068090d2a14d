"""Exact decimal money: whole cents on the wallet, and the carried remainder.

Amounts of charges have eight digits, wallets have two. Nothing here rounds to the nearest: a debit is always
floored, and what is floored away is handed back to the caller to be carried on.
"""

from __future__ import annotations

from decimal import ROUND_FLOOR, Context, Decimal

CENT = Decimal("0.01")

# Wide enough for numeric(18,8) summed over billions of rows; the default context of 28 digits would round
# silently.
_EXACT = Context(prec=60, rounding=ROUND_FLOOR)


def floor_to_cent(amount: Decimal) -> Decimal:
    """Return the largest whole number of cents that is not above `amount`."""
    return amount.quantize(CENT, context=_EXACT)


def plain(amount: Decimal) -> str:
    """Return an amount as an exact decimal string without exponent, for JSON and logs.

    Keeps two decimals at least and drops only zeros that follow them: `10.99`, `0.0099977`, `5.00`.
    """
    text = f"{amount:f}"
    whole, _, fraction = text.partition(".")
    return f"{whole}.{fraction.rstrip('0').ljust(2, '0')}"


def display(amount: Decimal, currency: str = "USD") -> str:
    """Return an amount with thousands separators and currency: `1,234.50 USD`, `0.0099977 USD`."""
    text = plain(amount)
    sign, digits = ("-", text[1:]) if text.startswith("-") else ("", text)
    whole, _, fraction = digits.partition(".")
    return f"{sign}{int(whole):,}.{fraction} {currency}"
