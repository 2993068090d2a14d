"""Release of held hours, and of those that the host passed over, by a decision.

release.sql argues why no hour is lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg

from containerstacks_billing.charging import lease as leases
from containerstacks_billing.charging.batch import ChangedMeanwhile, pin_planner
from containerstacks_billing.charging.lease_model import Lease
from containerstacks_billing.charging.model import Terms, terms_parameters
from containerstacks_billing.charging.policies import begin_change
from containerstacks_billing.charging.returned import flush_segments
from containerstacks_billing.charging.run_record import database_clock
from containerstacks_billing.database.connection import Connection, set_timeouts
from containerstacks_billing.database.errors import is_transient
from containerstacks_billing.database.ids import FIRST_UUID, LAST_UUID
from containerstacks_billing.database.run_pool import RunPool
from containerstacks_billing.database.statements import query
from containerstacks_billing.errors import InvariantBroken, LeaseLost, WorkFailed
from containerstacks_billing.holds.model import EVERY_HOUR, HELD, HeldHours, ReleaseDecision, ReleaseResult
from containerstacks_billing.schema.diagnose import diagnosed
from containerstacks_billing.schema.drift import expected_schema_problem

ATTEMPTS = 5
INSTANCES_AT_ONCE = 5000


def release(
    conninfo: str, terms: Terms, order: ReleaseDecision, holder: str, wait_seconds: float = 90
) -> ReleaseResult:
    """Apply a decision to every held instance it names, under the lease, so never during a run.

    A dry run does the same without the lease and rolls back. Raises LeaseNotObtained, LeaseLost, DatabaseUnavailable,
    and WorkFailed when the host kept changing the instances; what was committed before that stays decided.
    """
    with diagnosed(conninfo), RunPool(conninfo) as connections, connections.connection() as connection:
        if problem := expected_schema_problem(connection):
            raise problem
        if order.dry_run:
            return _decide(connection, terms, order, None)
        lease = leases.acquire(connection, holder, wait_seconds=wait_seconds)
        with leases.renewed(connections, lease, lambda: None):
            return _decide(connection, terms, order, lease)


def _decide(
    connection: Connection, terms: Terms, order: ReleaseDecision, lease: Lease | None
) -> ReleaseResult:
    as_of = database_clock(connection)
    values: dict[str, Any] = terms_parameters(terms) | {
        "as_of": as_of,
        "decision": order.decision.value,
        "kept_hours": order.kept_hours,
        "decided_by": order.decided_by,
        "reason": order.reason,
        "batch_size": INSTANCES_AT_ONCE,
        "include_pending": True,
    }
    released = ReleaseResult(as_of)
    for reach in _ranges(connection, order, values):
        released = released.with_held_hours(_until_it_holds(connection, terms, values | reach, order, lease))
    if not order.dry_run:
        with connection.transaction():
            set_timeouts(connection)
            connection.execute(query("count_quarantine"))
    return released


def _ranges(
    connection: Connection, order: ReleaseDecision, values: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Yield ranges of organizations and instances that contain the held instances of a decision."""
    reaches = [(order.organization or FIRST_UUID, order.organization or LAST_UUID)]
    if order.instance is not None:
        owners = connection.execute(query("organization_of_instance"), {"instance_id": order.instance})
        reaches = [(owner, owner) for (owner,) in owners.fetchall()]
    only = {
        "first_instance": order.instance or FIRST_UUID,
        "last_instance": order.instance or LAST_UUID,
    }
    for first, last in reaches:
        reach = {"first_organization": first, "last_organization": last} | only
        with connection.transaction():
            set_timeouts(connection)
            plan = "plan_passed_over" if order.passed_over else "plan_release"
            planned = connection.execute(query(plan), values | reach).fetchall()
        for first_organization, last_organization, _ in planned:
            yield only | {
                "first_organization": first_organization,
                "last_organization": last_organization,
            }


def _until_it_holds(
    connection: Connection,
    terms: Terms,
    values: dict[str, Any],
    order: ReleaseDecision,
    lease: Lease | None,
) -> list[HeldHours]:
    """Decide about one range; retried from the rows when the host changed an instance meanwhile."""
    last: Exception | None = None
    for _ in range(ATTEMPTS):
        try:
            with connection.transaction(force_rollback=order.dry_run):
                if order.passed_over and _one(connection, "never_billed", values)[0]:
                    # Before the first run no policy was in force, and segments are judged by the settings.
                    begin_change(connection, terms, values["as_of"])
                return _decide_range(connection, values, order, lease)
        except ChangedMeanwhile as error:
            last = error
        except psycopg.Error as error:
            if connection.broken or not is_transient(error):
                raise
            last = error
    if isinstance(last, psycopg.Error):
        raise last
    raise WorkFailed(
        f"the held instances changed {ATTEMPTS} times while they were decided about",
        "try again; what was decided about others stands, and is listed by the dry run no more",
    )


def _decide_range(
    connection: Connection, values: dict[str, Any], order: ReleaseDecision, lease: Lease | None
) -> list[HeldHours]:
    pin_planner(connection)
    if lease is not None:
        fence = {"fencing_token": lease.fencing_token, "nonce": lease.nonce}
        if connection.execute(query("fence"), fence).fetchone() is None:
            raise LeaseLost("another biller took over the lease; the rest was not decided about")
    _one(connection, "lock_wallets", values)
    flush_segments(connection, values)
    values = values | {"include_pending": False}
    if order.passed_over:
        connection.execute(query("file_passed_over"), values)
    first, last = _one(connection, "decide_passed_over" if order.passed_over else "decide", values)
    if first is None:
        return []
    values = values | {
        "first_decision": first,
        "last_decision": last,
        "max_catch_up_hours": EVERY_HOUR,
    }
    due = connection.execute(query("held_hours"), values).fetchall()
    moved = connection.execute(query("move_waived_watermarks"), values).rowcount
    connection.execute(query("keep_parts_of_segments"), values)
    waived = connection.execute(query("waive_segments"), values).rowcount
    if (moved, waived) != _one(connection, "expected_moves", values):
        raise ChangedMeanwhile
    connection.execute(query("strike_off"), values)
    left = connection.execute(query("held_hours"), values).fetchall()
    return [
        HeldHours(
            organization,
            instance,
            label,
            hours,
            amount,
            hours_left,
            amount_left,
            HELD if order.passed_over else reason,
        )
        for (organization, instance, label, reason, hours, amount), (*_, hours_left, amount_left) in zip(
            due, left, strict=True
        )
    ]


def _one(connection: Connection, name: str, values: dict[str, Any]) -> tuple[Any, ...]:
    row = connection.execute(query(name), values).fetchone()
    if row is None:
        raise InvariantBroken(f"the statement {name} returned nothing")
    return row
