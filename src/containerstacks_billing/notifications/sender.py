"""The delivery of events beside the billing loop: begun anew whenever the configuration names another receiver."""

from __future__ import annotations

import threading

from containerstacks_billing.notifications.delivery import SEND_SECONDS, Deliverer
from containerstacks_billing.settings import Settings

_KEYS = ("webhook_url", "webhook_secret", "database_url")


class Delivery:
    """Owns the thread that delivers events. It never holds up billing, and billing never asks it for anything."""

    def __init__(self) -> None:
        self._settings: Settings | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def go_by(self, conninfo: str, settings: Settings) -> None:
        """Deliver by these settings from now on; nothing happens where they name the same receiver as before."""
        if self._settings and all(getattr(self._settings, key) == getattr(settings, key) for key in _KEYS):
            return
        self._stopping.set()
        self._settings, self._stopping = settings, threading.Event()
        self._thread = threading.Thread(
            target=Deliverer(conninfo, settings).run,
            args=(self._stopping,),
            name="event-delivery",
            daemon=True,
        )
        self._thread.start()

    def end(self) -> None:
        """End after the events that are being sent, so that what has arrived is recorded."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(SEND_SECONDS + 2)
