"""Bring the dated policy in the database in line with the settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any
from uuid import UUID

from containerstacks_billing.charging.model import Policy, Terms
from containerstacks_billing.database.connection import Connection, set_timeouts
from containerstacks_billing.database.ids import FIRST_UUID, LAST_UUID
from containerstacks_billing.database.statements import query
from containerstacks_billing.errors import WorkFailed

Fence = Callable[[Connection], None]


def agree_on_policy(connection: Connection, terms: Terms, as_of: datetime, fence: Fence) -> bool:
    """Let changed settings of what is billable take effect at `as_of`; True when they divide time there.

    The settings are BILLABLE_STATUSES, TRANSIENT_STATUSES, PARTIAL_HOUR and CREATION_FEE.

    Open segments of instances whose billability changes are closed at that instant, so what they used before is
    charged, or not, by the policy of before. A process that dies in the middle leaves the change unsettled; the next
    call finishes it before it makes its own. `fence` is called in each transaction, and raises where the right to bill
    is lost. Raises WorkFailed if `as_of` is not after the last change.
    """
    changed = False
    while True:
        with connection.transaction():
            set_timeouts(connection)
            fence(connection)
            began, settled = begin_change(connection, terms, as_of)
        changed = changed or began
        if settled:
            return changed
        _settle(connection, fence)


def _settle(connection: Connection, fence: Fence) -> None:
    """Close what the last change left open, some segments at a time, and mark it as finished."""
    while True:
        with connection.transaction():
            set_timeouts(connection)
            fence(connection)
            if not close_segments(connection):
                end_lasting_statuses(connection)
                connection.execute(query("settle_policy"))
                return


def begin_change(connection: Connection, terms: Terms, as_of: datetime) -> tuple[bool, bool]:
    """Write the new policy where it differs; return whether it does, and whether no segments are left to close."""
    values: dict[str, object] = {"as_of": as_of}
    for name, value in asdict(terms.policy).items():
        values[name] = list(value) if isinstance(value, tuple) else value
    row = connection.execute(query("policy_in_force")).fetchone()
    if row is None:
        raise WorkFailed("no billing policy is in force", "restore the table billing_policies from a backup")
    *facts, identifier, valid_from, settled = row
    changed = _policy(facts) != terms.policy
    if changed and not settled:
        return False, False  # the change that was begun is finished first, then this one is made
    if changed and connection.execute(query("rewrite_first_policy"), values).fetchone():
        connection.execute(query("judge_first_segments"))
        end_lasting_statuses(connection)
        return False, settled  # nothing was ever billed, so it holds since ever
    if changed:
        if not connection.execute(query("end_policy"), values | {"policy": identifier}).fetchone():
            raise WorkFailed(
                "BILLABLE_STATUSES, TRANSIENT_STATUSES, PARTIAL_HOUR or CREATION_FEE cannot change at "
                f"{as_of}: the last change is of {valid_from}"
            )
        connection.execute(query("begin_policy"), values)
        settled = False
    return changed, settled


def close_segments(connection: Connection, first: UUID = FIRST_UUID, last: UUID = LAST_UUID) -> int:
    """Close some of the segments that the old policy left open in a range of organizations; return how many."""
    connection.execute("select set_config('containerstacks_billing.advancing', 'on', true)")
    values = {"first_organization": first, "last_organization": last}
    return connection.execute(query("close_segments_of_old_policy"), values).rowcount


def end_lasting_statuses(connection: Connection, first: UUID = FIRST_UUID, last: UUID = LAST_UUID) -> None:
    """Judge what stands in a status that is not transient any more by that status, in a range of organizations."""
    connection.execute("select set_config('containerstacks_billing.advancing', 'on', true)")
    connection.execute(
        query("end_lasting_statuses"), {"first_organization": first, "last_organization": last}
    )


def policy_in_force(connection: Connection) -> Policy:
    """Return the policy that holds now, without holding it."""
    row = connection.execute(query("policy_now")).fetchone()
    return _policy(row) if row else Policy((), "", (), "")


def _policy(facts: Sequence[Any]) -> Policy:
    statuses, partial_hour, transient, creation_fee = facts
    return Policy(tuple(sorted(statuses)), partial_hour, tuple(sorted(transient)), creation_fee)
