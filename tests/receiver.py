"""A receiver of webhooks on loopback: a real HTTP server that answers as a test sets it, and keeps the requests."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Request:
    """What arrived."""

    path: str
    headers: dict[str, str]
    body: bytes
    method: str = "POST"


@dataclass
class Receiver:
    """`answers` is asked for a status per request; `requests` is what arrived, `queue` the same to wait for."""

    port: int = 0
    answers: Callable[[Request], int] = lambda _: 204
    headers: dict[str, str] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    queue: queue.SimpleQueue[Request] = field(default_factory=queue.SimpleQueue)
    # While this is cleared, requests wait for their answer.
    open: threading.Event = field(default_factory=threading.Event)
    # Sends a byte of its answer every tenth of a second until the client goes away.
    drips: bool = False

    @property
    def url(self) -> str:
        """The address to send to."""
        return f"http://127.0.0.1:{self.port}/hooks/billing?site=1"


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Run a receiver in a thread."""
    receiver = Receiver()
    receiver.open.set()
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.do_POST()

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            request = Request(self.path, dict(self.headers), content, self.command)
            receiver.requests.append(request)
            receiver.queue.put(request)
            while receiver.drips and not over.wait(0.1):
                try:
                    self.wfile.write(b"x")
                except OSError:
                    return
            receiver.open.wait(180)
            try:
                self.send_response(receiver.answers(request))
                for name, value in receiver.headers.items():
                    self.send_header(name, value)
                self.end_headers()
            except OSError:
                pass  # the client has not waited

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield receiver
    finally:
        over.set()
        receiver.open.set()
        server.shutdown()
        thread.join()
        server.server_close()
