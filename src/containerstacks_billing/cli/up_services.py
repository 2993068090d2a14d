"""The daemon and the application side of `up`, as two threads of one process.

In production they are two services on purpose: one takes over when the other dies. A demo ends as a whole, so one
process will do, and the kill of it leaves nothing behind. Both run the code of the services; only their signals and
their logs are those of `up`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from containerstacks_billing import logs
from containerstacks_billing.config.load import Configuration
from containerstacks_billing.daemon.built_in import BuiltInBilling
from containerstacks_billing.daemon.daemon import Daemon
from containerstacks_billing.errors import BillingError, WorkFailed
from containerstacks_billing.settings import Settings
from containerstacks_billing.web import server
from containerstacks_billing.web.app import create_application

_STOP_SECONDS = 60.0


class Service(threading.Thread):
    """A thread that runs until it is stopped. Its end is passed to `ended`; `problem` says why it ended early."""

    def __init__(
        self, name: str, serve: Callable[[], object], stop: Callable[[], None], ended: Callable[[], None]
    ) -> None:
        super().__init__(name=name, daemon=True)
        self.problem: str | None = None
        self._serve, self._request_stop, self._ended = serve, stop, ended
        self._stopped = False

    def run(self) -> None:
        """Serve; an error is kept as a sentence, and its traceback goes to the log."""
        reason = ""
        try:
            self._serve()
        except BillingError as error:
            reason = f": {error}".rstrip(".")
        except BaseException as error:  # noqa: BLE001  (of any kind, also SystemExit: the caller must not wait for ever)
            logs.logger().critical(f"The {self.name} failed", exc_info=True)
            reason = f": {type(error).__name__}"
        if not self._stopped:
            self.problem = f"the {self.name} ended{reason}"
        self._ended()

    def stop(self) -> None:
        """Request the stop and wait for the end, for a bounded time: its batches are all or nothing."""
        self._stopped = True
        self._request_stop()
        self.join(_STOP_SECONDS)


@contextmanager
def running(settings: Settings, conninfo: str, ended: Callable[[], None]) -> Iterator[tuple[Service, ...]]:
    """Run application side and daemon until the block ends; `ended` is called when one of them ends.

    Raises WorkFailed where HOST and PORT cannot be listened on.
    """
    try:
        listening = server.listen(settings.host, settings.port)
    except BillingError as error:
        hint = "Stop what listens there, or choose another port: containerstacks-billing up --port PORT"
        raise WorkFailed(f"The application side cannot start: {error}", hint) from None
    configuration = Configuration(settings, {}, (), None)
    daemon = Daemon(configuration, load=lambda: configuration)
    application = create_application(settings, conninfo, BuiltInBilling(settings, conninfo))
    web = server.server_of(application)

    def stop_web() -> None:
        web.should_exit = True

    services = (
        Service("daemon", daemon.bill_until_stopped, daemon.request_stop, ended),
        Service("application side", lambda: web.run(sockets=[listening]), stop_web, ended),
    )
    for service in services:
        service.start()
    try:
        yield services
    finally:
        for service in services:
            service.stop()
        listening.close()
