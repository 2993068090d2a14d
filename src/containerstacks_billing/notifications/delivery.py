"""Deliver events to WEBHOOK_URL, at least once, without billing ever waiting for it.

A round claims a few events in one short transaction, sends them side by side, and records what came of each. Nothing
is locked while a receiver takes its time. A process that dies between sending and recording leaves its events claimed
until the lease ends; they are then sent again under the same event_id, by which a receiver recognises a repetition.

The address and the secret are secrets; what is kept of a failure names neither, nor anything that the receiver said.
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
from containerstacks_billing.notifications.model import Answer, Event, answer, body, pause_seconds, signature
from containerstacks_billing.schema.diagnose import diagnosed
from containerstacks_billing.settings import Settings

# A claim outlasts the slowest way to send all of it: five turns of ten seconds.
CLAIMED_AT_ONCE = 20
SENT_SIDE_BY_SIDE = 4
LEASE_SECONDS = 120.0
SEND_SECONDS = 10.0
# Where notifications do not come through, behind a pooler in transaction mode, events are found by looking.
LOOK_EVERY_SECONDS = 15.0
_NOTICE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Delivery:
    """What came of a delivery: events sent, put off, given up, still waiting; `problem` is why nothing was tried."""

    delivered: int = 0
    failed: int = 0
    dead: int = 0
    waiting: int = 0
    problem: str | None = None


def endpoint_of(settings: Settings) -> Endpoint | None:
    """Return where events go; None without WEBHOOK_URL.

    Raises ConfigurationError when there is no WEBHOOK_SECRET: a receiver that takes unsigned events takes anybody's.
    """
    if settings.webhook_url is None:
        return None
    if settings.webhook_secret is None or not settings.webhook_secret.get_secret_value():
        raise ConfigurationError(
            "WEBHOOK_URL is set and WEBHOOK_SECRET is not; events are not sent unsigned.",
            hint="Set WEBHOOK_SECRET to a long random text, and the same in the receiver.",
        )
    return Endpoint(settings.webhook_url.get_secret_value(), settings.webhook_secret.get_secret_value())


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
    counts = dict.fromkeys(Answer, 0)
    with diagnosed(conninfo), connect(conninfo, purpose="billing") as connection:
        buried = events.expire_stale(connection, now)
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
    return Delivery(counts[Answer.DELIVERED], counts[Answer.TRY_AGAIN], counts[Answer.GONE] + buried, waiting)


def send(endpoint: Endpoint, event: Event, seconds: float = SEND_SECONDS) -> int:
    """Send one event, signed, and return the status of the answer. Raises PostFailed when there is none."""
    content = body(event)
    headers = {
        "Content-Type": "application/json",
        "Idempotency-Key": str(event.event_id),
        "X-Billing-Event": str(event.event_id),
        "X-Billing-Kind": event.kind,
        "X-Billing-Attempt": str(event.attempt),
        # The time of this host, not of the database: it is compared with the clock of the receiver.
        "X-Billing-Signature": signature(endpoint.secret, content, int(time.time())),
    }
    return post(endpoint, content, headers, seconds)


def _send_claimed(
    connection: Connection,
    endpoint: Endpoint,
    claimed: list[Event],
    now: datetime | None,
    ends_at: float,
    counts: dict[Answer, int],
) -> None:
    """Send events side by side, each of another organization, and record what came of them in their order."""

    def attempt(event: Event) -> tuple[Answer, str] | None:
        left = ends_at - time.monotonic()
        return None if left <= 0 else _try(endpoint, event, min(SEND_SECONDS, left))

    untried = []
    with ThreadPoolExecutor(SENT_SIDE_BY_SIDE, thread_name_prefix="billing-webhook") as pool:
        for event, came_of_it in zip(claimed, pool.map(attempt, claimed), strict=True):
            if came_of_it is None:
                untried.append(event)
                continue
            result, error = came_of_it
            counts[_record(connection, event, result, error, now)] += 1
    if untried:
        events.release(connection, untried, now)


def _try(endpoint: Endpoint, event: Event, seconds: float) -> tuple[Answer, str]:
    try:
        status = send(endpoint, event, seconds)
    except PostFailed as failure:
        return Answer.TRY_AGAIN, str(failure)
    redirected = ", and redirects are not followed" if 300 <= status < 400 else ""
    return answer(status), f"the receiver answered {status}{redirected}"


def _record(connection: Connection, event: Event, result: Answer, error: str, now: datetime | None) -> Answer:
    """Record an attempt; return GONE also when it was the last."""
    if result is Answer.DELIVERED:
        events.record_delivered(connection, event, now)
        return result
    pause = None if result is Answer.GONE else pause_seconds(event.attempt, random.random())  # noqa: S311
    events.record_failed(connection, event, error, pause, now)
    if pause is None:
        logger(__name__).error(
            "An event is given up",
            id=event.sequence,
            kind=event.kind,
            attempts=event.attempt,
            reason=error,
        )
        return Answer.GONE
    logger(__name__).warning(
        "An event could not be delivered",
        id=event.sequence,
        kind=event.kind,
        attempt=event.attempt,
        reason=error,
    )
    return result


class Deliverer:
    """Delivers for as long as its process lives, in a thread of its own; woken by notifications, else by looking."""

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
        """Deliver until asked to stop; returns at once when there is nowhere to send to.

        A database that is away is waited for, with growing pauses; nothing that happens here is raised.
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
                        _wait_for_news(listener, stopping)
            except (BillingError, OSError) as error:
                logger(__name__).warning("Events cannot be delivered at present", error=str(error))
                stopping.wait(pause * (0.5 + random.random()))  # noqa: S311
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def _deliver(self, stopping: threading.Event) -> None:
        self._delivered(deliver_due(self._conninfo, self._settings, stopping=stopping))


def _wait_for_news(listener: psycopg.Connection[tuple[object, ...]], stopping: threading.Event) -> None:
    """Return when there was a notification, when it is time to look, or soon after being asked to stop."""
    look_at = time.monotonic() + LOOK_EVERY_SECONDS
    while not stopping.is_set() and time.monotonic() < look_at:
        if any(True for _ in listener.notifies(timeout=_NOTICE_SECONDS, stop_after=1)):
            return
