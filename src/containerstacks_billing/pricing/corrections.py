"""Corrections of past prices: preview, then posting exactly once.

What a correction is, and why posting it twice changes nothing, is said in migrations/020_price_corrections.sql; how
the hours are found and what a wallet bears, in corrections.sql. Here is the order of things:

  1  look     A draft and its preview only read.
  2  decide   Under the lease and in one transaction the version is rewritten and the correction recorded. From here
              on every hour that is rated in the span is rated at the corrected price.
  3  post     Range by range of organizations: fence, lock the wallets, write adjustments, entries and debits, rate
              past-due charges anew, commit.

A process that dies after 2 leaves a correction that is posted in part, and charges at the old price beside it: the same
command finds the recorded correction and goes on with 3. Runs that came in between do no harm, whatever they charged.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from containerstacks_billing.adjustments.model import ALWAYS_FROM
from containerstacks_billing.adjustments.posting import ORGANIZATIONS_AT_ONCE, Statements, fence, post, ranges
from containerstacks_billing.charging import lease as leases
from containerstacks_billing.charging.lease_model import WAIT_SECONDS, Lease
from containerstacks_billing.database.connection import Connection, set_timeouts
from containerstacks_billing.database.ids import FIRST_UUID, LAST_UUID
from containerstacks_billing.database.run_pool import RunPool
from containerstacks_billing.database.statements import query
from containerstacks_billing.errors import WorkFailed
from containerstacks_billing.pricing.model import Correction, OrganizationDifference, Plan, Price
from containerstacks_billing.pricing.versions import database_clock, enter, lock_version, show
from containerstacks_billing.schema.diagnose import diagnosed

_NO_CORRECTION = 2**62
_STATEMENTS = Statements("post_corrected_adjustments", "reprice_corrected_past_due")


def draft(connection: Connection, plan: Plan, price: Price, at: datetime) -> Correction | None:
    """Return the correction of a price from `at` on: as it would be, or as recorded when it was posted before.

    None when that was the price anyway. Only reads, except that it brings the versions up to what `vps_plans` shows.
    """
    with connection.transaction():
        set_timeouts(connection)
        return _derive(connection, plan, price, at)


def _derive(connection: Connection, plan: Plan, price: Price, at: datetime) -> Correction | None:
    now = database_clock(connection)
    connection.execute(query("sync_prices"), {"as_of": now})
    version = lock_version(connection, plan, at)
    if (version.base, version.markup) != (price.base, price.markup):
        until = now if version.valid_to is None else min(now, version.valid_to)
        old = (version.base, version.markup)
        return Correction(plan, at, until, version.valid_to, old, price, version.backup_hourly, now)
    values = {"plan_id": plan.plan_id, "at": at, "base_price": price.base, "markup_price": price.markup}
    row = connection.execute(query("latest_correction"), values).fetchone()
    if row is None or row[1] >= row[2]:
        return None
    number, corrected_from, corrected_until, old_base, old_markup, backup_hourly, decided_at = row
    old = (old_base, old_markup)
    return Correction(
        plan, corrected_from, corrected_until, version.valid_to, old, price, backup_hourly, decided_at, number
    )


def preview(
    connection: Connection, correction: Correction, currency: str, *, at_once: int = ORGANIZATIONS_AT_ONCE
) -> Iterator[OrganizationDifference]:
    """Yield the differences per organization; after posting, those that are still missing."""
    for first, last in ranges(connection, at_once):
        values = _parameters(correction, currency, first, last)
        rows = connection.execute(query("preview_correction"), values).fetchall()
        yield from (OrganizationDifference(*row) for row in rows)


def correct(
    conninfo: str,
    correction: Correction,
    currency: str,
    *,
    holder: str,
    by: str,
    reason: str | None,
    wait_seconds: float = WAIT_SECONDS,
    at_once: int = ORGANIZATIONS_AT_ONCE,
    posted: Callable[[int], None] = lambda _: None,
) -> tuple[Correction, list[OrganizationDifference]]:
    """Post a correction; return it as recorded and what wallets could not pay. Idempotent: it posts what is missing.

    Calls `posted` after each committed range, with the number of its adjustments. Raises LeaseNotObtained while
    another biller holds the lease, LeaseLost when another one took it over, WorkFailed when the
    price was changed since the draft was made.
    """
    with diagnosed(conninfo), RunPool(conninfo) as connections, connections.connection() as connection:
        lease = leases.acquire(connection, holder, wait_seconds=wait_seconds)
        lost = threading.Event()
        with leases.renewed(connections, lease, lost.set):
            correction = _decide(connection, lease, correction, by=by, reason=reason)
            posting = {"decided_by": by, "reason": reason, "posted_at": database_clock(connection)}
            for first, last in ranges(connection, at_once):
                values = {**_parameters(correction, currency, first, last), **posting}
                posted(post(connection, lease, values, _STATEMENTS).adjustments)
            short = [one for one in preview(connection, correction, currency) if one.unposted_charges]
            closing = {
                "correction_id": correction.correction_id,
                "posted_at": posting["posted_at"],
                "unposted_charges": sum(one.unposted_charges for one in short),
                "unposted_amount": sum(one.unposted_amount for one in short),
            }
            connection.execute(query("close_correction"), closing)
    return correction, short


def _decide(
    connection: Connection, lease: Lease, seen: Correction, *, by: str, reason: str | None
) -> Correction:
    """Rewrite the price version and record the correction, unless done before."""
    with connection.transaction():
        set_timeouts(connection)
        fence(connection, lease)
        connection.execute(query("lock_plan"), {"plan_id": seen.plan.plan_id})
        found = _derive(connection, seen.plan, seen.new, seen.corrected_from)
        # As text, because a price that is no number equals nothing, not even itself.
        if found is None or f"{found.old} {found.version_until}" != f"{seen.old} {seen.version_until}":
            raise WorkFailed(
                f"the price of {seen.plan.title} was changed since this correction was shown; nothing was posted",
                "give the command again to see what it changes now",
            )
        if found.correction_id is not None:
            return found
        version = lock_version(connection, found.plan, found.corrected_from)
        at = found.corrected_from
        enter(connection, version, found.new, at, by=by, reason=reason)
        if found.reaches_into_the_future:
            show(connection, found.plan, found.new)
        values = _parameters(found, "", FIRST_UUID, LAST_UUID) | {"decided_by": by, "reason": reason}
        row = connection.execute(query("record_correction"), values).fetchone()
    return replace(found, correction_id=row[0] if row else None)


def _parameters(correction: Correction, currency: str, first: UUID, last: UUID) -> dict[str, Any]:
    old_base, old_markup = correction.old
    return {
        "plan_id": correction.plan.plan_id,
        "corrected_from": correction.corrected_from,
        "corrected_until": correction.corrected_until,
        "old_base_price": old_base,
        "old_markup_price": old_markup,
        "new_base_price": correction.new.base,
        "new_markup_price": correction.new.markup,
        "backup_hourly": correction.backup_hourly,
        "decided_at": correction.decided_at,
        "correction_id": _NO_CORRECTION if correction.correction_id is None else correction.correction_id,
        "currency": currency,
        "first_organization": first,
        "last_organization": last,
        # What the shared statements ask for.
        "order_id": None,
        "undoes": None,
        "run": None,
        "run_as_of": None,
        "first_id": None,
        "last_id": None,
        "instances": None,
        "pro_rata": False,
        "from": correction.corrected_from,
        "until": correction.corrected_until,
        "starts_from": ALWAYS_FROM,
        "starts_until": correction.corrected_until,
        "created_until": correction.decided_at,
        "settled_status": "billed",
        "entry_key": f"billing-adjustment-{correction.correction_id}",
        "title": f"VPS Price Correction - {correction.plan.title}",
        "stated_from": correction.corrected_from,
        "cause": "correction_id",
    }
