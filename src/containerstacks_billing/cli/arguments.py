"""What is given on the command line, read and refused in our words."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING
from uuid import UUID

import typer

if TYPE_CHECKING:
    from containerstacks_billing.database.connection import Connection

# Decimal() also takes 1_000, 1e3, " 5 " and NaN, and a price is no place to guess.
_AMOUNT = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?", re.ASCII)


def organization_id(text: str) -> UUID:
    """Read the id of an organization."""
    return _id(text, "an organization")


def instance_id(text: str) -> UUID:
    """Read the id of an instance."""
    return _id(text, "an instance")


def _id(text: str, whose: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no id of {whose}.") from None


def amount(text: str, option: str) -> Decimal:
    """Read an amount of money."""
    if not _AMOUNT.fullmatch(text):
        raise typer.BadParameter(
            f"{text!r} is no amount; write digits and a point, like 5.00.", param_hint=option
        )
    return Decimal(text)


def see_that_organization_exists(connection: Connection, organization: UUID) -> None:
    """End with a usage error when there is no such organization: a mistyped id finds nothing, and is not told so."""
    from containerstacks_billing.charging.run_record import organization_exists

    if not organization_exists(connection, organization):
        raise typer.BadParameter(f"there is no organization {organization}.", param_hint="--organization")
