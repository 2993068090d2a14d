"""Pages of a list and the cursors between them."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, TypeVar
from uuid import UUID

from containerstacks_billing.errors import BillingError

Row = TypeVar("Row")
Key = tuple[object, ...]

LONGEST_CURSOR = 2000
LARGEST_NUMBER = 2**63 - 1
# The driver cannot read dates beyond these.
_FIRST, _LAST = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)


class CursorInvalid(BillingError):
    """A cursor that no page of this list ended with."""

    def __init__(self) -> None:
        super().__init__("The cursor is not one of this list.", "Start again without a cursor.")


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """Some rows of a list in its order; `next_cursor` is None on the last page."""

    rows: tuple[Row, ...]
    next_cursor: str | None


def page_of(rows: Sequence[Row], limit: int, key: Callable[[Row], Key]) -> Page[Row]:
    """Return the page of `limit` rows out of one row more, which only shows that there is another page."""
    shown = tuple(rows[:limit])
    return Page(shown, encode(key(shown[-1])) if len(rows) > limit else None)


def encode(key: Key) -> str:
    """Return the cursor of a key: URL-safe text that callers should not read."""
    values = [value.isoformat() if isinstance(value, datetime) else value for value in key]
    text = json.dumps(values, default=str, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode(cursor: str | None, *kinds: type) -> Key:
    """Return the key of a cursor, each value of its kind; all None without a cursor. Raises CursorInvalid."""
    if cursor is None:
        return (None,) * len(kinds)
    try:
        values = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if not isinstance(values, list) or len(values) != len(kinds):
            raise CursorInvalid
        return tuple(_value(value, kind) for value, kind in zip(values, kinds, strict=True))
    except (ValueError, TypeError, RecursionError, binascii.Error):
        raise CursorInvalid from None


def _value(value: object, kind: type) -> object:
    if kind is UUID and isinstance(value, str):
        return UUID(value)
    if kind is datetime and isinstance(value, str):
        at = datetime.fromisoformat(value)
        if at.tzinfo is None or not _FIRST <= at <= _LAST:
            raise CursorInvalid
        return at
    if kind is int and type(value) is int and abs(value) <= LARGEST_NUMBER:
        return value
    if kind is str and isinstance(value, str) and "\0" not in value:
        value.encode()  # a lone surrogate is no text of a database
        return value
    raise CursorInvalid
