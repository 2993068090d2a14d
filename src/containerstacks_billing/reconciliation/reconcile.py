"""Settlement of discrepancies: list them with their cause, accept or restore them, record who decided it and why.

Each item is settled in a transaction of its own that locks the wallets of its organization first, recomputes the
difference under the lock, changes the row and records the decision. Killed anywhere, it is given again: what is settled
is not listed any more. reconcile.sql says why the difference is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from containerstacks_billing.database.connection import Connection, connect, set_timeouts
from containerstacks_billing.database.statements import one_row, query
from containerstacks_billing.reconciliation.model import (
    RESTORABLE,
    Action,
    Answer,
    OpenItem,
    Origin,
    Reconciliation,
    SettledItem,
)
from containerstacks_billing.schema.diagnose import diagnosed
from containerstacks_billing.verification.model import Discrepancy
from containerstacks_billing.verification.verify import verify

MOST_ITEMS = 100_000
_CENT = Decimal("0.01")
_NOTHING_KNOWN = Origin(None, None, "the ledger records no balances to compare with")


@dataclass(frozen=True, slots=True)
class Settlement:
    """A decision about every open item of an organization, or of all, optionally of one check only.

    `currency` is that of billing: the oldest wallet in it pays, and is marked past due. With `only`, fingerprints of
    discrepancies, everything else is left open: what a person has not seen is not decided.
    """

    action: Action
    decided_by: str
    reason: str
    organization: UUID | None = None
    check: str | None = None
    dry_run: bool = False
    currency: str = "USD"
    only: frozenset[str] | None = None


def open_items(
    conninfo: str, organization: UUID | None = None, *, check: str | None = None, limit: int = MOST_ITEMS
) -> Reconciliation:
    """Return what `verify` finds and no decision has settled, with amounts and causes of wallet differences."""
    verification = verify(conninfo, organization=organization, shown=limit)
    chosen = [one for one in verification.discrepancies if check in {None, one.check}]
    more = sum(one.found - one.shown for one in verification.checks if check in {None, one.name})
    with diagnosed(conninfo), connect(conninfo, purpose="reading") as connection:
        items = tuple(_examined(connection, one) for one in chosen)
    return Reconciliation(verification.read_at, items, more, verification.settled)


def settle(
    conninfo: str, order: Settlement, settled: Callable[[SettledItem], None] = lambda _: None
) -> tuple[SettledItem, ...]:
    """Carry out a decision about all open items it names and return what became of each.

    A dry run does the same and rolls back. Raises the errors of the database and of `verify`.
    """
    found = open_items(conninfo, order.organization, check=order.check)
    done = []
    with diagnosed(conninfo), connect(conninfo, purpose="billing") as connection:
        for item in found.items:
            if order.only is not None and item.discrepancy.fingerprint not in order.only:
                continue
            with connection.transaction(force_rollback=order.dry_run):
                set_timeouts(connection)
                done.append(_settle(connection, item, order))
            settled(done[-1])
    return tuple(done)


def _examined(connection: Connection, discrepancy: Discrepancy) -> OpenItem:
    places = discrepancy.identifiers
    if discrepancy.check == "balances":
        values = {"organization": places["organization_id"], "wallet": places["wallet_id"]}
        _, _, difference = one_row(connection, "balance_difference", values=values)
        return OpenItem(discrepancy, difference, _origin(connection, values))
    if discrepancy.check == "carries":
        difference, _, _ = _carry(connection, places["organization_id"])
        return OpenItem(discrepancy, difference)
    return OpenItem(discrepancy)


def _settle(connection: Connection, item: OpenItem, order: Settlement) -> SettledItem:
    if not item.can(order.action):
        return SettledItem(item, Answer.NOT_RESTORABLE)
    places = item.discrepancy.identifiers
    if organization := places.get("organization_id"):
        connection.execute(query("lock_reconciliation"), {"organization": str(organization)})
        connection.execute(query("lock_wallets_to_reconcile"), {"organization": organization})
    work = _STEPS.get(item.check, _accept)
    return work(connection, item, order)


def _balance(connection: Connection, item: OpenItem, order: Settlement) -> SettledItem:
    places = item.discrepancy.identifiers
    values = {"organization": places["organization_id"], "wallet": places["wallet_id"]}
    wallet, balance, difference = one_row(connection, "balance_difference", values=values)
    # A column of the host's, which may be null.
    if balance is None or difference is None or difference.is_nan():
        return SettledItem(item, Answer.NO_NUMBER)
    if not difference:
        return SettledItem(item, Answer.ALREADY_RIGHT)
    if difference != item.amount:
        # A host that writes entry and balance in two transactions may be between them.
        return SettledItem(item, Answer.CHANGED, difference)
    if order.action is Action.RESTORE and balance - difference < 0:
        return SettledItem(item, Answer.WALLET_SHORT, difference)
    statement = "move_opening" if order.action is Action.ACCEPT else "restore_balance"
    connection.execute(query(statement), {"wallet": wallet, "difference": difference})
    _record(connection, item, order, wallet=wallet, amount=difference)
    return SettledItem(item, Answer.DONE, difference)


def _carries(connection: Connection, item: OpenItem, order: Settlement) -> SettledItem:
    difference, wallets, carry = _carry(connection, item.discrepancy.identifiers["organization_id"])
    is_sound = 0 <= carry < _CENT
    if is_sound and not difference:
        return SettledItem(item, Answer.ALREADY_RIGHT)
    wallet = wallets[0] if wallets else None
    if order.action is Action.RESTORE:
        if wallet is None or len(wallets) > 1 or not 0 <= carry - difference < _CENT:
            return SettledItem(item, Answer.NO_CARRY, difference)
        connection.execute(query("restore_carry"), {"wallet": wallet, "difference": difference})
    # A carry of a cent or more is reported whatever the sums are, so it is accepted by its fingerprint too.
    fingerprint = None if is_sound else item.discrepancy.fingerprint
    _record(connection, item, order, wallet=wallet, amount=difference, fingerprint=fingerprint)
    return SettledItem(item, Answer.DONE, difference)


def _gap(connection: Connection, item: OpenItem, order: Settlement) -> SettledItem:
    places = item.discrepancy.identifiers
    if order.action is Action.ACCEPT:
        return _accept(connection, item, order)
    if "hours_from" not in places:
        return SettledItem(item, Answer.NOT_RESTORABLE)
    values = {
        "organization": places["organization_id"],
        "instance": places["instance_id"],
        "hours_from": datetime.fromisoformat(str(places["hours_from"])),
        "hours_until": datetime.fromisoformat(str(places["hours_until"])),
    }
    if not connection.execute(query("restore_lost_hours"), values).rowcount:
        return SettledItem(item, Answer.NOT_RESTORABLE)
    _record(connection, item, order)
    return SettledItem(item, Answer.DONE)


def _watermark(connection: Connection, item: OpenItem, order: Settlement) -> SettledItem:
    if order.action is Action.ACCEPT:
        return _accept(connection, item, order)
    places = item.discrepancy.identifiers
    values = {"organization": places["organization_id"], "instance": places["instance_id"]}
    # Ours to move: the host has not been paid for the hours in between.
    connection.execute("select set_config('containerstacks_billing.advancing', 'on', true)")
    if not connection.execute(query("restore_watermark"), values).rowcount:
        return SettledItem(item, Answer.ALREADY_RIGHT)
    _record(connection, item, order)
    return SettledItem(item, Answer.DONE)


def _mark(connection: Connection, item: OpenItem, order: Settlement) -> SettledItem:
    if order.action is Action.ACCEPT:
        return _accept(connection, item, order)
    values = {
        "organization": item.discrepancy.identifiers["organization_id"],
        "currency": order.currency,
    }
    if not connection.execute(query("restore_past_due_mark"), values).rowcount:
        return SettledItem(item, Answer.NOT_RESTORABLE)
    _record(connection, item, order)
    return SettledItem(item, Answer.DONE)


def _accept(connection: Connection, item: OpenItem, order: Settlement) -> SettledItem:
    """Accept one discrepancy by its fingerprint: it counts again as soon as its facts change."""
    _record(connection, item, order, fingerprint=item.discrepancy.fingerprint)
    return SettledItem(item, Answer.DONE)


_STEPS: Mapping[str, Callable[[Connection, OpenItem, Settlement], SettledItem]] = {
    "balances": _balance,
    "carries": _carries,
    "gaps": _gap,
    "past-due": _mark,
    "watermarks": _watermark,
}


def _record(
    connection: Connection,
    item: OpenItem,
    order: Settlement,
    *,
    wallet: UUID | None = None,
    amount: Decimal | None = None,
    fingerprint: str | None = None,
) -> None:
    places = item.discrepancy.identifiers
    values = {
        "organization": places.get("organization_id"),
        "instance": places.get("instance_id"),
        "wallet": wallet or places.get("wallet_id"),
        "decision": order.action.value,
        "check": item.check,
        "amount": amount,
        "fingerprint": fingerprint,
        "message": item.discrepancy.message[:1000],
        "decided_by": order.decided_by,
        "reason": order.reason,
    }
    connection.execute(query("record_reconciliation"), values)


def _carry(connection: Connection, organization: str | int) -> tuple[Decimal, list[UUID], Decimal]:
    values = {
        "organization": organization,
        "first_organization": organization,
        "last_organization": organization,
    }
    difference, wallets, carry = one_row(connection, "carry_difference", values=values)
    return difference, wallets or [], carry or Decimal(0)


def _origin(connection: Connection, values: Mapping[str, Any]) -> Origin:
    """Return since which entry a balance and its ledger differ, and the likely cause."""
    row = connection.execute(query("origin_of_difference"), values).fetchone()
    if row is not None:
        entry, at, before, expected, _, wallet_type, follows_ours, previous, seconds = row
        if wallet_type == "hosting":
            return Origin(entry, at, "an entry of the hosting wallet stands in the ledger of the main wallet")
        if follows_ours and before == expected - previous:
            return Origin(
                entry,
                at,
                f"the host wrote an absolute balance {seconds * 1000:,.0f} ms after our debit of {-previous},"
                " which it had not read",
            )
        return Origin(entry, at, f"the balance was {before} where the entry before it left {expected}")
    last = connection.execute(query("last_entry_of_wallet"), values).fetchone()
    if last is None or last[2] is None:
        return _NOTHING_KNOWN
    entry, at, after = last
    return Origin(
        entry, at, f"the balance was changed without a ledger entry after this one, which left {after}"
    )


__all__ = ["MOST_ITEMS", "RESTORABLE", "Settlement", "open_items", "settle"]
