"""Organizations, instances, charges, ledger entries and runways, for tokens with the scope finance."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from containerstacks_billing.notifications.schemas import Runway
from containerstacks_billing.records import read
from containerstacks_billing.records.schemas import (
    ChargeDocument,
    InstanceDocument,
    LedgerEntryDocument,
    Listed,
    OrganizationDocument,
)
from containerstacks_billing.web.auth import AsFinance
from containerstacks_billing.web.context import InContext
from containerstacks_billing.web.parameters import (
    FIRST,
    LAST,
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

router = APIRouter(tags=["customers"], dependencies=[OnlyKnown])

LONGEST_SPAN_OF_INSTANCE = timedelta(days=62)
_ERRORS = documented(401, 403, 422, 429, 503)
_ERRORS_OF_ONE = documented(401, 403, 404, 422, 429, 503)
Organization = Annotated[UUID, Query(description="The id of the organization")]
OfOrganization = Annotated[UUID | None, Query(description="Only of this organization")]


@router.get("/organizations", summary="Organizations by name", responses=_ERRORS)
def organizations(
    context: InContext,
    _admin: AsFinance,
    q: Annotated[
        str | None,
        Query(
            min_length=1, max_length=100, pattern=r"^[^\x00]+$", description="Beginning of a name, or an id"
        ),
    ] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Listed[OrganizationDocument]:
    """List organizations in the order of their names, with the wallet that pays and its runway."""
    with valid_cursor(), context.pool.reading() as connection:
        page = read.organizations(connection, context.settings.currency, limit, cursor, q)
    return page_document(OrganizationDocument, page)


@router.get("/organizations/{organization_id}", summary="One organization", responses=_ERRORS_OF_ONE)
def organization(context: InContext, _admin: AsFinance, organization_id: UUID) -> OrganizationDocument:
    """Return an organization with the wallet that pays and its runway."""
    with context.pool.reading() as connection:
        found = read.organization(connection, context.settings.currency, organization_id)
    if found is None:
        raise Refused(404, "There is no such organization.")
    return OrganizationDocument.model_validate(found)


@router.get("/instances", summary="Instances by id", responses=_ERRORS)
def instances(
    context: InContext,
    _admin: AsFinance,
    organization: OfOrganization = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Listed[InstanceDocument]:
    """List instances by id, as their rows are now."""
    with valid_cursor(), context.pool.reading() as connection:
        page = read.instances(connection, limit, cursor, organization)
    return page_document(InstanceDocument, page)


@router.get("/instances/{instance_id}", summary="One instance", responses=_ERRORS_OF_ONE)
def instance(context: InContext, _admin: AsFinance, instance_id: UUID) -> InstanceDocument:
    """Return an instance as its row is now; `/hours` knows deleted ones too."""
    with context.pool.reading() as connection:
        found = read.instance(connection, instance_id)
    if found is None:
        raise Refused(404, "There is no such instance.")
    return InstanceDocument.model_validate(found)


@router.get("/charges", summary="Charges of an organization", responses=_ERRORS)
def charges(
    context: InContext,
    _admin: AsFinance,
    organization: Organization,
    instance: Annotated[
        UUID | None, Query(description="Only of this instance, within 62 days: from and until are needed")
    ] = None,
    starts_at: From = None,
    until: Until = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Listed[ChargeDocument]:
    """List the charges that begin in a span, the newest first, with the host's own rows."""
    span = span_of(starts_at, until)
    if instance is not None and (
        span.start is None or span.end is None or span.end - span.start > LONGEST_SPAN_OF_INSTANCE
    ):
        raise Refused(422, "Charges of an instance need from and until, 62 days apart at most.")
    bounded = read.Span(span.start or FIRST, span.end or LAST)
    with valid_cursor(), context.pool.reading() as connection:
        page = read.charges(connection, organization, bounded, limit, cursor, instance)
    return page_document(ChargeDocument, page)


@router.get("/entries", summary="Ledger entries of an organization", responses=_ERRORS)
def entries(
    context: InContext,
    _admin: AsFinance,
    organization: Organization,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Listed[LedgerEntryDocument]:
    """List ledger entries, the newest first."""
    with valid_cursor(), context.pool.reading() as connection:
        page = read.entries(connection, organization, limit, cursor)
    return page_document(LedgerEntryDocument, page)


@router.get("/runways", summary="When wallets are empty", responses=_ERRORS)
def runways(
    context: InContext,
    _admin: AsFinance,
    below: Annotated[
        float | None,
        Query(ge=0, le=876_000, allow_inf_nan=False, description="Only those empty within these hours"),
    ] = None,
    past_due: Annotated[bool, Query(alias="pastDue", description="Only those that owe")] = False,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Listed[Runway]:
    """List the wallets that end, soonest first; those that owe stand before all others."""
    with valid_cursor(), context.pool.reading() as connection:
        page = read.runways(connection, limit, cursor, below, past_due=past_due)
    return page_document(Runway, page)
