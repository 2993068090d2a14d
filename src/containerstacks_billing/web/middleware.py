"""Bounds on what one client can take: headers, body, patience, and what its browser may do with an answer.

A HEAD is answered as the GET would be, without its body (RFC 9110): uptime monitors ask so.

The handlers here read; billing lives in other threads and other processes. Still nobody should be able to keep a
connection by saying nothing. So a request has ten seconds to show its header, its body is small and has ten seconds
too, and an answer that is not taken is given up. A stream of events may last: each of its pieces has to be taken.
"""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from containerstacks_billing.web.problems import problem

HEADER_BYTES = 16 * 1024
BODY_BYTES = 64 * 1024
HEADER_SECONDS = 10.0
BODY_SECONDS = 10.0
SEND_SECONDS = 30.0

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


# In the scope of a request that is a HEAD, for who would otherwise go on answering.
HEAD = "containerstacks_billing.head"


class TooLarge(Exception):
    """The body of a request is larger than anything asked for here."""


class Bounds:
    """Bounds body and patience of every request, and says in every answer what a browser may do with it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        bounded_transaction = _Bounded(receive, send)
        if refusal := _refusal(scope):
            await refusal(scope, receive, bounded_transaction.send)
            return
        if scope["method"] == "HEAD":
            # A copy: the server behind has to know that it was a HEAD.
            scope = {**scope, "method": "GET", HEAD: True}
            bounded_transaction.without_body = True
        try:
            await self._app(scope, bounded_transaction.receive, bounded_transaction.send)
        except (TooLarge, TimeoutError) as error:
            if bounded_transaction.answered:
                raise
            refusal = _too_large() if isinstance(error, TooLarge) else _too_late()
            await refusal(scope, receive, bounded_transaction.send)


class _Bounded:
    """The two ends of one request, bounded."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._received_bytes = 0
        self.answered = False
        self.without_body = False

    async def receive(self) -> Message:
        # Once it is answered, receiving means waiting for the client to leave; a stream of events does that.
        if self.answered:
            return await self._receive()
        message = await asyncio.wait_for(self._receive(), BODY_SECONDS)
        self._received_bytes += len(message.get("body", b""))
        if self._received_bytes > BODY_BYTES:
            raise TooLarge
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.answered = True
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        elif self.without_body and message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await asyncio.wait_for(self._send(message), SEND_SECONDS)


def _too_large() -> Response:
    return problem(413, f"A body has {BODY_BYTES} bytes at most.", {"Connection": "close"})


def _too_late() -> Response:
    return problem(408, "The body did not arrive in time.", {"Connection": "close"})


def _refusal(scope: Scope) -> Response | None:
    """Refuse by the header alone. The server bounds one that comes in pieces; one that comes at once is seen here."""
    if sum(len(name) + len(value) for name, value in scope["headers"]) > HEADER_BYTES:
        return problem(431, f"A header has {HEADER_BYTES} bytes at most.", {"Connection": "close"})
    return _too_large() if _announced(scope) > BODY_BYTES else None


def _announced(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value[:18])
    return 0


class PatientProtocol(H11Protocol):
    """HTTP/1.1 with an end to patience: a connection that does not show a whole header in time is closed."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for the first header."""
        super().connection_made(transport)
        self._await_header()

    def data_received(self, data: bytes) -> None:
        """Take in bytes; a request that has begun stops the wait, one that is being answered has none."""
        super().data_received(data)
        if self._is_answering():
            self._stop_waiting()
        elif self._deadline is None:
            self._await_header()

    def on_response_complete(self) -> None:
        """Go on with the next request of this connection; a piece of its header may be here already."""
        super().on_response_complete()
        if not self._is_answering() and self._deadline is None and not self.transport.is_closing():
            self._await_header()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the wait with the connection."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _is_answering(self) -> bool:
        # None before the first request, which the types of the base class do not say.
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    def _await_header(self) -> None:
        self._deadline = self.loop.call_later(HEADER_SECONDS, self._give_up)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        if not self._is_answering() and not self.transport.is_closing():
            self.transport.close()
