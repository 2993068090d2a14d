"""JSON documents: base model and the forms of money, hours and instants, for `--json` and the HTTP API alike.

The documents of a room stand in its `schemas.py`, next to the values that they show.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer
from pydantic.alias_generators import to_camel

from containerstacks_billing.money import plain


def _money(amount: Decimal) -> str:
    return plain(amount) if amount.is_finite() else str(amount)


# A host may keep NaN in its tables; a document says so instead of failing.
Money = Annotated[Decimal, Field(allow_inf_nan=True), PlainSerializer(_money, return_type=str)]
Hours = Annotated[Decimal, PlainSerializer(lambda hours: f"{hours.normalize():f}", return_type=str)]
Instant = Annotated[datetime, AfterValidator(lambda at: at.astimezone(UTC))]
Seconds = Annotated[float, AfterValidator(lambda seconds: round(seconds, 3))]


class Document(BaseModel):
    """A document with keys in camelCase, made of a dictionary or of any object with attributes of these names."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, from_attributes=True)

    def as_json(self) -> object:
        """Return it as values of JSON."""
        return self.model_dump(mode="json", by_alias=True)
