"""Loopback proxy that cuts connections before, during or after their COMMIT.

**What it is for.** A COMMIT whose answer never comes leaves the client not knowing. The driver raises the same error
whether the transaction is in or out, so only a client that starts again from the rows is right in both cases. Here
each case can be had at will:

    before   the COMMIT never reaches the server: the transaction is out
    during   the COMMIT is forwarded and both sides are reset at once: the client knows of its error while the server
             still commits, or does not
    after    the server has answered, and the answer never reaches the client: the transaction is in

**How.** Between client and server it reads the frames of the protocol, of which it needs few: Query, Parse and Bind
say which statements a transaction consists of, ReadyForQuery whether one is open. What the client sends is kept back
until the frame that asks for an answer (Query, Sync, Flush), so a request is forwarded as a whole or not at all. A
statement that writes outside a transaction commits by itself and counts as a COMMIT too.

One thread and two sockets for each connection. It speaks no TLS: it refuses the client's request for it.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Self

from psycopg.conninfo import conninfo_to_dict, make_conninfo

Where = Literal["before", "during", "after"]
Interesting = Callable[[Sequence[str]], bool]

_SSL_REQUEST, _GSS_REQUEST = 80877103, 80877104
_LONGEST_MESSAGE = 64 * 1024 * 1024
_LONGEST_TRANSACTION = 1000  # statements that are remembered of one
_COMMIT = re.compile(r"\s*(commit|end)\b", re.IGNORECASE)
_WRITE = re.compile(r"\s*(insert|update|delete|merge|with|call|truncate|create|alter|drop)\b", re.IGNORECASE)
_BEGIN = re.compile(r"\s*(begin|start\s+transaction)\b", re.IGNORECASE)
_RESET = struct.pack("ii", 1, 0)


def every_commit(_: Sequence[str]) -> bool:
    """Match every commit."""
    return True


def mentions(word: str) -> Interesting:
    """Return a filter for transactions with a statement that contains a word, such as a table name."""
    pattern = re.compile(rf"\b{re.escape(word)}\b", re.IGNORECASE)
    return lambda statements: any(pattern.search(statement) for statement in statements)


class CommitProxy:
    """Proxy on a loopback port, forwarding to a host or to the directory of a Unix socket.

    `armed` is how many commits are still to be cut, `fired` how many were.
    """

    def __init__(self, target_host: str, target_port: int) -> None:
        self._target = (target_host, target_port)
        self._lock = threading.Lock()
        self._where: Where = "before"
        self._interesting: Interesting = every_commit
        self._skip = 0
        self._links: set[_Link] = set()
        self._closed = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self.armed = 0
        self.fired = 0
        self._thread = threading.Thread(target=self._accept, name="commit-proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        with self._lock:
            links = list(self._links)
        for link in links:
            link.reset()
            link.thread.join()

    def conninfo(self, conninfo: str) -> str:
        """Return a connection string that goes through this proxy."""
        parameters = {
            name: str(value) for name, value in conninfo_to_dict(conninfo).items() if name != "hostaddr"
        }
        here = {"host": "127.0.0.1", "port": str(self.port), "sslmode": "disable", "gssencmode": "disable"}
        return make_conninfo("", **{**parameters, **here})

    def arm(
        self, where: Where, times: int = 1, *, interesting: Interesting = every_commit, skip: int = 0
    ) -> None:
        """Cut the next matching commits after `skip` of them; replaces what was armed before.

        `interesting` is given the statements of the transaction in order, without BEGIN and COMMIT.
        """
        with self._lock:
            self._where, self._interesting, self._skip, self.armed = where, interesting, skip, times

    def disarm(self) -> None:
        """Stop cutting."""
        with self._lock:
            self.armed = 0

    def verdict(self, statements: Sequence[str]) -> Where | None:
        """Return where to cut this commit, None for nowhere; called once per commit."""
        with self._lock:
            if not self.armed or not self._interesting(statements):
                return None
            if self._skip:
                self._skip -= 1
                return None
            self.armed -= 1
            return self._where

    def note_fired(self) -> None:
        """Count a cut, just before the client can observe it."""
        with self._lock:
            self.fired += 1

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            link = _Link(self, client, self._target)
            with self._lock:
                self._links.add(link)
            link.thread.start()

    def forget(self, link: _Link) -> None:
        """Remove a closed connection."""
        with self._lock:
            self._links.discard(link)


class _Link:
    """One proxied connection with its protocol state."""

    def __init__(self, proxy: CommitProxy, client: socket.socket, target: tuple[str, int]) -> None:
        self._proxy = proxy
        self._client = client
        self._server: socket.socket | None = None
        self._target = target
        self._from_client = _Frames(starts_up=True)
        self._from_server = _Frames()
        self._held = bytearray()
        self._prepared: dict[bytes, str] = {}
        self._statements: list[str] = []
        self._request: list[str] = []
        self._is_idle = True
        self._unanswered = 1  # the login
        self._swallows = False
        self.thread = threading.Thread(target=self._run, name="commit-proxy-link", daemon=True)

    def reset(self) -> None:
        """Reset both sides so that data in flight is lost."""
        for side in (self._client, self._server):
            if side is not None:
                # The option makes the close a reset; the shutdown wakes the thread that waits for this socket.
                with contextlib.suppress(OSError):
                    side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                with contextlib.suppress(OSError):
                    side.shutdown(socket.SHUT_RD)

    def _run(self) -> None:
        try:
            self._client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._server = _connect(*self._target)
            while self._forward(self._client, self._server):
                pass
        except (OSError, ValueError):
            self.reset()
        finally:
            self._client.close()
            if self._server is not None:
                self._server.close()
            self._proxy.forget(self)

    def _forward(self, client: socket.socket, server: socket.socket) -> bool:
        """Forward data from either side; return False when the connection has ended."""
        readable, _, _ = select.select([client, server], [], [])
        if server in readable:
            data = server.recv(65536)
            if not data:
                return False
            for kind, frame in self._from_server.read(data):
                if kind == b"Z":
                    self._is_idle = frame[-1:] == b"I"
                    self._unanswered -= 1
                is_answer = (kind == b"Z" and not self._unanswered) or frame[5:] == b"COMMIT\0"
                if self._swallows and is_answer:
                    self._proxy.note_fired()
                    self.reset()
                    return False
            if not self._swallows:
                client.sendall(data)
        if client in readable:
            data = client.recv(65536)
            if not data:
                return False
            return all(self._ask(kind, frame, client, server) for kind, frame in self._from_client.read(data))
        return True

    def _ask(self, kind: bytes, frame: bytes, client: socket.socket, server: socket.socket) -> bool:
        """Handle one client frame; return False when the connection is cut here."""
        if kind == b"" and _code(frame) in {_SSL_REQUEST, _GSS_REQUEST}:
            self._from_client.starts_up = True
            client.sendall(b"N")
            return True
        self._held += frame
        self._note(kind, frame)
        if kind and kind in b"PBDEC":
            return True
        where = self._proxy.verdict(self._committed()) if self._commits() else None
        if where == "before":
            self._proxy.note_fired()
            self.reset()
            return False
        server.sendall(self._held)
        self._held.clear()
        self._unanswered += kind in {b"Q", b"S"}
        if where == "during":
            self._proxy.note_fired()
            self.reset()
            return False
        self._swallows = self._swallows or where == "after"
        self._end_request()
        return True

    def _note(self, kind: bytes, frame: bytes) -> None:
        """Record the text of a statement."""
        if kind == b"Q":
            self._request.append(frame[5:-1].decode(errors="replace"))
        elif kind == b"P":
            name, text, _ = frame[5:].split(b"\0", 2)
            self._prepared[name] = text.decode(errors="replace")
        elif kind == b"B":
            _, name, _ = frame[5:].split(b"\0", 2)
            self._request.append(self._prepared.get(name, ""))

    def _commits(self) -> bool:
        """Return whether the current request commits."""
        if any(_COMMIT.match(statement) for statement in self._request):
            return True
        return self._is_idle and not self._begins() and any(_WRITE.match(text) for text in self._request)

    def _begins(self) -> bool:
        return any(_BEGIN.match(statement) for statement in self._request)

    def _committed(self) -> Sequence[str]:
        earlier = [] if self._is_idle else self._statements
        return [text for text in [*earlier, *self._request] if not _COMMIT.match(text)]

    def _end_request(self) -> None:
        if self._is_idle:
            self._statements.clear()
        if len(self._statements) < _LONGEST_TRANSACTION:
            self._statements += [text for text in self._request if not _BEGIN.match(text)]
        self._request.clear()


class _Frames:
    """Parser of one direction of the protocol into frames; the first client frame has no type byte."""

    def __init__(self, *, starts_up: bool = False) -> None:
        self.starts_up = starts_up
        self._rest = bytearray()

    def read(self, data: bytes) -> list[tuple[bytes, bytes]]:
        """Return the complete frames of the data so far; ValueError for an oversized frame."""
        self._rest += data
        frames: list[tuple[bytes, bytes]] = []
        while True:
            head = 0 if self.starts_up else 1
            if len(self._rest) < head + 4:
                return frames
            length = head + int.from_bytes(self._rest[head : head + 4])
            if not head + 4 <= length <= _LONGEST_MESSAGE:
                raise ValueError("this is not the protocol of PostgreSQL")
            if len(self._rest) < length:
                return frames
            frames.append((bytes(self._rest[:head]), bytes(self._rest[:length])))
            del self._rest[:length]
            self.starts_up = False


def _code(frame: bytes) -> int:
    return int.from_bytes(frame[4:8])


def _connect(host: str, port: int) -> socket.socket:
    if not host.startswith("/"):
        server = socket.create_connection((host, port), timeout=5)
        server.settimeout(None)
        return server
    server = socket.socket(socket.AF_UNIX)
    try:
        server.connect(str(Path(host) / f".s.PGSQL.{port}"))
    except OSError:
        server.close()
        raise
    return server
