"""Pages that explain: the life of an instance, a charge from cent to cause, and a ledger entry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Literal
from uuid import UUID

from fastapi import Query, Request
from fastapi.responses import HTMLResponse

from containerstacks_billing.explain import why
from containerstacks_billing.explain.customer import charge_sentences, entry_sentences
from containerstacks_billing.explain.timeline import Period, State, merged
from containerstacks_billing.records import read
from containerstacks_billing.web.console.site import Accountant, new_router, show
from containerstacks_billing.web.context import InContext
from containerstacks_billing.web.plot import WIDTH
from containerstacks_billing.web.problems import Refused

router = new_router()

MOST_ROWS = 800
_TONES = {
    State.BILLED: "good",
    State.BY_HOST: "good",
    State.PAST_DUE: "warning",
    State.HELD: "warning",
    State.QUARANTINED: "bad",
    State.UNKNOWN: "bad",
    State.DUE: "busy",
    State.NOT_DUE_YET: "busy",
}


@dataclass(frozen=True, slots=True)
class Piece:
    """A period of the life of an instance as a rectangle of the strip."""

    x: float
    width: float
    tone: str
    title: str


@router.get("/status/instances/{instance_id}")
def instance(
    request: Request,
    context: InContext,
    session: Accountant,
    instance_id: UUID,
    days: Annotated[Literal["1", "7", "30"], Query()] = "7",
) -> HTMLResponse:
    """Show what became of every instant of an instance within some days: billed, or why not."""
    now = context.readings.health().now
    start = now - timedelta(days=int(days))
    with context.pool.snapshot() as connection:
        row = read.instance(connection, instance_id)
        periods = why.instance_hours(connection, instance_id, start, now)
        organization = row["organization_id"] if row else None
        left_out = read.left_out(connection, 200, organization=organization).rows if organization else ()
    if periods is None:
        raise Refused(404, "There is no such instance.")
    return show(
        request,
        session,
        "instance",
        instance_id=instance_id,
        instance=row,
        strip=_strip(periods, start, now),
        periods=list(reversed(merged(periods))),
        charges=list(reversed([one for one in periods if one.charge_id]))[:MOST_ROWS],
        waits=[one for one in left_out if one["instance_id"] == instance_id],
        days=days,
        start=start,
        now=now,
        tones=_TONES,
        currency=context.settings.currency,
    )


def _strip(periods: Sequence[Period], start: datetime, end: datetime) -> list[Piece]:
    length = end - start
    pieces = []
    for one in merged(periods):
        begin, until = max(one.starts_at, start), min(one.ends_at, end)
        if begin < until:
            x, width = (begin - start) / length * WIDTH, (until - begin) / length * WIDTH
            title = f"{begin:%d %b %H:%M} to {until:%d %b %H:%M} UTC: {one.state}"
            tone = _TONES.get(one.state, "quiet")
            pieces.append(Piece(round(x, 2), round(max(width, 0.5), 2), tone, title))
    return pieces


@router.get("/status/charges/{charge_id}")
def charge(request: Request, context: InContext, session: Accountant, charge_id: UUID) -> HTMLResponse:
    """Show where a charge comes from: hours, rate, price, run, adjustments, and the ledger entry that pays for it."""
    with context.pool.snapshot() as connection:
        found = why.explain_charge(connection, charge_id)
    if found is None:
        raise Refused(404, "There is no such charge.")
    return show(
        request,
        session,
        "charge",
        charge=found.charge,
        paid_by=found.paid_by,
        sentences=charge_sentences(found),
        findings=found.findings(),
        currency=context.settings.currency,
    )


@router.get("/status/entries/{entry_id}")
def entry(request: Request, context: InContext, session: Accountant, entry_id: UUID) -> HTMLResponse:
    """Show what a ledger entry is for: its charges and adjustments, and what was carried in and out."""
    with context.pool.snapshot() as connection:
        found = why.explain_entry(connection, entry_id)
    if found is None:
        raise Refused(404, "There is no such ledger entry.")
    return show(
        request,
        session,
        "entry",
        explained=found,
        entry=found.entry,
        charges=found.charges[:MOST_ROWS],
        left=max(len(found.charges) - MOST_ROWS, 0),
        sentences=entry_sentences(found),
        findings=found.findings(),
        currency=context.settings.currency,
    )
