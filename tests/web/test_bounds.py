"""A real server on loopback, and clients that behave badly."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest
from tests.web.client import ADMIN_TOKEN, serving

from containerstacks_billing.web import middleware as limits
from containerstacks_billing.web import sse


@pytest.fixture
def site(database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    monkeypatch.setattr(limits, "HEADER_SECONDS", 0.5)
    monkeypatch.setattr(limits, "BODY_SECONDS", 0.5)
    with serving(database) as address:
        yield address


def spoken(site: tuple[str, int], *pieces: bytes, timeout: float = 20) -> bytes:
    """Say something and listen until the server hangs up."""
    with socket.create_connection(site, timeout=timeout) as connection:
        for piece in pieces:
            connection.sendall(piece)
        return heard_until_closed(connection)


def heard_until_closed(connection: socket.socket) -> bytes:
    """Return what arrives until the server hangs up; a reset is one way to: it closed before it had read everything."""
    heard = b""
    with suppress(ConnectionResetError):
        while part := connection.recv(65536):
            heard += part
    return heard


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


def healthy(site: tuple[str, int]) -> int:
    connection = http.client.HTTPConnection(*site, timeout=180)
    try:
        connection.request(
            "GET", "/api/health/billing-daemon", headers={"Authorization": f"Bearer {ADMIN_TOKEN}"}
        )
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize(
    "path",
    ["/healthz", "/readyz", "/api/health", "/metrics", "/status", "/status/status.css", "/status/events", "/docs",
     "/openapi.json", "/nowhere", "/api/billing/runs"],
)  # fmt: skip
def test_a_head_is_answered_as_a_get_without_its_body(site: tuple[str, int], path: str) -> None:
    """Monitors ask so; status and headers are those of the GET, and the connection goes on."""

    def asked(connection: http.client.HTTPConnection, method: str) -> tuple[int, str | None, str | None]:
        connection.request(method, path)
        answer = connection.getresponse()
        if not (path.endswith("events") and method == "GET"):
            assert bool(answer.read()) is (method == "GET")
        return answer.status, answer.getheader("content-type"), answer.getheader("content-security-policy")

    connection = http.client.HTTPConnection(*site, timeout=180)
    try:
        heads = [asked(connection, "HEAD"), asked(connection, "HEAD")]
        assert [asked(connection, "GET")] * 2 == heads
    finally:
        connection.close()


def test_a_header_that_does_not_come_ends_the_connection(site: tuple[str, int]) -> None:
    """Nothing, half a line, a header without end: each is hung up on, and others are served meanwhile."""
    for said in (b"", b"GET /heal", b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: "):
        assert 0 == status(spoken(site, said))
    assert 200 == healthy(site)


def test_a_second_request_of_a_connection_has_no_more_time(site: tuple[str, int]) -> None:
    """One good request does not buy patience for a bad one."""
    answer = spoken(site, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /healthz HTTP/1.1\r\nX: ")
    assert (200, 1) == (status(answer), answer.count(b"HTTP/1.1 "))


@pytest.mark.parametrize("size", [20_000, 2_000_000])
def test_a_huge_header_is_refused(site: tuple[str, int], size: int) -> None:
    """Sixteen kilobytes are enough for anybody here."""
    said = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Large: " + b"a" * size + b"\r\n\r\n"
    assert status(spoken(site, said)) in {0, 400, 431}
    assert 200 == healthy(site)


def test_a_huge_body_is_refused_before_it_is_read(site: tuple[str, int]) -> None:
    """Announced or not."""
    announced = b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n"
    assert 413 == status(spoken(site, announced))
    assert 200 == healthy(site)


def test_a_body_that_nobody_reads_does_not_keep_the_connection(site: tuple[str, int]) -> None:
    """A request with a body for a page without one is answered and its connection closed."""
    said = b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc"
    assert 200 == status(spoken(site, said))


def test_many_who_say_nothing_do_not_keep_others_out(site: tuple[str, int]) -> None:
    """A hundred silent connections, and the next client is served."""
    silent = [socket.create_connection(site, timeout=180) for _ in range(100)]
    try:
        assert 200 == healthy(site)
    finally:
        for connection in silent:
            connection.close()


def test_idle_connections_do_not_keep_a_health_check_out(
    site: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the same address, with more of them than there is room: the oldest is closed, and never the newest."""
    monkeypatch.setattr(limits, "HEADER_SECONDS", 60.0)
    monkeypatch.setattr(limits, "CONNECTIONS", 20)
    silent = [socket.create_connection(site, timeout=180) for _ in range(60)]
    try:
        for connection in silent:
            with suppress(ConnectionError):  # the first of them may be closed by now
                connection.sendall(b"GET /healthz HTTP/1.1\r\n")
        for _ in range(5):
            assert 200 == healthy(site)
        assert b"" == heard_until_closed(silent[0])
        silent[-1].sendall(b"Host: x\r\nConnection: close\r\n\r\n")
        assert 200 == status(silent[-1].recv(65536))
    finally:
        for connection in silent:
            connection.close()


def test_streams_of_one_address_leave_room_for_others(
    site: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stranger may open so many; the next is refused in words, and the page polls instead."""
    monkeypatch.setattr(limits, "HEADER_SECONDS", 60.0)
    request = b"GET /status/events HTTP/1.1\r\nHost: x\r\n\r\n"
    streams = [socket.create_connection(site, timeout=180) for _ in range(sse.STREAMS_PER_ADDRESS)]
    try:
        for connection in streams:
            connection.sendall(request)
            assert 200 == status(connection.recv(65536))
        refused = spoken(site, request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert (503, True) == (status(refused), b"application/problem+json" in refused)
        connection = http.client.HTTPConnection(*site, timeout=180)
        connection.request("GET", "/status/live")
        answer = connection.getresponse()
        document = json.loads(answer.read())
        connection.close()
        assert (200, {"now", "page", "admin", "seen"}) == (answer.status, document.keys())
        assert 200 == healthy(site)
    finally:
        for connection in streams:
            connection.close()


@pytest.mark.parametrize(
    "said",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nzz\r\n",
        b"\0" * 100 + b"\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused(site: tuple[str, int], said: bytes) -> None:
    """And the next client is served."""
    assert status(spoken(site, said)) in {0, 200, 307, 400, 404}
    assert 200 == healthy(site)
