"""Reversals and credits: preview, then posting exactly once; and how they are undone.

An order is written down under the lease, then posted range by range of organizations, each in one transaction. What it
posts is derived from charges and adjustments each time, so an order that was killed half-way and is given again posts
what is missing and nothing twice. Hours are never opened again: watermarks and the rows of billed charges stay, and
what changes is the rate at which an hour stands.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.rows import class_row

from containerstacks_billing.adjustments.model import (
    ALWAYS_FROM,
    ALWAYS_UNTIL,
    Answers,
    Effect,
    Effects,
    Mode,
    Order,
    OrderKind,
    Outcome,
    Uncharged,
)
from containerstacks_billing.adjustments.posting import (
    ORGANIZATIONS_AT_ONCE,
    Posted,
    Statements,
    fence,
    post,
    ranges,
)
from containerstacks_billing.charging import lease as leases
from containerstacks_billing.charging.lease_model import WAIT_SECONDS, Lease
from containerstacks_billing.database.connection import Connection, set_timeouts
from containerstacks_billing.database.run_pool import RunPool
from containerstacks_billing.database.statements import ask, query
from containerstacks_billing.errors import WorkFailed
from containerstacks_billing.schema.diagnose import diagnosed

_ORDERED = Statements("post_ordered_adjustments", "reprice_ordered_past_due", announce="announce_adjustments")
_UNDONE = Statements(
    "post_undone_adjustments",
    "reprice_undone_past_due",
    mark="mark_undone_past_due",
    announce="announce_adjustments",
)
_TITLES = {
    OrderKind.REVERSAL: "VPS Billing Reversal",
    OrderKind.CREDIT: "VPS Service Credit",
    OrderKind.AUDIT: "VPS Billing Repayment",
}
_EVENTS = {OrderKind.REVERSAL: "reversed", OrderKind.CREDIT: "credited", OrderKind.AUDIT: "credited"}


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where to look: between which instants the charges begin, and the instant of the run that is meant."""

    starts_from: datetime
    starts_until: datetime
    run_as_of: datetime | None = None


def preview(connection: Connection, order: Order) -> Outcome:
    """Return what an order would do, by organization; it only reads.

    Raises WorkFailed when the run or the order to undo does not exist.
    """
    order = replace(order, order_id=_recorded(connection, order))
    bounds = bounds_of(connection, order)
    effects = _effects(connection, order, bounds)
    return Outcome(order, effects, uncharged=_uncharged(connection, order))


def post_order(
    conninfo: str,
    order: Order,
    *,
    holder: str,
    wait_seconds: float = WAIT_SECONDS,
    at_once: int = ORGANIZATIONS_AT_ONCE,
    posted: Callable[[Posted], None] = lambda _: None,
) -> Outcome:
    """Post an order, and return what is left of it. Idempotent: it posts what is missing.

    Calls `posted` after each committed range. Raises LeaseNotObtained while another biller holds the lease, LeaseLost
    when another one took it over, WorkFailed when there is no such run or order.
    """
    done: list[Posted] = []
    with diagnosed(conninfo), RunPool(conninfo) as connections, connections.connection() as connection:
        lease = leases.acquire(connection, holder, wait_seconds=wait_seconds)
        lost = threading.Event()
        with leases.renewed(connections, lease, lost.set):
            bounds = bounds_of(connection, order)
            order = record(connection, lease, order, bounds)
            now = clock_of(connection)
            for first, last in ranges(connection, at_once, order.scope.organization):
                values = parameters(order, bounds, first, last) | {"posted_at": now}
                done.append(post(connection, lease, values, statements_of(order)))
                posted(done[-1])
            effects = _effects(connection, order, bounds)
            close(connection, order, now, effects.answers)
            uncharged = _uncharged(connection, order)
    return Outcome(
        order,
        effects,
        sum(one.adjustments for one in done),
        sum(one.repriced for one in done),
        uncharged,
    )


def bounds_of(connection: Connection, order: Order) -> Bounds:
    """Return where the charges of an order are; raises WorkFailed where it names what is not there."""
    if order.undoes is not None:
        row = connection.execute(query("bounds_of_order"), {"undoes": order.undoes}).fetchone()
        if row is None or row[0] != order.kind:
            raise WorkFailed(
                f"there is no {order.kind} {order.undoes}",
                f"`{_verb(order)} list` shows those that there are",
            )
        if row[1] == Mode.UNDO:
            raise WorkFailed(
                f"{order.kind} {order.undoes} undoes another one and cannot be undone itself",
                "give the order again that it undid",
            )
        return Bounds(row[2], row[3])
    if order.scope.run is not None:
        return _bounds_of_run(connection, order.scope.run)
    begin, end = order.scope.begin or ALWAYS_FROM, order.scope.end or ALWAYS_UNTIL
    row = connection.execute(query("earliest_start"), {"from": begin, "until": end}).fetchone()
    return Bounds(row[0] if row else begin, end)


def _bounds_of_run(connection: Connection, run: int) -> Bounds:
    first, last = _identifiers(run)
    row = connection.execute(
        query("run_of_order"), {"run": run, "first_id": first, "last_id": last}
    ).fetchone()
    if row is None:
        raise WorkFailed(f"there is no run {run}", "`runs list` shows those that there are")
    as_of, outcome, earliest, latest = row
    if outcome is None:
        raise WorkFailed(f"run {run} is not ended yet", "wait until `runs show` says how it ended")
    if earliest is None:
        return Bounds(as_of, as_of, as_of)
    # The last charge begins at `latest`; the bound itself is outside.
    return Bounds(earliest, max(latest, as_of), as_of)


