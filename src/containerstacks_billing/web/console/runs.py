"""Pages of runs: the list with its filters, and one run."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Path, Query, Request
from fastapi.responses import HTMLResponse

from containerstacks_billing.records import read
from containerstacks_billing.records.model import LARGEST_NUMBER
from containerstacks_billing.web.console.site import (
    ROWS,
    Cursor,
    Reader,
    Words,
    new_router,
    next_page,
    show,
)
from containerstacks_billing.web.context import InContext
from containerstacks_billing.web.problems import Refused

router = new_router()

OUTCOMES = ("completed", "interrupted", "failed", "held", "open")
TRIGGERS = ("daemon", "built-in", "manual")


@router.get("/status/runs")
def runs(
    request: Request,
    context: InContext,
    session: Reader,
    outcome: Annotated[Literal["", "completed", "interrupted", "failed", "held", "open"], Query()] = "",
    trigger: Words = None,
    cursor: Cursor = None,
) -> HTMLResponse:
    """Show runs, newest first, by outcome and trigger."""
    with context.pool.reading() as connection:
        page = read.runs(connection, ROWS, cursor, outcome or None, trigger or None)
    return show(
        request,
        session,
        "runs",
        runs=page.rows,
        next=next_page(request, page),
        outcome=outcome,
        trigger=trigger or "",
        outcomes=OUTCOMES,
        triggers=TRIGGERS,
        currency=context.settings.currency,
    )


@router.get("/status/runs/{run_id}")
def run(
    request: Request,
    context: InContext,
    session: Reader,
    run_id: Annotated[int, Path(ge=1, le=LARGEST_NUMBER)],
) -> HTMLResponse:
    """Show a run: its batches, what it charged and left out, its error, and who released it."""
    with context.pool.reading() as connection:
        found = read.run(connection, run_id)
    if found is None:
        raise Refused(404, "There is no such run.")
    record, hold = found
    return show(
        request, session, "run", run=record, hold=hold, currency=context.settings.currency,
    )  # fmt: skip
