"""Obtain, renew and give back the lease."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg

from containerstacks_billing.charging.lease_model import LEASE_SECONDS, RENEW_SECONDS, WAIT_SECONDS, Lease
from containerstacks_billing.database.connection import Connection, bounded_transaction
from containerstacks_billing.database.errors import is_transient
from containerstacks_billing.database.run_pool import RunPool
from containerstacks_billing.database.statements import query
from containerstacks_billing.errors import BillingError, LeaseNotObtained
from containerstacks_billing.schema.diagnose import diagnosed


def try_acquire(connection: Connection, holder: str, lease_seconds: int = LEASE_SECONDS) -> Lease | None:
    """Take the lease if it is free or expired; None while it is held, or a batch under it is not finished."""
    try:
        with bounded_transaction(connection):
            values = {"holder": holder, "lease_seconds": lease_seconds}
            row = connection.execute(query("acquire_lease"), values).fetchone()
    except psycopg.errors.LockNotAvailable:
        return None
    return Lease(holder, *row) if row else None


def acquire(
    connection: Connection,
    holder: str,
    *,
    wait_seconds: float = WAIT_SECONDS,
    stopping: threading.Event | None = None,
    waiting: Callable[[str], None] = lambda _: None,
) -> Lease:
    """Take the lease, waiting for it; raises LeaseNotObtained, naming the holder, when it does not come free.

    `waiting` is called once, with a sentence that names the holder.
    """
    stopping = stopping or threading.Event()
    began, announced = time.monotonic(), False
    while True:
        if lease := try_acquire(connection, holder):
            return lease
        waited = time.monotonic() - began
        if waited >= wait_seconds or stopping.is_set():
            raise _not_obtained(connection, waited)
        if not announced:
            announced = True
            waiting(
                f"{_holder(connection)[0]} is billing now; waiting up to {wait_seconds:.0f} s for it to finish"
            )
        # An attempt may itself wait for the row, five seconds long, so the time is measured and not added up.
        stopping.wait(min(random.uniform(0.5, 1.5), wait_seconds - waited))  # noqa: S311  (jitter, not a secret)


def _holder(connection: Connection) -> tuple[str, float]:
    """Who holds the lease, and for how many seconds still."""
    with bounded_transaction(connection):
        row = connection.execute(query("lease_holder")).fetchone()
    return row or ("another biller", 0.0)


def _not_obtained(connection: Connection, waited: float) -> LeaseNotObtained:
    holder, seconds = _holder(connection)
    return LeaseNotObtained(
        f"{holder} is billing now and still held the lease after {waited:.0f} s; nothing was charged here",
        f"wait for it to finish (the lease is renewed while it works and expires in {seconds:.0f} s otherwise)",
    )


@contextmanager
def renewed(connections: RunPool, lease: Lease, lost: Callable[[], None]) -> Iterator[None]:
    """Renew the lease from a thread and a connection of its own for as long as the block runs, then give it back.

    `lost` is called once when the lease is gone; the batches find out by themselves. A renewal that fails for a reason
    that passes is tried again a second later: until it expires the lease is ours all the same.
    """
    done = threading.Event()
    values = {"fencing_token": lease.fencing_token, "nonce": lease.nonce, "lease_seconds": LEASE_SECONDS}

    def renew() -> None:
        connection: Connection | None = None
        pause: float = RENEW_SECONDS
        while not done.wait(pause):
            try:
                connection = connection or connections.acquire()
                with diagnosed(connections.conninfo), bounded_transaction(connection):
                    still_ours = connection.execute(query("renew_lease"), values).fetchone()
                pause = RENEW_SECONDS
            except BillingError:
                if connection is not None:
                    connection.close()
                connection, pause = None, 1.0
                continue
            if still_ours is None:
                lost()
                break
        if connection is not None:
            connection.close()

    thread = threading.Thread(target=renew, name="lease-renewal", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(timeout=RENEW_SECONDS)
        _give_back(connections, lease)


def _give_back(connections: RunPool, lease: Lease) -> None:
    """Release the lease; when that cannot be done it expires by itself."""
    values = {"fencing_token": lease.fencing_token, "nonce": lease.nonce}
    try:
        with connections.connection() as connection, bounded_transaction(connection):
            connection.execute(query("release_lease"), values)
    except BillingError:
        return
    except psycopg.Error as error:
        if not is_transient(error):
            raise
