"""Signing in to the pages and out of them."""

from __future__ import annotations

import re

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from containerstacks_billing.errors import BillingError
from containerstacks_billing.version import __version__
from containerstacks_billing.web.auth import admit
from containerstacks_billing.web.forms import form_of, from_this_origin
from containerstacks_billing.web.pages import pages_of
from containerstacks_billing.web.problems import Refused
from containerstacks_billing.web.rendering import PAGE_HEADERS, template
from containerstacks_billing.web.sessions import COOKIE, LIFETIME_SECONDS, carries

router = APIRouter(include_in_schema=False)

# A page below /status to return to: no scheme, no host, no step upwards.
_PAGE = re.compile(r"[a-z][a-z-]*(/[0-9a-f-]{1,36})?(\?[A-Za-z0-9_.~%&=+:-]{0,1500})?")


@router.get("/status/sign-in")
def sign_in_form(request: Request) -> Response:
    """Ask for a token."""
    wanted = request.query_params.get("to", "")
    if pages_of(request).sessions.find(request.cookies.get(COOKIE)):
        return RedirectResponse(_place(wanted), 303)
    return _sign_in_page(200, None, wanted=wanted)


@router.post("/status/sign-in")
async def sign_in(request: Request) -> Response:
    """Begin a session for a token that the API would take."""
    page = pages_of(request)
    if not from_this_origin(request):
        return _sign_in_page(403, "This form came from another site, so it was not accepted.")
    form = await form_of(request)
    bearer, wanted = form.get("token", "").strip(), form.get("to", "")
    if not bearer:
        return _sign_in_page(422, "Enter a token first.", wanted=wanted)
    try:
        admin = await run_in_threadpool(admit, page.context, request, bearer)
    except Refused as refusal:
        headers = {"Retry-After": refusal.headers["Retry-After"]} if "Retry-After" in refusal.headers else {}
        return _sign_in_page(refusal.status, refusal.detail, headers, wanted)
    except BillingError:
        return _sign_in_page(
            503, "The database does not answer, so no token can be looked up.", wanted=wanted
        )
    page.sessions.end(request.cookies.get(COOKIE))
    response = RedirectResponse(_place(wanted), 303, headers=PAGE_HEADERS)
    # Without a path the cookie belongs to /status, wherever a host or a proxy has put that.
    response.set_cookie(
        COOKIE,
        page.sessions.begin(admin.name, bearer, admin.scopes),
        max_age=int(LIFETIME_SECONDS),
        path=None,
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
    return response


@router.post("/status/sign-out")
async def sign_out(request: Request) -> Response:
    """End the session."""
    page = pages_of(request)
    cookie = request.cookies.get(COOKIE)
    session = await run_in_threadpool(page.sessions.find, cookie)
    form = await form_of(request)
    if session and not (from_this_origin(request) and carries(session, form.get("csrf", ""))):
        return _sign_in_page(403, "This form came from another site, so it was not accepted.")
    page.sessions.end(cookie)
    response = RedirectResponse("../status", 303, headers=PAGE_HEADERS)
    response.set_cookie(COOKIE, "", max_age=0, path=None, httponly=True, samesite="strict")
    return response


def _place(wanted: str) -> str:
    """Return where a sign-in leads, relative to its own address."""
    return wanted if _PAGE.fullmatch(wanted) else "../status"


def _sign_in_page(
    status: int, problem: str | None, headers: dict[str, str] | None = None, wanted: str = ""
) -> HTMLResponse:
    text = template("sign_in.html").render(problem=problem, version=__version__, prefix="", wanted=wanted)
    return HTMLResponse(text, status, headers={**PAGE_HEADERS, **(headers or {})})
