"""Runs in detail, prices, events for the host, and the last result of verify."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Query

from containerstacks_billing.notifications.model import Kind
from containerstacks_billing.notifications.schemas import EventDocument
from containerstacks_billing.pricing.schemas import Prices
from containerstacks_billing.pricing.versions import find_plans, price_versions
from containerstacks_billing.records import read
from containerstacks_billing.records.model import LARGEST_NUMBER, Page
from containerstacks_billing.records.schemas import Listed, RunDetail
from containerstacks_billing.status.schemas import Run
from containerstacks_billing.verification.results import last_verification
from containerstacks_billing.verification.schemas import VerificationRecord
from containerstacks_billing.web.auth import AsAdmin
from containerstacks_billing.web.context import InContext
from containerstacks_billing.web.parameters import (
    Cursor,
    From,
    Limit,
    OnlyKnown,
    Until,
    page_document,
    span_of,
    valid_cursor,
)
from containerstacks_billing.web.problems import Refused, documented

router = APIRouter(tags=["operations"], dependencies=[OnlyKnown])

_ERRORS = documented(401, 403, 422, 429, 503)
_ERRORS_OF_ONE = documented(401, 403, 404, 422, 429, 503)
Outcome = Literal["completed", "interrupted", "failed", "held", "open"]


@router.get("/runs", summary="Runs, newest first", responses=_ERRORS)
def runs(
    context: InContext,
    _admin: AsAdmin,
    outcome: Annotated[Outcome | None, Query(description="Only with this outcome; open: in progress")] = None,
    trigger: Annotated[
        str | None,
        Query(
            min_length=1,
            max_length=40,
            pattern=r"^[^\x00]+$",
            description="daemon, built-in, manual or other",
        ),
    ] = None,
    started_from: From = None,
    until: Until = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Listed[Run]:
    """List runs by outcome, trigger and the time at which they began."""
    span = span_of(started_from, until)
    with valid_cursor(), context.pool.reading() as connection:
        page = read.runs(connection, limit, cursor, outcome, trigger, span)
    return page_document(Run, page)


@router.get("/runs/{run_id}", summary="One run", responses=_ERRORS_OF_ONE)
def run(
    context: InContext, _admin: AsAdmin, run_id: Annotated[int, Path(ge=1, le=LARGEST_NUMBER)]
) -> RunDetail:
    """Return a run, what it was held by and who released it."""
    with context.pool.reading() as connection:
        found = read.run(connection, run_id)
    if found is None:
        raise Refused(404, "There is no such run.")
    record, hold = found
    return RunDetail.model_validate(Run.of(record).model_dump() | hold)


@router.get("/prices", summary="Prices of plans", responses=_ERRORS)
def prices(
    context: InContext,
    _admin: AsAdmin,
    plan: Annotated[
        str | None,
        Query(
            min_length=1,
            max_length=255,
            pattern=r"^[^\x00]+$",
            description="A plan by id, provider id or name",
        ),
    ] = None,
) -> Prices:
    """Return plans with every price they had, have and will have."""
    hours = context.settings.hours_per_month
    with context.pool.snapshot() as connection:
        plans = find_plans(connection, plan)
        versions = price_versions(connection, plans, hours)
    return Prices.of(hours, plans, versions)


@router.get("/events", summary="Events for the host, newest first", responses=_ERRORS)
def events(
    context: InContext,
    _admin: AsAdmin,
    state: Annotated[Literal["waiting", "delivered", "dead"] | None, Query(description="Only these")] = None,
    kind: Annotated[Kind | None, Query(description="Only of this kind")] = None,
    organization: Annotated[UUID | None, Query(description="Only of this organization")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Listed[EventDocument]:
    """List events, and how their delivery stands."""
    with valid_cursor(), context.pool.reading() as connection:
        page = read.events(connection, limit, cursor, state, kind.value if kind else None, organization)
    shown = Page(tuple(EventDocument.of(row) for row in page.rows), page.next_cursor)
    return page_document(EventDocument, shown)


@router.get("/verification", summary="The last result of verify", responses=_ERRORS_OF_ONE)
def verification(context: InContext, _admin: AsAdmin) -> VerificationRecord:
    """Return when the books were last compared, by whom, and with what result."""
    with context.pool.reading() as connection:
        found = last_verification(connection)
    if found is None:
        raise Refused(404, "verify has recorded no result yet: containerstacks-billing verify")
    return VerificationRecord.model_validate(found)
