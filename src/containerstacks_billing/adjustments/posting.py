"""Posting of adjustments, one range of organizations per transaction; shared by price corrections and orders."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from containerstacks_billing.charging.lease_model import Lease
from containerstacks_billing.database.connection import Connection, set_timeouts
from containerstacks_billing.database.ids import FIRST_UUID
from containerstacks_billing.database.statements import query
from containerstacks_billing.errors import LeaseLost

ORGANIZATIONS_AT_ONCE = 50
# A range may hold months of charges; the lease is renewed beside it, and only its own wallets wait.
_STATEMENT_TIMEOUT = "5min"


@dataclass(frozen=True, slots=True)
class Statements:
    """The statements that one kind of adjustment is posted with, by name."""

    adjust: str
    reprice: str
    mark: str | None = None
    announce: str | None = None


@dataclass(frozen=True, slots=True)
class Posted:
    """What one transaction wrote: adjustments of billed charges, and past-due charges that were rated anew."""

    adjustments: int
    repriced: int


def ranges(
    connection: Connection, at_once: int = ORGANIZATIONS_AT_ONCE, organization: UUID | None = None
) -> Iterator[tuple[UUID, UUID]]:
    """Yield inclusive ranges of organizations that together cover every one with charges of ours, or the one wanted."""
    if organization is not None:
        yield organization, organization
        return
    after = FIRST_UUID
    while row := connection.execute(
        query("next_organizations"), {"after": after, "organizations": at_once}
    ).fetchone():
        yield UUID(int=after.int + 1), row[0]
        after = row[0]


def fence(connection: Connection, lease: Lease) -> None:
    """Hold the lease for the length of the transaction; raises LeaseLost when another biller took it over."""
    values = {"fencing_token": lease.fencing_token, "nonce": lease.nonce}
    if connection.execute(query("fence"), values).fetchone() is None:
        raise LeaseLost("another biller took over the lease; give the command again to post what is missing")


def post(connection: Connection, lease: Lease, values: dict[str, Any], statements: Statements) -> Posted:
    """Post the adjustments of one range of organizations in one transaction."""
    values = values | new_posting()
    with connection.transaction():
        lock(connection, lease, values)
        adjustments = connection.execute(query(statements.adjust), values).rowcount
        if adjustments:
            move_wallets(connection, values, statements.announce)
        if statements.mark:
            connection.execute(query(statements.mark), values)
        row = connection.execute(query(statements.reprice), values).fetchone()
        repriced = row[0] if row else 0
        if repriced:
            connection.execute(query("clear_past_due"), values)
    return Posted(adjustments, repriced)


def new_posting() -> dict[str, Any]:
    """Return the identity of a posting and the leading digits of its entries' identifiers."""
    posting = uuid4()
    # In front of the identifier of an entry stand sixteen digits of version 4; those of a run have version 8 there.
    return {"posting": posting, "posting_key": posting.hex[:16]}


def lock(connection: Connection, lease: Lease, values: dict[str, Any]) -> None:
    """Hold the lease, and lock the organizations and wallets of the range in the order of a batch."""
    set_timeouts(connection)
    connection.execute("select set_config('statement_timeout', %s, true)", (_STATEMENT_TIMEOUT,))
    fence(connection, lease)
    connection.execute(query("lock_organizations"), values)
    connection.execute(query("lock_wallets_to_adjust"), values)


def move_wallets(connection: Connection, values: dict[str, Any], announce: str | None) -> None:
    """Announce the adjustments of this posting, write their entries, and move the balances."""
    if announce:
        connection.execute(query(announce), values)
    connection.execute(query("post_adjustment_entries"), values)
    connection.execute(query("adjust_wallets"), values)
