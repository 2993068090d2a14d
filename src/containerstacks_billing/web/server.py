"""Run uvicorn with resource limits and its own logging disabled."""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from containerstacks_billing.daemon.systemd_notify import notify
from containerstacks_billing.errors import EXIT_TRY_AGAIN, BillingError, ConfigurationError
from containerstacks_billing.logs import logger
from containerstacks_billing.web.middleware import CONNECTIONS, HEADER_BYTES, PatientProtocol

BACKLOG = 128
KEEP_ALIVE_SECONDS = 5
SHUTDOWN_SECONDS = 10


class AddressTaken(BillingError):
    """The address is in use; retryable."""

    exit_code = EXIT_TRY_AGAIN


class Server(uvicorn.Server):
    """Server that exits with 0 after a signal, as a service should."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Turn signals into a shutdown request, without raising them again."""
        with super().capture_signals():
            yield
            self._captured_signals.clear()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Notify systemd once requests are answered."""
        await super().startup(sockets)
        if self.started and sockets:
            notify("READY=1", f"STATUS=listening at {address_of(sockets[0])}")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End event streams first, so that open pages do not delay the shutdown."""
        notify("STOPPING=1")
        if isinstance(self.config.app, FastAPI):
            self.config.app.state.pages.streams.end()
        await super().shutdown(sockets)


def server_of(app: FastAPI) -> Server:
    """Return a server for this application, without a socket."""
    # It warns of each attempt to connect, in the words of libpq; what an outage means is said in ours, and once.
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
    return Server(
        uvicorn.Config(
            app,
            http=PatientProtocol,
            ws="none",
            loop="asyncio",
            lifespan="on",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            date_header=True,
            h11_max_incomplete_event_size=HEADER_BYTES,
            # Beyond those that PatientProtocol keeps below its own bound, for requests that are all being answered.
            limit_concurrency=CONNECTIONS + BACKLOG,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        )
    )


def listen(host: str, port: int) -> socket.socket:
    """Open the listening socket; raises AddressTaken or ConfigurationError when that address cannot be had."""
    try:
        address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.socket(address[0], socket.SOCK_STREAM)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address[4])
            # From here on no connection is refused: those before the first answer is possible wait.
            listening.listen(BACKLOG)
        except OSError:
            listening.close()
            raise
    except OSError as error:
        what = f"HOST and PORT cannot be listened on: {host} port {port}: {error.strerror or error}."
        if error.errno == errno.EADDRINUSE:
            hint = f"Another process listens there (ss -ltnp 'sport = :{port}'): stop it, or choose another PORT."
            raise AddressTaken(what, hint) from None
        raise ConfigurationError(
            what, hint="Choose an address of this machine, and a port that you may use."
        ) from None
    return listening


def address_of(listening: socket.socket) -> str:
    """Return the address of a listening socket as a URL."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(app: FastAPI, host: str, port: int) -> None:
    """Listen and serve until SIGINT or SIGTERM; requests in progress are completed."""
    listening = listen(host, port)
    logger().info("Listening", address=address_of(listening))
    server_of(app).run(sockets=[listening])
