"""Admission over HTTP: whether an organization may create an instance of a plan."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from containerstacks_billing.admission.admission import may_create
from containerstacks_billing.admission.schemas import Admission
from containerstacks_billing.web.auth import AsAdmin
from containerstacks_billing.web.context import InContext
from containerstacks_billing.web.problems import documented

router = APIRouter(tags=["admission"])


@router.get(
    "/organizations/{organization_id}/admission",
    summary="May this customer start that?",
    responses=documented(401, 403, 422, 429, 503),
)
def admission(
    context: InContext,
    _admin: AsAdmin,
    organization_id: UUID,
    plan: Annotated[
        str,
        Query(min_length=1, max_length=200, pattern=r"^[^\x00]*$", description="Its id or provider_plan_id"),
    ],
    hours: Annotated[
        Decimal, Query(ge=0, le=876_000, description="How long the balance has to last")
    ] = Decimal(24),
) -> Admission:
    """Return yes or no, with a sentence to show: by balance, carry, past due, what runs, and minimum balance."""
    with context.pool.snapshot() as connection:
        return may_create(connection, organization_id, plan, hours=hours, currency=context.settings.currency)
