"""Quarantined and held instances, the run that is held, and the decisions that were taken."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Query

from containerstacks_billing.charging.fleet_reading import latest_hold
from containerstacks_billing.charging.schemas import QuarantinedInstance
from containerstacks_billing.holds.model import HELD
from containerstacks_billing.holds.schemas import Released, ReleasedRun, WouldCharge
from containerstacks_billing.records import read
from containerstacks_billing.records.model import LARGEST_NUMBER
from containerstacks_billing.records.schemas import DecisionDocument, HeldRun, Holds, Listed
from containerstacks_billing.web.auth import AsAdmin, AsDecider, DeciderRoute
from containerstacks_billing.web.context import InContext
from containerstacks_billing.web.parameters import (
    Cursor,
    Limit,
    OnlyKnown,
    listed,
    page_document,
    valid_cursor,
)
from containerstacks_billing.web.problems import Refused, documented
from containerstacks_billing.web.releases import (
    HeldRunOrder,
    Order,
    ReleaseRefused,
    order_of,
    preview_run,
    release_instances,
    release_run,
)

router = APIRouter(tags=["decisions"], dependencies=[OnlyKnown])
release_router = APIRouter(tags=["decisions"], dependencies=[OnlyKnown], route_class=DeciderRoute)

_ERRORS = documented(401, 403, 422, 429, 503)
OfOrganization = Annotated[UUID | None, Query(description="Only of this organization")]


@router.get("/quarantine", summary="Instances that the last run left out", responses=_ERRORS)
def quarantine(
    context: InContext,
    _admin: AsAdmin,
    organization: OfOrganization = None,
    reason: Annotated[
        str | None,
        Query(
            min_length=1, max_length=200, pattern=r"^[^\x00]+$", description="Only for this reason, e.g. held"
        ),
    ] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Listed[QuarantinedInstance]:
    """List quarantined and held instances, the longest first."""
    with valid_cursor(), context.pool.reading() as connection:
        page = read.left_out(connection, limit, cursor, organization, reason)
    return page_document(QuarantinedInstance, page)


@router.get("/holds", summary="What waits for a decision", responses=_ERRORS)
def holds(
    context: InContext,
    _admin: AsAdmin,
    organization: OfOrganization = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Holds:
    """Return the run that is held, and the instances whose hours are."""
    with valid_cursor(), context.pool.reading() as connection:
        hold = latest_hold(connection)
        page = read.left_out(connection, limit, cursor, organization, HELD)
    run = HeldRun.model_validate(hold) if hold else None
    return Holds(run=run, **listed(QuarantinedInstance, page))


@router.get("/decisions", summary="Decisions, newest first", responses=_ERRORS)
def decisions(
    context: InContext,
    _admin: AsAdmin,
    organization: OfOrganization = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Listed[DecisionDocument]:
    """List what was decided about held hours, discrepancies, past prices and held runs, by whom and why."""
    with valid_cursor(), context.pool.reading() as connection:
        page = read.decisions(connection, limit, cursor, organization)
    return page_document(DecisionDocument, page)


_DECISION_ERRORS = documented(400, 401, 403, 409, 413, 422, 429, 503)


@release_router.post("/holds/release", summary="Decide about held hours", responses=_DECISION_ERRORS)
def release_held_hours(context: InContext, admin: AsDecider, order: Order) -> Released:
    """Charge, cap or waive held hours: of an instance, of an organization, or of all. A preview changes nothing."""
    decision = order_of(order, admin.name, dry_run=order.step == "preview")
    try:
        return Released.of(release_instances(context, decision), decision)
    except ReleaseRefused as error:
        raise Refused(409, str(error)) from error


@release_router.post("/runs/{run_id}/release", summary="Release a held run", responses=_DECISION_ERRORS)
def release_held_run(
    context: InContext,
    admin: AsDecider,
    run_id: Annotated[int, Path(ge=1, le=LARGEST_NUMBER)],
    order: HeldRunOrder,
) -> ReleasedRun:
    """Let billing go on after a held run. A preview says what the next run would charge, and changes nothing."""
    is_taken = order.step == "decide"
    try:
        if is_taken:
            release_run(context, run_id, admin.name, order.reason)
        forecast = None if is_taken else preview_run(context)
    except ReleaseRefused as error:
        raise Refused(409, str(error)) from error
    return ReleasedRun(
        released=is_taken,
        run_id=run_id,
        sentence=None,
        decided_by=admin.name,
        reason=order.reason,
        dry_run=not is_taken,
        would_charge=WouldCharge.model_validate(forecast) if forecast else None,
    )
