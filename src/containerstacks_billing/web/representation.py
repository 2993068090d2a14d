"""ETag and gzip for documents of the API.

The tag is that of the bytes, so an answer that a client has already is a 304 of a few bytes. Pages are left out: they
carry a secret of the session, and its length under compression would give it away a letter at a time (BREACH).
"""

from __future__ import annotations

import gzip
import hashlib

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COMPRESSED_FROM_BYTES = 1024
_COMPRESSION = 5
_TYPES = ("application/json", "text/csv")


class Representation:
    """ASGI middleware that tags and compresses successful answers to GET which come in one piece."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        if scope["type"] != "http" or scope["method"] != "GET":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        start: Message | None = None

        async def represent(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start" and _is_document(message):
                start = message
                return
            if start is None:
                await send(message)
                return
            first, start = start, None
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                message = _represented(headers, first, message)
            await send(first)
            await send(message)

        await self._app(scope, receive, represent)


def _is_document(message: Message) -> bool:
    kind = Headers(raw=message["headers"]).get("content-type", "")
    return message["status"] == 200 and kind.startswith(_TYPES)


def _represented(asked: Headers, start: Message, message: Message) -> Message:
    """Return the body as it is sent, and change the head accordingly."""
    body: bytes = message.get("body", b"")
    headers = MutableHeaders(scope=start)
    tag = f'W/"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers["ETag"] = tag
    headers["Cache-Control"] = "private, no-cache"
    headers.add_vary_header("Accept-Encoding")
    headers.add_vary_header("Authorization")
    if tag in {one.strip() for one in asked.get("if-none-match", "").split(",")}:
        start["status"] = 304
        del headers["content-length"]
        del headers["content-type"]
        return {**message, "body": b""}
    if len(body) >= COMPRESSED_FROM_BYTES and _takes_gzip(asked.get("accept-encoding", "")):
        body = gzip.compress(body, _COMPRESSION, mtime=0)
        headers["Content-Encoding"] = "gzip"
    headers["Content-Length"] = str(len(body))
    return {**message, "body": body}


def _takes_gzip(accepted: str) -> bool:
    for one in accepted.lower().split(","):
        name, _, weight = one.partition(";")
        if name.strip() == "gzip":
            return weight.replace(" ", "") not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}
    return False
