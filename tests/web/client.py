"""The application side for tests: a client inside the process, and a real server on loopback."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from starlette.testclient import TestClient
from tests.clock import settings_of

from containerstacks_billing.tokens import store as tokens
from containerstacks_billing.tokens.model import PREFIX, hash_of
from containerstacks_billing.web.app import create_application
from containerstacks_billing.web.server import address_of, listen, server_of

ADMIN_TOKEN = "configured-admin-token-of-the-test"
JWT_SECRET = "the-secret-that-the-host-signs-with-and-that-is-long-enough-for-any-algorithm"
DAEMON = "/api/health/billing-daemon"


@contextmanager
def client_of(conninfo: str, address: str = "127.0.0.1", **texts: str | None) -> Iterator[TestClient]:
    """A client that speaks to the application from an address; no built-in billing runs beside it."""
    chosen = {"admin_token": ADMIN_TOKEN, "jwt_secret": JWT_SECRET, **texts}
    settings = settings_of(conninfo, **{key: text for key, text in chosen.items() if text is not None})
    app = create_application(settings, conninfo)
    with TestClient(
        app, base_url="http://127.0.0.1", client=(address, 50000), raise_server_exceptions=False
    ) as client:
        yield client


def bearer(text: str) -> dict[str, str]:
    """The header that carries a token."""
    return {"Authorization": f"Bearer {text}"}


def make_token(
    conn: psycopg.Connection[Any], name: str = "test", text: str | None = None, days: float | None = 1
) -> str:
    """A token of ours in the database."""
    text = text or PREFIX + "A" * 43
    assert tokens.create(conn, name, hash_of(text), "test", days) is not None
    return text


@contextmanager
def serving(conninfo: str, **texts: str) -> Iterator[tuple[str, int]]:
    """A real server on loopback; its host and port."""
    settings = settings_of(conninfo, **{"admin_token": ADMIN_TOKEN, **texts})
    listening = listen("127.0.0.1", 0)
    server = server_of(create_application(settings, conninfo))
    started = threading.Event()
    startup = server.startup

    async def announced(sockets: list[socket.socket] | None = None) -> None:
        await startup(sockets)
        started.set()

    server.startup = announced  # type: ignore[method-assign]
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])), name="test-server")
    thread.start()
    assert started.wait(180)
    assert address_of(listening).startswith("http://127.0.0.1:")
    try:
        yield listening.getsockname()[:2]
    finally:
        server.should_exit = True
        thread.join(180)
        listening.close()
        assert not thread.is_alive()
