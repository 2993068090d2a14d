"""Pages of what waits for a decision, and its release: a preview first, a reason, and a form of this session."""

from __future__ import annotations

from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from containerstacks_billing.charging.fleet_reading import latest_hold
from containerstacks_billing.records import read
from containerstacks_billing.web.console.site import (
    ROWS,
    Cursor,
    Decider,
    Form,
    Reader,
    Words,
    new_router,
    next_page,
    require_own_form,
    show,
)
from containerstacks_billing.web.context import InContext
from containerstacks_billing.web.releases import (
    Order,
    ReleaseRefused,
    order_of,
    preview_run,
    release_instances,
    release_run,
)
from containerstacks_billing.web.rendering import PAGE_HEADERS

router = new_router()

_FIELDS = ("decision", "hours", "instance", "organization", "reason")


@router.get("/status/decisions")
def decisions(
    request: Request,
    context: InContext,
    session: Reader,
    reason: Words = None,
    cursor: Cursor = None,
    before: Cursor = None,
) -> HTMLResponse:
    """Show the held run, the instances that were left out by reason, and the decisions that were taken."""
    health = context.readings.health()
    with context.pool.reading() as connection:
        hold = latest_hold(connection)
        left_out = read.left_out(connection, ROWS, cursor, reason=reason or None)
        taken = read.decisions(connection, ROWS, before)
    return show(
        request,
        session,
        "decisions",
        hold=hold,
        reasons=health.quarantine,
        reason=reason or "",
        left_out=left_out.rows,
        next=next_page(request, left_out),
        taken=taken.rows,
        earlier=taken.next_cursor,
        now=health.now,
    )


@router.get("/status/release")
def release_form(
    request: Request, session: Decider, instance: Words = None, organization: Words = None
) -> HTMLResponse:
    """Show the form of a decision about held hours."""
    values = {"instance": instance or "", "organization": organization or "", "decision": "charge"}
    return _form(request, session, values)


@router.post("/status/release")
def release(request: Request, context: InContext, session: Decider, form: Form) -> Response:
    """Preview a decision about held hours, or take it."""
    require_own_form(request, session, form)
    is_taken = form.get("step") == "decide"
    try:
        order = Order.model_validate(
            {name: form[name] for name in _FIELDS if form.get(name) and not _is_unused(name, form)}
        )
        wanted = order_of(order, session.name, dry_run=not is_taken)
        released = release_instances(context, wanted)
    except ValueError:
        return _form(
            request, session, form, "Give a decision, a reason, and the number of hours for a cap.", 422
        )
    except ReleaseRefused as error:
        return _form(request, session, form, str(error), 409)
    if is_taken:
        return RedirectResponse("decisions", 303, headers=PAGE_HEADERS)
    if not released.instances:
        return _form(request, session, form, "Nothing is held there any more.", 409)
    return _form(request, session, form, preview=released, currency=context.settings.currency)


def _is_unused(name: str, form: dict[str, str]) -> bool:
    """Whether a field belongs to another decision: the hours stay in the form while another one is chosen."""
    return name == "hours" and form.get("decision") != "cap"


def _form(
    request: Request,
    session: Decider,
    form: dict[str, str],
    problem: str | None = None,
    status: int = 200,
    **values: object,
) -> HTMLResponse:
    shown = {"preview": None, "currency": ""} | values
    fields = {name: form.get(name, "") for name in _FIELDS}
    return show(request, session, "release", status, form=fields, problem=problem, **shown)


@router.get("/status/release-run")
def release_run_form(request: Request, context: InContext, session: Decider) -> HTMLResponse:
    """Show the run that is held, and the form of its release."""
    return _run_form(request, context, session, "")


@router.post("/status/release-run")
def release_held_run(request: Request, context: InContext, session: Decider, form: Form) -> Response:
    """Preview what the next run would charge after a release of the held one, or release it."""
    require_own_form(request, session, form)
    reason = form.get("reason", "").strip()
    if not reason:
        return _run_form(request, context, session, "", "Give a reason; it is kept.", 422)
    try:
        if form.get("step") == "decide":
            release_run(context, _number(form.get("run")), session.name, reason)
            return RedirectResponse("decisions", 303, headers=PAGE_HEADERS)
        forecast = preview_run(context)
    except ReleaseRefused as error:
        return _run_form(request, context, session, reason, str(error), 409)
    return _run_form(request, context, session, reason, forecast=forecast)


def _number(text: str | None) -> int:
    return int(text) if text and text.isdigit() and len(text) < 19 else 0


def _run_form(
    request: Request,
    context: InContext,
    session: Decider,
    reason: str,
    problem: str | None = None,
    status: int = 200,
    forecast: object = None,
) -> HTMLResponse:
    with context.pool.reading() as connection:
        hold = latest_hold(connection)
    return show(
        request, session, "release_run", status, hold=hold, reason=reason, problem=problem, forecast=forecast,
        currency=context.settings.currency,
    )  # fmt: skip
