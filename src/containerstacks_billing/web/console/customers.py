"""Pages of customers: organizations, one of them with its ledger, its instances and its statements."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from containerstacks_billing.explain import why
from containerstacks_billing.explain.issue import as_issued
from containerstacks_billing.explain.letterhead import read_letterhead
from containerstacks_billing.explain.month import MonthRefused, month_named, month_of
from containerstacks_billing.explain.statement import Reading
from containerstacks_billing.explain.statement_files import Format, publisher
from containerstacks_billing.records import read
from containerstacks_billing.records.model import Page
from containerstacks_billing.web.console.site import (
    ROWS,
    Accountant,
    Cursor,
    Words,
    new_router,
    next_page,
    show,
)
from containerstacks_billing.web.context import Context, InContext
from containerstacks_billing.web.plot import Plot, Point, plot_of
from containerstacks_billing.web.problems import Refused

router = new_router()

Order = Literal["name", "runway", "past-due"]
_PLACES = {"charge": "charges", "entry": "entries", "instance": "instances", "organization": "organizations"}
_MEDIA = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "pdf": "application/pdf",
}
_DAY = timedelta(days=1)


@router.get("/status/organizations")
def organizations(
    request: Request,
    context: InContext,
    session: Accountant,
    q: Words = None,
    sort: Annotated[Order, Query()] = "name",
    cursor: Cursor = None,
) -> Response:
    """Show organizations by name or runway; an id of anything leads to the page of what it names."""
    text = (q or "").strip()
    if (wanted := _uuid(text)) and (place := _place_of(context, wanted)):
        return RedirectResponse(f"{place}/{wanted}", 303)
    with context.pool.reading() as connection:
        page: Page[Any]
        if sort == "name" or text:
            page = read.organizations(connection, context.settings.currency, ROWS, cursor, text or None)
        else:
            page = read.runways(connection, ROWS, cursor, past_due=sort == "past-due")
    return show(
        request,
        session,
        "organizations",
        rows=page.rows,
        next=next_page(request, page),
        q=text,
        sort="name" if text else sort,
        now=context.readings.health().now,
    )


def _place_of(context: Context, wanted: UUID) -> str | None:
    with context.pool.snapshot() as connection:
        kind = why.find(connection, wanted).kind
    return _PLACES.get(kind or "")


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


@router.get("/status/organizations/{organization_id}")
def organization(
    request: Request,
    context: InContext,
    session: Accountant,
    organization_id: UUID,
    cursor: Cursor = None,
    after: Cursor = None,
) -> HTMLResponse:
    """Show an organization: balance and runway, ledger with running balance, instances, decisions, statements."""
    currency = context.settings.currency
    with context.pool.reading() as connection:
        found = read.organization(connection, currency, organization_id)
        if found is None:
            raise Refused(404, "There is no such organization.")
        entries = read.entries(connection, organization_id, ROWS, cursor)
        moved = read.moved_since(connection, organization_id, cursor)
        days = read.moved_by_day(connection, organization_id)
        instances = read.instances(connection, ROWS, after, organization_id)
        left_out = read.left_out(connection, ROWS, organization=organization_id)
        decisions = read.decisions(connection, 20, organization=organization_id)
    now = context.readings.health().now
    debits, balances = _curves(days, found["balance"], now)
    return show(
        request,
        session,
        "organization",
        organization=found,
        entries=list(zip(entries.rows, _running(entries.rows, found["balance"], moved), strict=True)),
        earlier=next_page(request, entries),
        instances=instances.rows,
        more_instances=instances.next_cursor,
        left_out=left_out.rows,
        decisions=decisions.rows,
        debits=debits,
        balances=balances,
        months=_months(now),
        now=now,
    )


def _running(entries: Sequence[Any], balance: Decimal | None, moved: Decimal) -> list[Decimal | None]:
    """Return the balance after each entry, newest first, from the present balance backwards."""
    if balance is None:
        return [None] * len(entries)
    after = balance - moved
    found: list[Decimal | None] = []
    for entry in entries:
        found.append(after)
        if entry["status"] == "completed" and entry["amount"].is_finite():
            after -= entry["amount"]
    return found


def _curves(days: Sequence[Any], balance: Decimal | None, now: datetime) -> tuple[Plot, Plot]:
    """Return what was debited a day, and the balance at the end of each day."""
    end = now.replace(hour=0, minute=0, second=0, microsecond=0) + _DAY
    start = end - 31 * _DAY
    by_day = {day["starts_at"]: day for day in days}
    debits, balances, after = [], [], balance
    for back in range(31):
        at = end - (back + 1) * _DAY
        day = by_day.get(at)
        debits.append(Point(at, float(day["debited"]) if day else 0.0))
        balances.append(Point(at, None if after is None else max(float(after), 0.0)))
        if day and after is not None:
            after -= day["added"] - day["debited"]
    return tuple(
        plot_of(points[::-1], start, end, _DAY, lambda value: f"{value:,.2f}")
        for points in (debits, balances)
    )  # type: ignore[return-value]


def _months(now: datetime) -> list[str]:
    """Return the last six months, the present one first."""
    year, month = now.year, now.month
    found = []
    for _ in range(6):
        found.append(f"{year}-{month:02}")
        year, month = (year - 1, 12) if month == 1 else (year, month - 1)
    return found


@router.get("/status/organizations/{organization_id}/statement")
def statement(
    context: InContext,
    _session: Accountant,
    organization_id: UUID,
    month: Annotated[str, Query(max_length=10)] = "",
    form: Annotated[Format, Query(alias="format")] = "csv",
) -> Response:
    """Send the statement of a month as a file: as issued, or as a preview."""
    now = context.readings.health().now
    try:
        chosen = month_named(month) if month else month_of(now)
    except MonthRefused as error:
        raise Refused(422, str(error)) from None
    currency = context.settings.currency
    with context.pool.snapshot() as connection:
        found = as_issued(connection, Reading(chosen, currency), organization_id)
    if found is None:
        raise Refused(404, "There is no such organization.")
    with publisher({form}, read_letterhead(None), currency, "UTC") as published:
        contents = published.contents(found, form)
    name = f"statement-{chosen.name}-{organization_id}.{form}"
    return Response(
        contents,
        headers={"Content-Type": _MEDIA[form], "Content-Disposition": f'attachment; filename="{name}"'},
    )