def _identifiers(run: int) -> tuple[UUID, UUID]:
    """Return the bounds of the identifiers of a run's charges (billing_batch_uuid)."""
    prefix = f"{run % 2**32:08x}"
    return UUID(prefix + "0" * 24), UUID(prefix + "f" * 24)


def _recorded(connection: Connection, order: Order) -> int | None:
    row = connection.execute(query("find_order"), _identity(order)).fetchone()
    return row[0] if row else None


def record(connection: Connection, lease: Lease, order: Order, bounds: Bounds) -> Order:
    """Write the order down, unless it was before."""
    with connection.transaction():
        set_timeouts(connection)
        fence(connection, lease)
        found = _recorded(connection, order)
        if found is None:
            values = _identity(order) | {
                "starts_from": bounds.starts_from,
                "starts_until": bounds.starts_until,
                "decided_at": clock_of(connection),
                "decided_by": order.by,
                "reason": order.reason,
            }
            row = connection.execute(query("record_order"), values).fetchone()
            found = row[0] if row else None
    return replace(order, order_id=found)


def close(connection: Connection, order: Order, now: datetime, left: Answers) -> None:
    """Note how much wallets could not bear."""
    closing = {
        "order_id": order.order_id,
        "posted_at": now,
        "unposted_charges": left.unposted_charges,
        "unposted_amount": left.no_wallet + left.wallet_short,
    }
    connection.execute(query("close_order"), closing)


def _identity(order: Order) -> dict[str, Any]:
    return {"kind": order.kind, "mode": order.mode, "scope": order.document(), "undoes": order.undoes}


def clock_of(connection: Connection) -> datetime:
    """Return the instant of the database clock."""
    [row] = connection.execute("select billing_clock()").fetchall()
    now: datetime = row[0]
    return now


def _effects(connection: Connection, order: Order, bounds: Bounds) -> Effects:
    statement = "preview_undo" if order.mode is Mode.UNDO else "preview_order"
    found = Effects()
    for first, last in ranges(connection, ORGANIZATIONS_AT_ONCE, order.scope.organization):
        found.add(ask(connection, statement, class_row(Effect), parameters(order, bounds, first, last)))
    return found


def _uncharged(connection: Connection, order: Order) -> Uncharged:
    """Return the hours of a span that are not charged yet; of a run none are."""
    scope = order.scope
    if order.mode is Mode.UNDO or scope.begin is None or scope.end is None:
        return Uncharged()
    values = {
        "from": scope.begin,
        "until": scope.end,
        "organization": scope.organization,
        "plan_id": scope.plan_id,
        "instances": None if scope.instances is None else list(scope.instances),
    }
    row = connection.execute(query("count_uncharged"), values).fetchone()
    return Uncharged(*row) if row else Uncharged()


def instances_in(connection: Connection, region: str) -> tuple[UUID, ...]:
    """Return the instances of a region, as the host's configuration of each says; none where it says nothing."""
    row = connection.execute(query("instances_in_region"), {"region": region}).fetchone()
    return tuple(row[0] or ()) if row else ()


def statements_of(order: Order) -> Statements:
    """Return the statements that an order is posted with."""
    return _UNDONE if order.mode is Mode.UNDO else _ORDERED


def _verb(order: Order) -> str:
    return "credit" if order.kind is OrderKind.CREDIT else "reverse"


def parameters(order: Order, bounds: Bounds, first: UUID, last: UUID) -> dict[str, Any]:
    """Return what the statements of an order are bound to, for one range of organizations."""
    scope = order.scope
    first_id, last_id = (None, None) if scope.run is None else _identifiers(scope.run)
    begin, end = scope.begin or ALWAYS_FROM, scope.end or ALWAYS_UNTIL
    undone = " undone" if order.mode is Mode.UNDO else ""
    return {
        "first_organization": first,
        "last_organization": last,
        "currency": order.currency,
        "mode": order.mode,
        "factor": order.factor,
        "cap": None if order.cap is None else order.cap.percent / 100,
        "cap_from": None if order.cap is None else end - order.cap.of,
        "hours_per_month": order.hours_per_month,
        "run": scope.run,
        "run_as_of": bounds.run_as_of,
        "first_id": first_id,
        "last_id": last_id,
        "plan_id": scope.plan_id,
        "instances": None if scope.instances is None else list(scope.instances),
        "pro_rata": order.pro_rata,
        "from": begin,
        "until": end,
        "starts_from": bounds.starts_from,
        "starts_until": bounds.starts_until if scope.run is None else ALWAYS_UNTIL,
        "created_until": None,
        "since": bounds.run_as_of or scope.begin or bounds.starts_from,
        "order_id": order.order_id,
        "correction_id": None,
        "undoes": order.undoes,
        "settled_status": "refunded",
        "decided_by": order.by,
        "reason": order.reason,
        "entry_key": f"billing-{order.kind}-{order.order_id}",
        "title": _TITLES[order.kind] + undone,
        "stated_from": scope.begin,
        "cause": f"{order.kind}_id",
        "event": _EVENTS[order.kind],
    }
