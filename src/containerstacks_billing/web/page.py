"""The status page: rendered by the server, kept alive by a stream of events, complete without a script.

The state is public. Figures and names are for admins, who sign in with what the API takes as a bearer and are
counted by the same counter when they fail. Forms are accepted from this page alone: the cookie is SameSite=Strict, the
browser has to say that the form is of this origin, and signing out carries a secret of the session.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from functools import cache
from importlib.resources import files

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool

from containerstacks_billing.version import __version__
from containerstacks_billing.web import sign_in
from containerstacks_billing.web.auth import address_of
from containerstacks_billing.web.chart import chart_of
from containerstacks_billing.web.console import charts, customers, decisions, explanations, operations, runs
from containerstacks_billing.web.context import Context
from containerstacks_billing.web.middleware import HEAD
from containerstacks_billing.web.pages import Pages, pages_of
from containerstacks_billing.web.plot import HEIGHT, WIDTH
from containerstacks_billing.web.problems import Refused, problem
from containerstacks_billing.web.rendering import PAGE_HEADERS, template
from containerstacks_billing.web.sessions import COOKIE, Session
from containerstacks_billing.web.status_view import StatusView

router = APIRouter(include_in_schema=False)

_ASSETS = {
    "status.css": "text/css; charset=utf-8",
    "status.js": "text/javascript; charset=utf-8",
    "inter.woff2": "font/woff2",
    "icon.svg": "image/svg+xml",
}


def install(app: FastAPI, context: Context) -> None:
    """Give an application its status page."""
    app.state.pages = Pages(context)
    # The last route of the page takes every name below /status.
    for one in (sign_in, charts, customers, decisions, explanations, operations, runs):
        app.include_router(one.router)
    app.include_router(router)


@router.get("/")
def root() -> Response:
    """Lead who typed the address alone to the page, wherever that is mounted."""
    return RedirectResponse("status", 307)


@router.get("/status")
def status(request: Request) -> HTMLResponse:
    """Show how billing stands."""
    page = pages_of(request)
    session = page.sessions.find(request.cookies.get(COOKIE))
    view = page.reader.now()
    text = template("status.html").render(_values(view, session), version=__version__)
    return HTMLResponse(text, 200 if view.health else 503, headers=PAGE_HEADERS)


@router.get("/status/events")
async def events(request: Request) -> Response:
    """Send the page anew whenever something changed."""
    page = pages_of(request)
    cookie = request.cookies.get(COOKIE)
    if HEAD in request.scope:
        return Response(media_type="text/event-stream")

    address = address_of(request)

    async def pieces() -> AsyncIterator[str]:
        def poll(before: object) -> Awaitable[Seen]:
            return run_in_threadpool(_poll, page, cookie, before)

        async for piece in page.streams.pieces(poll, address):
            yield piece

    if page.streams.full(address):
        return problem(503, "Too many streams are open; GET /status/live instead.", {"Retry-After": "60"})
    return StreamingResponse(pieces(), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


@router.get("/status/live")
def live(request: Request) -> JSONResponse:
    """Return what a stream of events would send first, for pages that poll."""
    page = pages_of(request)
    _, now, news = _poll(page, request.cookies.get(COOKIE), None)
    return JSONResponse({"now": now, **(news or {})}, headers=PAGE_HEADERS)


Seen = tuple[object, str, dict[str, object] | None]


def _poll(page: Pages, cookie: str | None, before: object) -> Seen:
    """Return what is seen now, the time, and the rendered page where it differs from `before`."""
    session = page.sessions.find(cookie)
    view = page.reader.now()
    seen = (view.essence, session.scopes if session else None)
    if seen == before:
        return seen, view.now.isoformat(), None
    html = template("live.html").render(_values(view, session))
    return (
        seen,
        view.now.isoformat(),
        {"page": html, "admin": session is not None, "seen": view.health is not None},
    )


@router.get("/status/{name}")
def asset(name: str) -> Response:
    """Give one of the files of the page."""
    kind = _ASSETS.get(name)
    if kind is None:
        raise Refused(404, "There is no such file.")
    return Response(_asset(name), headers={"Content-Type": kind, "Cache-Control": "public, max-age=3600"})


@cache
def _asset(name: str) -> bytes:
    return files("containerstacks_billing.web").joinpath("assets", "status", name).read_bytes()


def _values(view: StatusView, session: Session | None) -> dict[str, object]:
    health = view.health
    return {
        "at": view,
        "now": view.now,
        "health": health,
        "daemon": health.daemon if health else None,
        "last": health.last_finished if health else None,
        "successful": health.last_successful if health else None,
        "open_run": health.in_progress if health else None,
        "details": view.details,
        "chart": chart_of(view.details.runs, figures=session is not None),
        "chart_size": (WIDTH, HEIGHT),
        "verdict": view.verdict,
        "session": session,
        "prefix": "status/",
    }
