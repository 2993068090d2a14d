"""Types and options that several verbs share, and how a wrong value is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import click

if TYPE_CHECKING:
    from containerstacks_billing.database.connection import Connection

_Verb = TypeVar("_Verb", bound=Callable[..., object])
# Decimal() also takes 1_000, 1e3, " 5 " and NaN; a price must not be guessed.
_AMOUNT = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?", re.ASCII)


class _Id(click.ParamType[UUID]):
    name = "id"

    def __init__(self, whose: str) -> None:
        self._whose = whose

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> UUID:
        try:
            return UUID(value)
        except ValueError:
            self.fail(f"{value!r} is no id of {self._whose}.", param, ctx)


class _Amount(click.ParamType[Decimal]):
    name = "amount"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Decimal:
        if not _AMOUNT.fullmatch(value):
            self.fail(f"{value!r} is no amount; write digits and a point, like 5.00.", param, ctx)
        return Decimal(value)


class _Instant(click.ParamType[datetime]):
    name = "instant"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            at = datetime.fromisoformat(value)
            at = (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no instant; write it like 2026-11-14T03:00Z.", param, ctx)
        if not 1970 <= at.year < 9000:
            self.fail(f"{value!r} is not within the years of billing.", param, ctx)
        return at


class WholeNumber(click.IntRange):
    """A whole number, both bounds included."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number, or refuse it with the bounds."""
        try:
            return int(super().convert(value, param, ctx))
        except click.BadParameter:
            self.fail(f"it has to be a whole number{_bounds(self.min, self.max, 'like 5')}", param, ctx)


class Number(click.FloatRange):
    """A number with or without a fraction, both bounds included."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number, or refuse it with the bounds; NaN and infinity are refused too."""
        try:
            number = float(super().convert(value, param, ctx))
        except click.BadParameter:
            number = float("nan")
        if number - number != 0:  # NaN or infinite
            self.fail(f"it has to be a number{_bounds(self.min, self.max, 'like 1.5')}", param, ctx)
        return number


def _bounds(least: float | None, most: float | None, example: str) -> str:
    if least is None:
        return f", {example}"
    return f" of at least {least:g}" if most is None else f" from {least:g} to {most:,}"


ORGANIZATION_ID = _Id("an organization")
INSTANCE_ID = _Id("an instance")
AMOUNT = _Amount()
INSTANT = _Instant()

json_option = click.option("--json", "as_json", is_flag=True, help="Write one JSON document.")


def organization_option(help_text: str) -> Callable[[_Verb], _Verb]:
    """Return the decorator of `--organization ID`; the verb gets `organization: UUID | None`."""
    return click.option("--organization", type=ORGANIZATION_ID, metavar="ID", help=help_text)


def require_organization(connection: Connection, organization: UUID) -> None:
    """Raise a usage error when there is no such organization, as a mistyped id would otherwise find nothing."""
    from containerstacks_billing.charging.run_record import organization_exists

    if not organization_exists(connection, organization):
        raise click.BadParameter(f"there is no organization {organization}.", param_hint="--organization")
