"""State of the pages of one application: sessions, event streams and the reading of the status page."""

from __future__ import annotations

from fastapi import Request

from containerstacks_billing.web.auth import NotAnAdmin, recognise
from containerstacks_billing.web.context import Context
from containerstacks_billing.web.sessions import COOKIE, Session, Sessions
from containerstacks_billing.web.sse import Streams
from containerstacks_billing.web.status_view import StatusReader


class Pages:
    """What the routes of the pages share."""

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


def pages_of(request: Request) -> Pages:
    """Return the state of the pages of the application that answers a request."""
    pages: Pages = request.app.state.pages
    return pages


def session_of(request: Request) -> Session | None:
    """Return the session of a request; None without one."""
    return pages_of(request).sessions.find(request.cookies.get(COOKIE))
