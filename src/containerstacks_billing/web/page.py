"""The status page: rendered by the server, kept alive by a stream of events, complete without a script.

The state is public. Figures and names are for admins, who sign in with what the API takes as a bearer and are
counted by the same counter when they fail. Forms are accepted from this page alone: the cookie is SameSite=Strict, the
browser has to say that the form is of this origin, and signing out carries a secret of the session.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from functools import cache
from importlib.resources import files
from urllib.parse import parse_qs, urlsplit

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from starlette.concurrency import run_in_threadpool

from containerstacks_billing.errors import BillingError
from containerstacks_billing.version import __version__
from containerstacks_billing.web import formatting as writing
from containerstacks_billing.web.auth import NotAnAdmin, address_of, admit, recognise
from containerstacks_billing.web.chart import HEIGHT, WIDTH, chart_of
from containerstacks_billing.web.context import Context
from containerstacks_billing.web.middleware import HEAD
from containerstacks_billing.web.problems import Refused, problem
from containerstacks_billing.web.sessions import COOKIE, LIFETIME_SECONDS, Session, Sessions, carries
from containerstacks_billing.web.sse import Streams
from containerstacks_billing.web.status_view import StatusReader, StatusView

router = APIRouter(include_in_schema=False)

# The origin of a form is only told where the referrer may be told to this site.
_HEADERS = {"Referrer-Policy": "same-origin"}
_ASSETS = {
    "status.css": "text/css; charset=utf-8",
    "status.js": "text/javascript; charset=utf-8",
    "inter.woff2": "font/woff2",
    "icon.svg": "image/svg+xml",
}


class StatusPage:
    """What the routes of the page share."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.reader = StatusReader(context)
        self.sessions = Sessions(self._still_admin)
        self.streams = Streams()

    def _still_admin(self, bearer: str) -> bool:
        try:
            return recognise(self.context, bearer) is not None
        except NotAnAdmin:
            return False


def install(app: FastAPI, context: Context) -> None:
    """Give an application its status page."""
    app.state.status_page = StatusPage(context)
    app.include_router(router)


def _page_of(request: Request) -> StatusPage:
    page: StatusPage = request.app.state.status_page
    return page


@router.get("/")
def root() -> Response:
    """Lead who typed the address alone to the page, wherever that is mounted."""
    return RedirectResponse("status", 307)


@router.get("/status")
def status(request: Request) -> HTMLResponse:
    """Show how billing stands."""
    page = _page_of(request)
    session = page.sessions.find(request.cookies.get(COOKIE))
    view = page.reader.now()
    text = _template("status.html").render(_values(view, session), version=__version__)
    return HTMLResponse(text, 200 if view.health else 503, headers=_HEADERS)


@router.get("/status/events")
async def events(request: Request) -> Response:
    """Send the page anew whenever something changed."""
    page = _page_of(request)
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
    page = _page_of(request)
    _, now, news = _poll(page, request.cookies.get(COOKIE), None)
    return JSONResponse({"now": now, **(news or {})}, headers=_HEADERS)


Seen = tuple[object, str, dict[str, object] | None]


def _poll(page: StatusPage, cookie: str | None, before: object) -> Seen:
    """Return what is seen now, the time, and the rendered page where it differs from `before`."""
    session = page.sessions.find(cookie)
    view = page.reader.now()
    seen = (view.essence, session is not None)
    if seen == before:
        return seen, view.now.isoformat(), None
    html = _template("live.html").render(_values(view, session))
    return (
        seen,
        view.now.isoformat(),
        {"page": html, "admin": session is not None, "seen": view.health is not None},
    )


@router.get("/status/sign-in")
def sign_in_form(request: Request) -> Response:
    """Ask for a token."""
    if _page_of(request).sessions.find(request.cookies.get(COOKIE)):
        return RedirectResponse("../status", 303)
    return _sign_in_page(200, None)


@router.post("/status/sign-in")
async def sign_in(request: Request) -> Response:
    """Begin a session for a token that the API would take."""
    page = _page_of(request)
    if not _from_this_origin(request):
        return _sign_in_page(403, "This form came from another site, so it was not accepted.")
    bearer = (await _form(request)).get("token", "").strip()
    if not bearer:
        return _sign_in_page(422, "Enter a token first.")
    try:
        admin = await run_in_threadpool(admit, page.context, request, bearer)
    except Refused as refusal:
        headers = {"Retry-After": refusal.headers["Retry-After"]} if "Retry-After" in refusal.headers else {}
        return _sign_in_page(refusal.status, refusal.detail, headers)
    except BillingError:
        return _sign_in_page(503, "The database does not answer, so no token can be looked up.")
    page.sessions.end(request.cookies.get(COOKIE))
    response = RedirectResponse("../status", 303, headers=_HEADERS)
    # Without a path the cookie belongs to /status, wherever a host or a proxy has put that.
    response.set_cookie(
        COOKIE,
        page.sessions.begin(admin.name, bearer),
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
    page = _page_of(request)
    cookie = request.cookies.get(COOKIE)
    session = await run_in_threadpool(page.sessions.find, cookie)
    form = await _form(request)
    if session and not (_from_this_origin(request) and carries(session, form.get("csrf", ""))):
        return _sign_in_page(403, "This form came from another site, so it was not accepted.")
    page.sessions.end(cookie)
    response = RedirectResponse("../status", 303, headers=_HEADERS)
    response.set_cookie(COOKIE, "", max_age=0, path=None, httponly=True, samesite="strict")
    return response


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


def _sign_in_page(status: int, problem: str | None, headers: dict[str, str] | None = None) -> HTMLResponse:
    text = _template("sign_in.html").render(problem=problem, version=__version__, prefix="")
    return HTMLResponse(text, status, headers={**_HEADERS, **(headers or {})})


def _from_this_origin(request: Request) -> bool:
    """Whether a page of this origin sent a form. Programs that are no browsers say nothing, and have no cookie."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in {"same-origin", "none"}
    origin = request.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == request.headers.get("host")


async def _form(request: Request) -> dict[str, str]:
    """Read a small form; the first value of each field."""
    try:
        fields = parse_qs((await request.body()).decode(), max_num_fields=10)
    except ValueError:
        return {}
    return {name: values[0] for name, values in fields.items()}


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


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("containerstacks_billing.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters.update(money=writing.money, whole=writing.whole, duration=writing.duration)
    environment.globals.update(
        instant=writing.instant, age=writing.age, left=writing.left, countdown=writing.countdown
    )
    return environment


def _template(name: str) -> Template:
    return _environment().get_template(name)
