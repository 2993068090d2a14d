"""Pages of prices, of events with their deliveries, and of the last verification."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Query, Request
from fastapi.responses import HTMLResponse

from containerstacks_billing.notifications.model import Kind
from containerstacks_billing.notifications.schemas import EventDocument
from containerstacks_billing.pricing.versions import find_plans, price_versions
from containerstacks_billing.records import read
from containerstacks_billing.verification.results import last_verification
from containerstacks_billing.web.console.site import (
    ROWS,
    Cursor,
    Reader,
    new_router,
    next_page,
    show,
)
from containerstacks_billing.web.context import InContext

router = new_router()


@router.get("/status/prices")
def prices(request: Request, context: InContext, session: Reader) -> HTMLResponse:
    """Show plans with every price they had, have and will have."""
    settings = context.settings
    with context.pool.snapshot() as connection:
        plans = find_plans(connection, None)
        versions = price_versions(connection, plans, settings.hours_per_month)
    return show(
        request,
        session,
        "prices",
        plans=plans,
        versions=versions,
        hours_per_month=settings.hours_per_month,
        currency=settings.currency,
    )


@router.get("/status/deliveries")
def events(
    request: Request,
    context: InContext,
    session: Reader,
    state: Annotated[Literal["", "waiting", "delivered", "dead"], Query()] = "",
    kind: Annotated[Kind | Literal[""], Query()] = "",
    cursor: Cursor = None,
) -> HTMLResponse:
    """Show events for the host, newest first, and how their delivery stands."""
    with context.pool.reading() as connection:
        page = read.events(connection, ROWS, cursor, state or None, kind.value if kind else None)
    return show(
        request,
        session,
        "deliveries",
        events=[EventDocument.of(row) for row in page.rows],
        next=next_page(request, page),
        state=state,
        kind=kind.value if kind else "",
        kinds=[one.value for one in Kind],
    )


@router.get("/status/verification")
def verification(request: Request, context: InContext, session: Reader) -> HTMLResponse:
    """Show when the books were last compared, by whom, and with what result."""
    with context.pool.reading() as connection:
        found = last_verification(connection)
    return show(request, session, "verification", found=found, checks=_checks(found))


def _checks(found: dict[str, object] | None) -> list[dict[str, object]]:
    document = found["document"] if found else None
    checks = document.get("checks") if isinstance(document, dict) else None
    return checks if isinstance(checks, list) else []
