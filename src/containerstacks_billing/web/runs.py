"""Runs and figures, for admins."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from containerstacks_billing.status.read import LAST_RUN, billed_lately, recent_runs
from containerstacks_billing.status.schemas import Run
from containerstacks_billing.status.verdict import verdict_of
from containerstacks_billing.web.auth import AsAdmin
from containerstacks_billing.web.context import InContext
from containerstacks_billing.web.problems import documented
from containerstacks_billing.web.schemas import Runs, Summary, Window

router = APIRouter(tags=["billing"])
summary_router = APIRouter(tags=["billing"])


@router.get("/runs", summary="The runs, newest first", responses=documented(401, 403, 422, 429, 503))
def runs(
    context: InContext,
    _admin: AsAdmin,
    limit: Annotated[int, Query(ge=1, le=200, description="Runs on a page")] = 50,
    before: Annotated[
        int | None, Query(ge=1, le=LAST_RUN, description="Only runs before this number")
    ] = None,
) -> Runs:
    """List billing runs, newest first."""
    with context.pool.reading() as connection:
        rows = recent_runs(connection, limit, LAST_RUN if before is None else before)
    return Runs(
        runs=[Run.of(row) for row in rows], next_before=rows[-1].run_id if len(rows) == limit else None
    )


@summary_router.get("/summary", summary="Billing in a few figures", responses=documented(401, 403, 429, 503))
def summary(context: InContext, _admin: AsAdmin) -> Summary:
    """Sum up what was billed, and what could not be."""
    health = context.readings.health()
    with context.pool.reading() as connection:
        figures = billed_lately(connection)
    day, week, thirty_days = (
        Window.model_validate(dict(zip(("runs", "hours", "amount"), figures[start : start + 3], strict=True)))
        for start in (0, 3, 6)
    )
    last, successful, open_run = health.last_finished, health.last_successful, health.in_progress
    return Summary(
        timestamp=health.now,
        currency=context.settings.currency,
        biller=verdict_of(health, context.settings).biller,
        day=day,
        week=week,
        thirty_days=thirty_days,
        past_due_instances=last.past_due_instances if last else 0,
        quarantined_instances=health.quarantined_instances,
        held_instances=health.held_instances,
        set_aside=health.quarantine,
        last_run=Run.of(last) if last else None,
        last_successful_run=Run.of(successful) if successful else None,
        run_in_progress=Run.of(open_run) if open_run else None,
    )
