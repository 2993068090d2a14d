"""HTTP POST and GET with a total deadline, on the standard library.

No redirect is followed, no proxy used, no cookie kept; the response is read up to a limit and discarded; certificates
are checked. One deadline covers everything from the connection to the last byte. httpx and urllib3 have none: their
socket timeout restarts with every byte that a slow receiver sends. Name resolution has the limits of the resolver.
"""

from __future__ import annotations

import base64
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from containerstacks_billing.version import __version__

CONNECT_SECONDS = 5.0
_LONGEST_ANSWER_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Receiver of events and its signing keys; neither is ever shown."""

    url: str = field(repr=False)
    keys: tuple[bytes, ...] = field(repr=False)


class PostFailed(Exception):
    """No response was received; the reason is a sentence without the address."""


def post(endpoint: Endpoint, content: bytes, headers: Mapping[str, str], seconds: float) -> int:
    """Send a request and return the HTTP status; raises PostFailed when no response came within `seconds`."""
    try:
        return _request("POST", endpoint.url, content, headers, seconds)
    except ValueError:
        raise PostFailed("WEBHOOK_URL is no address that can be sent to") from None


def get(url: str, seconds: float) -> int:
    """Request a URL and return the HTTP status; raises PostFailed when no response came within `seconds`."""
    try:
        return _request("GET", url, None, {}, seconds)
    except ValueError:
        raise PostFailed("it is no address that can be sent to") from None


def _request(method: str, url: str, content: bytes | None, headers: Mapping[str, str], seconds: float) -> int:
    """Send a request; raises ValueError when the URL is no address, PostFailed when no response came in time."""
    deadline = time.monotonic() + seconds
    try:
        connection, path, login = _prepare(url, min(CONNECT_SECONDS, seconds))
    except http.client.InvalidURL as invalid:
        raise ValueError from invalid
    cut = threading.Event()
    timer = threading.Timer(seconds, _cut, (connection, cut))
    timer.daemon = True
    timer.start()
    try:
        connection.connect()
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.sock.settimeout(left)
        connection.request(method, path, content, {**_OURS, **login, **headers})
        response = connection.getresponse()
        with suppress(OSError, http.client.HTTPException):
            response.read(_LONGEST_ANSWER_BYTES)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise PostFailed(_reason(error, timed_out=cut.is_set(), seconds=seconds)) from None
    else:
        return response.status
    finally:
        timer.cancel()
        connection.close()


class _Secure(http.client.HTTPSConnection):
    """HTTPS connection whose socket can be shut down during the TLS handshake too."""

    def __init__(self, host: str, port: int | None, *, timeout: float, context: ssl.SSLContext) -> None:
        super().__init__(host, port, timeout=timeout, context=context)
        self._tls = context

    def connect(self) -> None:
        http.client.HTTPConnection.connect(self)
        secure = self._tls.wrap_socket(self.sock, server_hostname=self.host, do_handshake_on_connect=False)
        self.sock = secure
        secure.do_handshake()


_OURS = {"User-Agent": f"containerstacks-billing/{__version__}", "Connection": "close", "Accept": "*/*"}


def _prepare(url: str, connect_seconds: float) -> tuple[http.client.HTTPConnection, str, dict[str, str]]:
    """Return an unconnected connection, the path, and the header of a login inside the URL."""
    parts = urlsplit(url)
    if not parts.hostname or parts.scheme.lower() not in {"http", "https"}:
        raise ValueError
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    login = {}
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        login["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
    if parts.scheme.lower() == "http":
        return http.client.HTTPConnection(parts.hostname, parts.port, timeout=connect_seconds), path, login
    context = ssl.create_default_context()
    return _Secure(parts.hostname, parts.port, timeout=connect_seconds, context=context), path, login


def _cut(connection: http.client.HTTPConnection, cut: threading.Event) -> None:
    """Shut a connection down at its deadline, whatever its thread is waiting for."""
    cut.set()
    opened: socket.socket | None = connection.sock
    if opened is not None:
        with suppress(OSError):
            # Below TLS: the state of the secure socket belongs to the thread that is waiting on it.
            socket.socket.shutdown(opened, socket.SHUT_RDWR)


_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (ssl.SSLError, "there is no secure connection to the receiver"),
    (ConnectionRefusedError, "nothing is listening at the address of the receiver"),
    (socket.gaierror, "the name of the receiver is not known"),
    (ConnectionError, "the receiver broke off the connection"),
)
_HOSTNAME_MISMATCH = 62


def _reason(error: Exception, *, timed_out: bool, seconds: float) -> str:
    """Return why there was no response, without anything of the URL or the response."""
    if timed_out or isinstance(error, TimeoutError):
        return f"the receiver did not answer within {seconds:.0f} s"
    if isinstance(error, ssl.SSLCertVerificationError):
        mismatch = error.verify_code == _HOSTNAME_MISMATCH
        why = "it belongs to another host name" if mismatch else error.verify_message
        return f"the receiver's certificate is not accepted: {why}"
    for kind, reason in _REASONS:
        if isinstance(error, kind):
            return reason
    return f"the receiver could not be reached ({type(error).__name__})"
