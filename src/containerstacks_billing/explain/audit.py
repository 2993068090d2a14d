"""Audit of the host's own hourly billing: what it took from each customer, and what it should have taken.

Reads inside the caller's snapshot and changes nothing. `net` is what a wallet lost beyond what was due: the ledger
alone would count a doubled debit that a lost update of the balance took back. Where the past is not known, nothing is
proposed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from containerstacks_billing.database.connection import Connection
from containerstacks_billing.database.ids import FIRST_UUID, LAST_UUID
from containerstacks_billing.explain.snapshot import rows_of
from containerstacks_billing.money import floor_to_cent, plain
from containerstacks_billing.text import counted

ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class AuditOrder:
    """What to audit: debits from an instant on (None: all), of one organization or of every one, in a currency."""

    since: datetime | None = None
    organization: UUID | None = None
    currency: str = "USD"


@dataclass(frozen=True, slots=True)
class AuditRow:
    """What the host took from one organization; amounts are exact, None stands for unknown.

    `ledger` = `due` + `doubled` + `creation_hours` + `rounding` + `unknown`, to the last digit;
    `net` = `wallet_moved` - `due` - `unknown`.
    """

    organization_id: UUID
    organization: str | None
    currency: str
    wallet_id: UUID | None
    periods: int
    hours: Decimal
    due: Decimal
    ledger: Decimal
    wallet_moved: Decimal | None
    doubled: Decimal
    creation_hours: Decimal
    rounding: Decimal
    unknown: Decimal
    failed_and_free: Decimal
    net: Decimal | None
    credited: Decimal
    proposed: Decimal
    note: str


@dataclass(frozen=True, slots=True)
class AuditSums:
    """The sums of all organizations; what is unknown of one is in no sum."""

    organizations: int
    unknown_organizations: int
    periods: int
    hours: Decimal
    due: Decimal
    ledger: Decimal
    wallet_moved: Decimal
    doubled: Decimal
    creation_hours: Decimal
    rounding: Decimal
    unknown: Decimal
    failed_and_free: Decimal
    net: Decimal
    credited: Decimal
    proposed: Decimal


def audit_rows(connection: Connection, order: AuditOrder) -> list[AuditRow]:
    """Return a row for every organization that the host's hourly billing debited or tried to, by id."""
    values = {
        "since": order.since,
        "currency": order.currency.upper(),
        "first_organization": order.organization or FIRST_UUID,
        "last_organization": order.organization or LAST_UUID,
    }
    wallets = {one.organization_id: one for one in rows_of(connection, "audit_wallets", values)}
    return [
        _row(found, wallets.get(found.organization_id), order)
        for found in rows_of(connection, "audit_organizations", values)
    ]


def sums_of(rows: Iterable[AuditRow]) -> AuditSums:
    """Return the sums of audited organizations."""
    listed = list(rows)

    def total(name: str) -> Decimal:
        return sum((getattr(one, name) or ZERO for one in listed), ZERO)

    return AuditSums(
        organizations=len(listed),
        unknown_organizations=sum(one.net is None for one in listed),
        periods=sum(one.periods for one in listed),
        hours=total("hours"),
        due=total("due"),
        ledger=total("ledger"),
        wallet_moved=total("wallet_moved"),
        doubled=total("doubled"),
        creation_hours=total("creation_hours"),
        rounding=total("rounding"),
        unknown=total("unknown"),
        failed_and_free=total("failed_and_free"),
        net=total("net"),
        credited=total("credited"),
        proposed=total("proposed"),
    )


def _row(found: Any, wallet: Any, order: AuditOrder) -> AuditRow:
    unknown_because = _unknown_because(wallet, order)
    moved = None if unknown_because else found.ledger - (wallet.lost - wallet.lost_before)
    net = None if moved is None else moved - found.due - found.unknown_amount
    credited = wallet.credited if wallet else ZERO
    return AuditRow(
        organization_id=found.organization_id,
        organization=found.organization,
        currency=order.currency.upper(),
        wallet_id=wallet.wallet_id if wallet else None,
        periods=found.periods,
        hours=found.hours,
        due=found.due,
        ledger=found.ledger,
        wallet_moved=moved,
        doubled=found.doubled,
        creation_hours=found.creation_hours,
        rounding=found.rounding,
        unknown=found.unknown_amount,
        failed_and_free=found.failed_and_free,
        net=net,
        credited=credited,
        proposed=floor_to_cent(max(ZERO, net - credited)) if net is not None else floor_to_cent(ZERO),
        note="; ".join(_notes(found, unknown_because, net, moved)),
    )


def _unknown_because(wallet: Any, order: AuditOrder) -> str:
    """Return why it is not known what the wallet moved; empty where it is."""
    if wallet is None:
        return f"no wallet in {order.currency.upper()}"
    if wallet.wallets > 1:
        return f"{wallet.wallets} wallets in {order.currency.upper()}: which of them was debited is unknown"
    if wallet.is_younger:
        return "the wallet is younger than the host's debits: what the old one moved is unknown"
    if wallet.lost_before is None:
        return "the last entry before that time states no balance: what the wallet moved since is unknown"
    return ""


def _notes(found: Any, unknown_because: str, net: Decimal | None, moved: Decimal | None) -> list[str]:
    notes = [unknown_because] if unknown_because else []
    if moved is not None and moved > found.ledger:
        beyond = plain(moved - found.ledger)
        notes.append(f"the wallet lost {beyond} beyond all entries, as by a lost top-up or a change by hand")
    if found.unexplained_hours:
        hours = counted(int(found.unexplained_hours), "debited hour")
        notes.append(f"{hours} without a row, as of a deleted instance: what was due for them is unknown")
    if net is not None and net < 0:
        notes.append("less was taken than was due; that is never taken now")
    return notes
