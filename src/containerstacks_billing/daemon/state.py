"""State that the threads of one daemon share: configuration, stop request, contact with the database, progress.

One lock guards it, and each method takes it once, so what a method decides is decided at one instant. That matters for
one decision: a stop request and the begin of a run exclude each other, so after the first signal no run begins, and a
run that has begun is completed.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
from collections.abc import Sequence
from enum import Enum
from uuid import UUID

from containerstacks_billing.clock import Clock
from containerstacks_billing.config.load import Configuration
from containerstacks_billing.config.target import target
from containerstacks_billing.daemon.model import Beat
from containerstacks_billing.daemon.progress import LoopProgress
from containerstacks_billing.daemon.server_watch import ServerWatch
from containerstacks_billing.identity import process_facts
from containerstacks_billing.settings import Settings
from containerstacks_billing.version import __version__

SECOND_SIGNAL_SECONDS = 1.0
_SHOWN_SETTINGS = (
    "BILLING_INTERVAL_MINUTES", "HEARTBEAT_SECONDS", "FAILOVER_AFTER_MINUTES", "BILLING_WORKERS", "BILLING_BATCH_SIZE",
    "BILLABLE_STATUSES", "TRANSIENT_STATUSES", "HOURS_PER_MONTH", "PARTIAL_HOUR", "CREATION_FEE", "CURRENCY",
    "MAX_CATCH_UP_HOURS", "BRAKE_FACTOR", "SHRINK_BRAKE", "RETENTION_DAYS",
)  # fmt: skip


class StopRequested(Exception):
    """The daemon is stopping, so no run begins."""


class StopRequest(Enum):
    """What a stop request means: complete the run, nothing to complete, end after the batches, or no news."""

    COMPLETE_RUN = 1
    STOP = 2
    AFTER_BATCH = 3
    REPEATED = 4


class DaemonState:
    """The state of one daemon. `after_batch` ends a run after the batches under way; the others are wake-up calls."""

    def __init__(self, configuration: Configuration, clock: Clock) -> None:
        self.clock = clock
        # In containers every daemon is pid 1, and host names are used again.
        self.instance_id = f"{socket.gethostname()[:200]}-{os.getpid()}-{secrets.token_hex(3)}"
        self.progress = LoopProgress(clock)
        self.servers = ServerWatch()
        self.after_batch = threading.Event()
        self.loop_news = threading.Event()
        self.heartbeat_news = threading.Event()
        self._lock = threading.Lock()
        self._configuration = configuration
        self._stop_requested_at: float | None = None
        self._run_is_open = False
        self._retry_now = False
        self._can_pay: list[UUID] = []
        self._unanswered_since: float | None = None

    # Configuration.

    @property
    def configuration(self) -> Configuration:
        """The configuration in force."""
        with self._lock:
            return self._configuration

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self.configuration.settings

    @property
    def conninfo(self) -> str:
        """The database of the settings in force."""
        return target(self.settings, embedded_allowed=False).conninfo

    @property
    def interval_seconds(self) -> float:
        """The distance of two runs."""
        return self.settings.billing_interval_minutes * 60.0

    def reconfigure(self, configuration: Configuration) -> Configuration:
        """Put another configuration in force; return the former one."""
        with self._lock:
            former, self._configuration = self._configuration, configuration
        self.retry_now()
        self.heartbeat_news.set()
        return former

    # Runs and stopping.

    def begin_run(self) -> None:
        """Begin a run, which a stop lets complete from here on; raises StopRequested when a stop came first."""
        with self._lock:
            if self._stop_requested_at is not None:
                raise StopRequested
            self._run_is_open = True

    def end_run(self) -> None:
        """End the run, or the attempt at one."""
        with self._lock:
            self._run_is_open = False

    @property
    def stop_requested(self) -> bool:
        """Whether a stop was requested."""
        with self._lock:
            return self._stop_requested_at is not None

    def request_stop(self) -> StopRequest:
        """Take a stop request: the first completes a run that has begun, a later one ends it after its batches."""
        now = self.clock.patience()
        with self._lock:
            if self._stop_requested_at is None:
                self._stop_requested_at = now
                if self._run_is_open:
                    return StopRequest.COMPLETE_RUN
                self.after_batch.set()  # an attempt that waits for the lease has nothing to complete
                return StopRequest.STOP
            if now - self._stop_requested_at <= SECOND_SIGNAL_SECONDS or self.after_batch.is_set():
                return StopRequest.REPEATED
            self.after_batch.set()
            return StopRequest.AFTER_BATCH

    # Retries.

    def retry_now(self) -> None:
        """Repeat a failed attempt at once, because something changed; a run that is not due does not begin."""
        with self._lock:
            self._retry_now = True
        self.loop_news.set()

    def take_retry(self) -> bool:
        """Whether a failed attempt is to be repeated at once; asking answers once."""
        with self._lock:
            wanted, self._retry_now = self._retry_now, False
        return wanted

    # Top-ups.

    def bill_soon(self, organizations: Sequence[UUID]) -> None:
        """Let the billing loop run these organizations between its ticks."""
        if organizations:
            with self._lock:
                self._can_pay.extend(one for one in organizations if one not in self._can_pay)
            self.loop_news.set()

    def take_organization(self) -> UUID | None:
        """Return the next organization to run, once."""
        with self._lock:
            return self._can_pay.pop(0) if self._can_pay else None

    # Contact with the database.

    def database_asked(self) -> None:
        """The heartbeat waits for an answer of the database."""
        with self._lock:
            if self._unanswered_since is None:
                self._unanswered_since = self.clock.patience()

    def database_answered(self) -> None:
        """The database answered this process."""
        with self._lock:
            self._unanswered_since = None

    def unanswered_seconds(self) -> float:
        """Return how long the database has left the heartbeat without an answer."""
        with self._lock:
            since = self._unanswered_since
        return 0.0 if since is None else self.clock.patience() - since

    # What the status row shows.

    def beat(self, *, stopped: bool) -> Beat:
        """Return the heartbeat of this moment."""
        configuration = self.configuration
        settings = configuration.settings
        metadata = {
            "version": __version__,
            "interval_minutes": settings.billing_interval_minutes,
            "configuration": {key.lower(): configuration.shown(key) for key in _SHOWN_SETTINGS},
            **process_facts(),
        }
        failover_seconds = settings.failover_after_minutes * 60.0
        return self.progress.beat(self.instance_id, failover_seconds, metadata, stopped=stopped)
