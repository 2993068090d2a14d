"""Delivery of events to WEBHOOK_URL: at least once, in a thread of its own.

A round claims a few events in one short transaction, sends them concurrently, and records the outcome of each. Nothing
is locked while a receiver responds. A process that dies between sending and recording leaves its events claimed
until the lease ends; they are then sent again under the same event_id, by which a receiver recognises a repetition.

URL and signing keys are secrets; the reason kept of a failure holds neither, nor anything of the response body.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

import psycopg

from containerstacks_billing.database.connection import Connection, connect
from containerstacks_billing.errors import BillingError, ConfigurationError
from containerstacks_billing.logs import logger
from containerstacks_billing.notifications import outbox as events
from containerstacks_billing.notifications.http_post import Endpoint, PostFailed, post
from containerstacks_billing.notifications.model import (
    DeliveryOutcome,
    Event,
    body,
    delivery_outcome,
    pause_seconds,
    signature,
    signing_keys,
)
from containerstacks_billing.schema.diagnose import diagnosed
from containerstacks_billing.settings import Settings

# A claim outlasts the slowest way to send all of it: five turns of ten seconds.
CLAIMED_AT_ONCE = 20
CONCURRENT_SENDS = 4
LEASE_SECONDS = 120.0
SEND_SECONDS = 10.0
# Behind a pooler in transaction mode no notification arrives, and events are found by polling.
POLL_SECONDS = 15.0
_NOTICE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Delivery:
    """Events sent, to be retried, given up and still waiting after a round; `problem` is why none was tried."""

    delivered: int = 0
    failed: int = 0
    dead: int = 0
    waiting: int = 0
    problem: str | None = None


def endpoint_of(settings: Settings) -> Endpoint | None:
    """Return the receiver and its signing keys; None without WEBHOOK_URL.

    Raises ConfigurationError without WEBHOOK_SECRET: a receiver that accepts unsigned events accepts forged ones.
    """
    if settings.webhook_url is None:
        return None
    if settings.webhook_secret is None or not settings.webhook_secret.get_secret_value():
        raise ConfigurationError(
            "WEBHOOK_URL is set and WEBHOOK_SECRET is not; events are not sent unsigned.",
            hint="Set WEBHOOK_SECRET here and in the receiver, for example to the output of:\n"
            "echo whsec_$(openssl rand -base64 32)",
        )
    return Endpoint(
        settings.webhook_url.get_secret_value(), signing_keys(settings.webhook_secret.get_secret_value())
    )


def deliver_due(
    conninfo: str,
    settings: Settings,
    *,
    now: datetime | None = None,
    limit: int = 1000,
    deadline: float = 60.0,
    stopping: threading.Event | None = None,
) -> Delivery:
    """Send the events that are due: at most `limit`, for at most `deadline` seconds.

    `now` is the database's clock unless a test says otherwise. A receiver that fails is no error, and neither is a
    missing WEBHOOK_URL: then events stay where they can be read. Raises the errors of the database.
    """
    try:
        endpoint = endpoint_of(settings)
    except ConfigurationError as error:
        return Delivery(problem=str(error))
    if endpoint is None:
        return Delivery()
    ends_at = time.monotonic() + deadline
    counts = dict.fromkeys(DeliveryOutcome, 0)
    with diagnosed(conninfo), connect(conninfo, purpose="billing") as connection:
        expired = events.expire_stale(connection, now)
        sent = 0
        while sent < limit and time.monotonic() < ends_at and not (stopping and stopping.is_set()):
            claimed = events.claim(
                connection, now=now, limit=min(CLAIMED_AT_ONCE, limit - sent), lease_seconds=LEASE_SECONDS
            )
            if not claimed:
                break
            sent += len(claimed)
            _send_claimed(connection, endpoint, claimed, now, ends_at, counts)
        waiting, _ = events.waiting(connection)
    return Delivery(
        counts[DeliveryOutcome.DELIVERED],
        counts[DeliveryOutcome.TRY_AGAIN],
        counts[DeliveryOutcome.GONE] + expired,
        waiting,
    )


def send(endpoint: Endpoint, event: Event, seconds: float = SEND_SECONDS) -> int:
    """Send one signed event and return the HTTP status of the response. Raises PostFailed when there is none."""
    content, message_id = body(event), str(event.event_id)
    # The time of this host, not of the database: the receiver compares it with its own clock.
    now = int(time.time())
    headers = {
        "Content-Type": "application/json",
        "Idempotency-Key": message_id,
        "webhook-id": message_id,
        "webhook-timestamp": str(now),
        "webhook-signature": signature(endpoint.keys, message_id, now, content),
        "X-Billing-Kind": event.kind,
        "X-Billing-Attempt": str(event.attempt),
    }
    return post(endpoint, content, headers, seconds)


def _send_claimed(
    connection: Connection,
    endpoint: Endpoint,
    claimed: list[Event],
    now: datetime | None,
    ends_at: float,
    counts: dict[DeliveryOutcome, int],
) -> None:
    """Send events of different organizations concurrently and record their outcomes in order."""

    def attempt(event: Event) -> tuple[DeliveryOutcome, str] | None:
        left = ends_at - time.monotonic()
        return None if left <= 0 else _try(endpoint, event, min(SEND_SECONDS, left))

    untried = []
    with ThreadPoolExecutor(CONCURRENT_SENDS, thread_name_prefix="billing-webhook") as pool:
        for event, attempted in zip(claimed, pool.map(attempt, claimed), strict=True):
            if attempted is None:
                untried.append(event)
                continue
            result, error = attempted
            counts[_record(connection, event, result, error, now)] += 1
    if untried:
        events.release(connection, untried, now)


def _try(endpoint: Endpoint, event: Event, seconds: float) -> tuple[DeliveryOutcome, str]:
    try:
        status = send(endpoint, event, seconds)
    except PostFailed as failure:
        return DeliveryOutcome.TRY_AGAIN, str(failure)
    redirected = ", and redirects are not followed" if 300 <= status < 400 else ""
    return delivery_outcome(status), f"the receiver answered {status}{redirected}"


def _record(
    connection: Connection, event: Event, result: DeliveryOutcome, error: str, now: datetime | None
) -> DeliveryOutcome:
    """Record an attempt; return its outcome, GONE also when it was the last."""
    if result is DeliveryOutcome.DELIVERED:
        events.record_delivered(connection, event, now)
        return result
    pause = None if result is DeliveryOutcome.GONE else pause_seconds(event.attempt, random.random())  # noqa: S311
    events.record_failed(connection, event, error, pause, now)
    if pause is None:
        logger(__name__).error(
            "Event delivery given up",
            id=event.sequence,
            kind=event.kind,
            attempts=event.attempt,
            reason=error,
        )
        return DeliveryOutcome.GONE
    logger(__name__).warning(
        "Event delivery failed",
        id=event.sequence,
        kind=event.kind,
        attempt=event.attempt,
        reason=error,
    )
    return result


class Deliverer:
    """Delivery loop of one process: woken by NOTIFY, otherwise polling."""

    def __init__(
        self,
        conninfo: str,
        settings: Settings,
        *,
        delivered: Callable[[Delivery], None] = lambda _: None,
    ) -> None:
        self._conninfo = conninfo
        self._settings = settings
        self._delivered = delivered

    def run(self, stopping: threading.Event) -> None:
        """Deliver until `stopping` is set; return at once without a receiver.

        Reconnects to an unavailable database with growing pauses; raises nothing.
        """
        try:
            if endpoint_of(self._settings) is None:
                return
        except ConfigurationError as error:
            logger(__name__).error(str(error))
            return
        pause = 1.0
        while not stopping.is_set():
            try:
                with diagnosed(self._conninfo), connect(self._conninfo, purpose="billing") as listener:
                    listener.execute("listen billing_events")
                    pause = 1.0
                    while not stopping.is_set():
                        self._deliver(stopping)
                        _wait_for_notification(listener, stopping)
            except (BillingError, OSError) as error:
                logger(__name__).warning("Event delivery is not possible at present", error=str(error))
                stopping.wait(pause * (0.5 + random.random()))  # noqa: S311
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def _deliver(self, stopping: threading.Event) -> None:
        self._delivered(deliver_due(self._conninfo, self._settings, stopping=stopping))


def _wait_for_notification(
    listener: psycopg.Connection[tuple[object, ...]], stopping: threading.Event
) -> None:
    """Return after a notification, after the polling interval, or soon after `stopping` is set."""
    poll_at = time.monotonic() + POLL_SECONDS
    while not stopping.is_set() and time.monotonic() < poll_at:
        if any(True for _ in listener.notifies(timeout=_NOTICE_SECONDS, stop_after=1)):
            return


_RECEIVER_KEYS = ("webhook_url", "webhook_secret", "database_url")


class DeliveryThread:
    """The thread that delivers events, restarted when the configuration names another receiver."""

    def __init__(self) -> None:
        self._settings: Settings | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def configure(self, conninfo: str, settings: Settings) -> None:
        """Deliver by these settings from now on; does nothing when receiver and database are unchanged."""
        if self._settings and all(
            getattr(self._settings, key) == getattr(settings, key) for key in _RECEIVER_KEYS
        ):
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

    def stop(self) -> None:
        """Stop after the events that are being sent, so that their outcome is recorded."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(SEND_SECONDS + 2)
