"""Quarantined and held instances, the run that is held, and the decisions that were taken."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from containerstacks_billing.charging.fleet_reading import latest_hold
from containerstacks_billing.charging.schemas import QuarantinedInstance
from containerstacks_billing.holds.model import HELD
from containerstacks_billing.records import read
from containerstacks_billing.records.schemas import DecisionDocument, HeldRun, Holds, Listed
from containerstacks_billing.web.auth import AsAdmin
from containerstacks_billing.web.context import InContext
from containerstacks_billing.web.parameters import (
    Cursor,
    Limit,
    OnlyKnown,
    listed,
    page_document,
    valid_cursor,
)
from containerstacks_billing.web.problems import documented

router = APIRouter(tags=["decisions"], dependencies=[OnlyKnown])

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
    """List what was decided about held hours and discrepancies, by whom and why."""
    with valid_cursor(), context.pool.reading() as connection:
        page = read.decisions(connection, limit, cursor, organization)
    return page_document(DecisionDocument, page)
