"""Common parts of the console: who may see a page, errors as pages, links that survive a mount, and forms."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.routing import APIRoute

from containerstacks_billing.errors import BillingError
from containerstacks_billing.records.model import LONGEST_CURSOR, CursorInvalid, Page
from containerstacks_billing.tokens.model import DECIDE, FINANCE, READ
from containerstacks_billing.version import __version__
from containerstacks_billing.web.forms import form_of, from_this_origin
from containerstacks_billing.web.pages import session_of
from containerstacks_billing.web.problems import Refused
from containerstacks_billing.web.rendering import PAGE_HEADERS, template
from containerstacks_billing.web.sessions import Session, carries

ROOT = "/status/"
ROWS = 50
# The entry of the menu that a page belongs to, where that is another.
_MENU = {
    **dict.fromkeys(("organization", "instance", "charge", "entry"), "organizations"),
    **dict.fromkeys(("release", "release_run"), "decisions"),
    "run": "runs",
}
_NO_NUL = r"^[^\x00]*$"


class SignInFirst(Exception):
    """A page was requested without a session."""


class ConsoleRoute(APIRoute):
    """A route whose errors are pages, and which leads to the sign-in and back where there is no session."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler of the route, with its errors answered."""
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            try:
                return await handle(request)
            except SignInFirst:
                return _to_sign_in(request)
            except Refused as refusal:
                return error_page(request, refusal.status, refusal.detail, refusal.headers)
            except RequestValidationError:
                return error_page(request, 422, "The address has a value that no page understands.")
            except CursorInvalid as error:
                return error_page(request, 422, str(error))
            except BillingError:
                return error_page(request, 503, "The database could not be read.", {"Retry-After": "5"})

        return guarded


def new_router() -> APIRouter:
    """Return a router for pages of the console."""
    return APIRouter(include_in_schema=False, route_class=ConsoleRoute)


def _signed_in(scope: str) -> Callable[[Request], Session]:
    def require(request: Request) -> Session:
        session = session_of(request)
        if session is None:
            raise SignInFirst
        if not session.may(scope):
            raise Refused(403, f"Your token lacks the scope {scope}.")
        return session

    return require


# Runs and the fleet; customers and their money; decisions.
Reader = Annotated[Session, Depends(_signed_in(READ))]
Accountant = Annotated[Session, Depends(_signed_in(FINANCE))]
Decider = Annotated[Session, Depends(_signed_in(DECIDE))]
Form = Annotated[dict[str, str], Depends(form_of)]
Cursor = Annotated[str | None, Query(max_length=LONGEST_CURSOR, pattern=_NO_NUL)]
Words = Annotated[str | None, Query(max_length=100, pattern=_NO_NUL)]


def require_own_form(request: Request, session: Session, form: dict[str, str]) -> None:
    """Raise Refused unless a form was sent by a page of this session."""
    if not (from_this_origin(request) and carries(session, form.get("csrf", ""))):
        raise Refused(403, "This form came from another site, so it was not accepted.")


def show(
    request: Request, session: Session | None, name: str, status: int = 200, **values: object
) -> HTMLResponse:
    """Return a page of the console."""
    text = template(f"console/{name}.html").render(
        session=session, prefix=prefix_of(request), version=__version__, here=_MENU.get(name, name), **values
    )
    return HTMLResponse(text, status, headers=PAGE_HEADERS)


def error_page(
    request: Request, status: int, detail: str, headers: dict[str, str] | None = None
) -> HTMLResponse:
    """Return a page that says why there is none."""
    page = show(request, session_of(request), "error", status, detail=detail, code=status)
    for name, value in (headers or {}).items():
        page.headers[name] = value
    return page


def prefix_of(request: Request) -> str:
    """Return the relative path from a page to /status/, wherever a host or a proxy has put that."""
    return "../" * (_below_root(request).count("/"))


def _below_root(request: Request) -> str:
    """Return the path of a request below /status/."""
    return str(request.scope["path"]).rpartition(ROOT)[2]


def _to_sign_in(request: Request) -> RedirectResponse:
    wanted = _below_root(request)
    if request.method == "GET" and request.url.query:
        wanted += f"?{request.url.query}"
    return RedirectResponse(
        f"{prefix_of(request)}sign-in?{urlencode({'to': wanted})}", 303, headers=PAGE_HEADERS
    )


def next_page(request: Request, page: Page[Any]) -> str | None:
    """Return the query string of the next page of a list; None on the last."""
    if page.next_cursor is None:
        return None
    kept = {name: value for name, value in request.query_params.items() if value and name != "cursor"}
    return "?" + urlencode(kept | {"cursor": page.next_cursor})
