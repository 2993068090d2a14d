"""Bring the dated policy in the database in line with the settings."""

from __future__ import annotations

from datetime import datetime

from containerstacks_billing.billing.errors import WorkFailed
from containerstacks_billing.billing.run import Terms
from containerstacks_billing.postgres.connection import Connection, transaction_bounds
from containerstacks_billing.postgres.queries import query


def agree_on_policy(connection: Connection, terms: Terms, as_of: datetime) -> bool:
    """Let a change of BILLABLE_STATUSES or PARTIAL_HOUR take effect at `as_of`; True when there was one.

    Open stretches of instances whose billability changes are closed at that instant, so what they used before is
    charged, or not, by the policy of before. A process that dies in the middle leaves the change unsettled, and the next call
    goes on with it. Raises WorkFailed if `as_of` is not after the last change.
    """
    values = {
        "billable_statuses": list(terms.billable_statuses),
        "partial_hour": terms.partial_hour,
        "as_of": as_of,
    }
    with connection.transaction():
        transaction_bounds(connection)
        policy = connection.execute(query("policy_in_force")).fetchone()
        if policy is None:
            raise WorkFailed(
                "no billing policy is in force", "restore the table billing_policies from a backup"
            )
        identifier, statuses, partial_hour, valid_from, settled = policy
        changed = (set(statuses), partial_hour) != (set(terms.billable_statuses), terms.partial_hour)
        if changed and not settled:
            changed = False  # finish the change that was begun; the next run brings the other
        if changed and not connection.execute(query("rewrite_first_policy"), values).fetchone():
            if not connection.execute(query("end_policy"), values | {"policy": identifier}).fetchone():
                raise WorkFailed(
                    f"BILLABLE_STATUSES or PARTIAL_HOUR cannot change at {as_of}: the last change is of {valid_from}"
                )
            connection.execute(query("begin_policy"), values)
            settled = False
    while not settled:
        with connection.transaction():
            transaction_bounds(connection)
            connection.execute("select set_config('containerstacks_billing.advancing', 'on', true)")
            if not connection.execute(query("close_stretches_of_old_policy")).rowcount:
                connection.execute(query("settle_policy"))
                settled = True
    return changed
