"""The page of charts: what was billed, the fleet, the runs and what waits, over four spans of time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal

from fastapi import Query, Request
from fastapi.responses import HTMLResponse

from containerstacks_billing.status.series import SPANS, Bucket, Span, read_series
from containerstacks_billing.web.console.site import Reader, new_router, show
from containerstacks_billing.web.context import InContext
from containerstacks_billing.web.formatting import duration, money, whole
from containerstacks_billing.web.plot import Plot, Point, plot_of

router = new_router()


@dataclass(frozen=True, slots=True)
class Figure:
    """One chart: its title, the value of a bucket, and how that is written."""

    title: str
    value: Callable[[Bucket], float | None]
    write: Callable[[float], str]


def _figures(currency: str) -> Sequence[Figure]:
    def amount(value: float) -> str:
        return f"{value:,.2f} {currency}"

    return (
        Figure("Billed", lambda one: float(one.amount), amount),
        Figure("Instances billed", lambda one: one.instances, whole),
        Figure("What the fleet costs an hour", lambda one: float(one.hourly_rate), amount),
        Figure("How long runs took", lambda one: one.duration_seconds, lambda value: duration(float(value))),
        Figure("Hours since the run before", lambda one: one.since_previous_hours, lambda value: f"{value:,.1f} h"),
        Figure("Instances past due", lambda one: one.past_due_instances, whole),
        Figure("Amount past due", _past_due, amount),
        Figure("Quarantined and held instances", lambda one: one.left_out, whole),
    )  # fmt: skip


def _past_due(one: Bucket) -> float | None:
    return None if one.past_due_amount is None else float(one.past_due_amount)


@router.get("/status/charts")
def charts(
    request: Request,
    context: InContext,
    session: Reader,
    span: Annotated[Literal["24h", "7d", "30d", "12m"], Query()] = "24h",
) -> HTMLResponse:
    """Show the charts of a span that ends now."""
    chosen = SPANS[span]
    now = context.readings.health().now
    with context.pool.reading() as connection:
        buckets = read_series(connection, chosen)
    figures = _figures(context.settings.currency)
    return show(
        request,
        session,
        "charts",
        span=chosen,
        spans=SPANS.values(),
        now=now,
        buckets=buckets,
        total=money(sum((one.amount for one in buckets), start=Decimal(0))),
        currency=context.settings.currency,
        plots=[(figure.title, _plot(figure, buckets, chosen, now)) for figure in figures],
    )


def _plot(figure: Figure, buckets: Sequence[Bucket], span: Span, now: datetime) -> Plot:
    points = [Point(one.starts_at, figure.value(one)) for one in buckets]
    return plot_of(points, now - span.length, now, span.step, figure.write)
