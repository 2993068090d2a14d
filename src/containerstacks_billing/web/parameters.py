"""Query parameters that lists share: limit, cursor, span of time; unknown ones are refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Query, Request
from fastapi.dependencies.models import Dependant

from containerstacks_billing.document import Document
from containerstacks_billing.records.model import LONGEST_CURSOR, CursorInvalid, Page
from containerstacks_billing.records.read import Span
from containerstacks_billing.records.schemas import Listed
from containerstacks_billing.web.auth import AsAdmin
from containerstacks_billing.web.problems import Refused

Row = TypeVar("Row", bound=Document)

# The driver cannot read dates beyond these.
FIRST, LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)

Limit = Annotated[int, Query(ge=1, le=200, description="Rows on a page")]
Cursor = Annotated[
    str | None,
    Query(max_length=LONGEST_CURSOR, description="`nextCursor` of the page before; opaque"),
]
From = Annotated[datetime | None, Query(alias="from", description="The first instant, with a time zone")]
Until = Annotated[datetime | None, Query(description="The first instant after, with a time zone")]


def known_parameters(request: Request, _admin: AsAdmin) -> None:
    """Refuse parameters that a route does not have: a filter with a typing error would match everything."""
    route = request.scope["route"]
    known = _query_parameters(route.dependant)
    if unknown := sorted(set(request.query_params) - known):
        there_are = f"there are {', '.join(sorted(known))}" if known else "there are none"
        raise Refused(422, f"Unknown parameter {unknown[0][:60]!a}; {there_are}.")


def _query_parameters(dependant: Dependant) -> set[str]:
    own = {one.alias for one in dependant.query_params}
    return own.union(*(_query_parameters(inner) for inner in dependant.dependencies))


OnlyKnown = Depends(known_parameters)


def span_of(start: datetime | None, end: datetime | None) -> Span:
    """Return a span of two instants, either may be open; raises Refused."""
    for at in (start, end):
        if at is not None and at.tzinfo is None:
            raise Refused(422, "from and until need a time zone, like 2026-11-01T00:00:00Z.")
        if at is not None and not FIRST <= at <= LAST:
            raise Refused(422, "from and until have to lie between 1970 and 9000.")
    if start is not None and end is not None and start >= end:
        raise Refused(422, "until has to be after from.")
    return Span(start, end)


@contextmanager
def valid_cursor() -> Iterator[None]:
    """Answer an invalid cursor with 422."""
    try:
        yield
    except CursorInvalid as error:
        raise Refused(422, f"{error} {error.hint}") from None


def listed(kind: type[Row], page: Page[Any]) -> dict[str, Any]:
    """Return the fields of a page whose rows are documents of a kind."""
    return {
        "data": rows_of(kind, page.rows),
        "has_more": page.next_cursor is not None,
        "next_cursor": page.next_cursor,
    }


def page_document(kind: type[Row], page: Page[Any]) -> Listed[Row]:
    """Return a page as a document."""
    return Listed[kind](**listed(kind, page))  # type: ignore[valid-type]


def rows_of(kind: type[Row], rows: Sequence[Any]) -> list[Row]:
    """Return rows as documents of a kind."""
    return [kind.model_validate(row) for row in rows]
