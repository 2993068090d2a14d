"""Repayment of what an audit found: a credit per wallet, written once, by the posting of all adjustments.

A file of `audit --csv` says who is to get how much. The caller has compared it with an audit of now; here each
organization gets its amount in a transaction of its own. The content of the file is the scope of the order, so the same
file given again goes on where it was broken off.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

from containerstacks_billing.adjustments.model import Answers, Order
from containerstacks_billing.adjustments.orders import Bounds, clock_of, close, parameters, record
from containerstacks_billing.adjustments.posting import lock, move_wallets, new_posting
from containerstacks_billing.charging import lease as leases
from containerstacks_billing.charging.lease_model import WAIT_SECONDS
from containerstacks_billing.database.run_pool import RunPool
from containerstacks_billing.database.statements import query
from containerstacks_billing.schema.diagnose import diagnosed


class Answer(StrEnum):
    """What becomes of a line of the file."""

    NOW = "now"
    NOTHING = "nothing proposed"
    ALREADY = "already paid back"
    MISMATCH = "more than the audit proposes now"
    UNKNOWN = "not in the audit any more"
    NO_WALLET = "no wallet any more"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A line of the file: an organization and the amount that is to be paid back."""

    organization_id: UUID
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Proposal:
    """What the audit proposes now, in whole cents, and what audits credited before; `wallet_id` None: no wallet."""

    proposed: Decimal
    credited: Decimal
    wallet_id: UUID | None


@dataclass(frozen=True, slots=True)
class Repayment:
    """A line of the file with what becomes of it."""

    organization_id: UUID
    amount: Decimal
    answer: Answer


def repayments(wanted: Sequence[Wanted], proposals: dict[UUID, Proposal]) -> list[Repayment]:
    """Return what becomes of each line: a proposed or a lowered amount is paid, a raised one never."""
    return [Repayment(one.organization_id, one.amount, _answer(one, proposals)) for one in wanted]


def _answer(one: Wanted, proposals: dict[UUID, Proposal]) -> Answer:
    found = proposals.get(one.organization_id)
    if found is None:
        return Answer.UNKNOWN
    if one.amount == 0:
        return Answer.NOTHING
    if found.credited > 0:
        return Answer.ALREADY
    if found.wallet_id is None:
        return Answer.NO_WALLET
    return Answer.NOW if one.amount <= found.proposed else Answer.MISMATCH


def post_repayments(
    conninfo: str,
    order: Order,
    found: Sequence[Repayment],
    *,
    holder: str,
    wait_seconds: float = WAIT_SECONDS,
    posted: Callable[[int], None] = lambda _: None,
) -> tuple[Order, int]:
    """Post what is to be paid back now; return the order as recorded, and how many wallets were credited.

    Calls `posted` after each committed organization. Raises LeaseNotObtained, LeaseLost.
    """
    credited = 0
    with diagnosed(conninfo), RunPool(conninfo) as connections, connections.connection() as connection:
        lease = leases.acquire(connection, holder, wait_seconds=wait_seconds)
        lost = threading.Event()
        with leases.renewed(connections, lease, lost.set):
            now = clock_of(connection)
            order = record(connection, lease, order, Bounds(now, now))
            for one in found:
                if one.answer is not Answer.NOW:
                    continue
                values = parameters(order, Bounds(now, now), one.organization_id, one.organization_id)
                values |= {"posted_at": now, "organization": one.organization_id, "amount": one.amount}
                values |= new_posting()
                with connection.transaction():
                    lock(connection, lease, values)
                    written = connection.execute(query("post_repayment"), values).rowcount
                    if written:
                        move_wallets(connection, values, "announce_adjustments")
                credited += written
                posted(written)
            close(connection, order, now, Answers())
    return order, credited
