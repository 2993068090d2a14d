"""Limits per request and connection (headers, body, timeouts, connections) and security headers.

HEAD is answered as GET without a body (RFC 9110). A request has ten seconds for its header and ten for a small body.
Responses have a send timeout of 30 s; for event streams it applies per chunk. When all connections are taken, the
oldest one without a complete request is closed in favour of a new one, so a health check gets in beside any number of
idle sockets.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from typing import Any

import h11
from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from containerstacks_billing.web.problems import problem

CONNECTIONS = 256
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


# In the scope of a request that is a HEAD, for handlers that would otherwise stream an answer.
HEAD = "containerstacks_billing.head"


_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class TooLarge(Exception):
    """The body of a request is larger than anything asked for here."""


class Bounds:
    """ASGI middleware with limits on every request and security headers in every response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        bounded = _Bounded(receive, send, _request_id(scope))
        if refusal := _refusal(scope):
            await refusal(scope, receive, bounded.send)
            return
        if scope["method"] == "HEAD":
            # A copy: the server behind has to know that it was a HEAD.
            scope = {**scope, "method": "GET", HEAD: True}
            bounded.without_body = True
        try:
            await self._app(scope, bounded.receive, bounded.send)
        except (TooLarge, TimeoutError) as error:
            if bounded.answered:
                raise
            refusal = _too_large() if isinstance(error, TooLarge) else _too_late()
            await refusal(scope, receive, bounded.send)


class _Bounded:
    """Receive and send of one request, with limits."""

    def __init__(self, receive: Receive, send: Send, request_id: str) -> None:
        self._request_id = request_id
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
            headers["X-Request-ID"] = self._request_id
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        elif self.without_body and message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await asyncio.wait_for(self._send(message), SEND_SECONDS)


def _request_id(scope: Scope) -> str:
    """Return the id that a proxy gave the request, or a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return str(value.decode("ascii"))
    return secrets.token_hex(16)


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
    """HTTP/1.1 with a header timeout and a bound on connections that favours new ones over idle ones.

    uvicorn has no public seam for either; tests/web/test_bounds.py fails when an upgrade changes what this overrides.
    """

    _deadline: asyncio.TimerHandle | None = None
    opened = 0.0

    def connection_made(self, transport: Any) -> None:
        """Start the header timeout; close the oldest idle connection when there are too many."""
        super().connection_made(transport)
        self.opened = self.loop.time()
        self._await_header()
        if len(self.connections) > CONNECTIONS:
            idle = [
                one for one in self.connections if isinstance(one, PatientProtocol) and not one.is_answering()
            ]
            min(idle, key=lambda one: one.opened).give_up()

    def data_received(self, data: bytes) -> None:
        """Receive bytes; a complete header stops the timeout."""
        super().data_received(data)
        if self.is_answering():
            self._stop_waiting()
        elif self._deadline is None:
            self._await_header()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP with a problem."""
        answer = problem(400, msg)
        self.transport.write(
            self.conn.send(
                h11.Response(
                    status_code=400,
                    reason=b"Bad Request",
                    headers=[*answer.raw_headers, (b"connection", b"close")],
                )
            )
            + self.conn.send(h11.Data(data=bytes(answer.body)))
            + self.conn.send(h11.EndOfMessage())
        )
        self.transport.close()

    def on_response_complete(self) -> None:
        """Restart the timeout for the next request of this connection."""
        super().on_response_complete()
        if not self.is_answering() and self._deadline is None and not self.transport.is_closing():
            self._await_header()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the timeout."""
        self._stop_waiting()
        super().connection_lost(exc)

    def is_answering(self) -> bool:
        """Return whether a request is being answered."""
        # None before the first request, which the types of the base class do not say.
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    def _await_header(self) -> None:
        self._deadline = self.loop.call_later(HEADER_SECONDS, self.give_up)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def give_up(self) -> None:
        """Close the connection unless a request is being answered."""
        self._stop_waiting()
        self.connections.discard(self)
        if not self.is_answering() and not self.transport.is_closing():
            self.transport.close()
