"""Explanations of charges, ledger entries and hours, for the host application's pages."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from containerstacks_billing.explain import why
from containerstacks_billing.explain.charge_schemas import EntryDocument, ExplainedCharge
from containerstacks_billing.explain.schemas import InstanceHours, PeriodDocument
from containerstacks_billing.web.auth import AsFinance
from containerstacks_billing.web.context import InContext
from containerstacks_billing.web.problems import Refused, documented

router = APIRouter(tags=["explanations"])

LONGEST_SPAN = timedelta(days=62)
_ERRORS = documented(401, 403, 404, 422, 429, 503)
# The driver cannot read dates beyond these.
_FIRST, _LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)


@router.get("/charges/{charge_id}", summary="Where a charge comes from", responses=_ERRORS)
def charge(context: InContext, _admin: AsFinance, charge_id: UUID) -> ExplainedCharge:
    """Explain a charge: hours, rate, price, run and adjustments, and the ledger entry that pays for it."""
    with context.pool.snapshot() as connection:
        explanation = why.explain_charge(connection, charge_id)
    if explanation is None:
        raise Refused(404, "There is no such charge.")
    return ExplainedCharge.with_entry(explanation)


@router.get("/entries/{entry_id}", summary="What a ledger entry is for", responses=_ERRORS)
def entry(context: InContext, _admin: AsFinance, entry_id: UUID) -> EntryDocument:
    """Explain a ledger entry: its charges and adjustments, and what was carried in and out."""
    with context.pool.snapshot() as connection:
        explanation = why.explain_entry(connection, entry_id)
    if explanation is None:
        raise Refused(404, "There is no such ledger entry.")
    return EntryDocument.of(explanation)


@router.get(
    "/instances/{instance_id}/hours", summary="What became of the hours of an instance", responses=_ERRORS
)
def hours(
    context: InContext,
    _admin: AsFinance,
    instance_id: UUID,
    starts_at: Annotated[datetime, Query(alias="from", description="The first instant, with a time zone")],
    ends_at: Annotated[datetime, Query(alias="until", description="At most 62 days later")],
) -> InstanceHours:
    """Say of each instant of a span whether it was billed, and why not where it was not."""
    if starts_at.tzinfo is None or ends_at.tzinfo is None:
        raise Refused(422, "from and until need a time zone, like 2026-11-01T00:00:00Z.")
    if not (_FIRST <= starts_at < ends_at <= _LAST and ends_at - starts_at <= LONGEST_SPAN):
        raise Refused(422, "until has to be after from, and at most 62 days later.")
    with context.pool.snapshot() as connection:
        periods = why.instance_hours(connection, instance_id, starts_at, ends_at)
    if periods is None:
        raise Refused(404, "There is no such instance.")
    return InstanceHours(
        instance_id=instance_id,
        starts_at=starts_at,
        ends_at=ends_at,
        stretches=[PeriodDocument.of(one) for one in periods],
    )
