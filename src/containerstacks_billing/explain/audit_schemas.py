"""Audit of the host's billing as a JSON document and as a CSV file for review; `audit post` reads the file.

The columns of the file are a contract: an operator may delete lines or lower `proposed`, and posts what is left.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

from pydantic import Field

from containerstacks_billing.document import Document, Hours, Instant, Money
from containerstacks_billing.explain.audit import AuditOrder, AuditRow, sums_of
from containerstacks_billing.explain.statement_csv import cell

COLUMNS = (
    "organizationId",
    "organization",
    "currency",
    "walletId",
    "periods",
    "hours",
    "due",
    "ledger",
    "walletMoved",
    "doubled",
    "creationHours",
    "rounding",
    "unknown",
    "failedAndFree",
    "net",
    "credited",
    "proposed",
    "note",
    "since",
    "asOf",
)


class AuditRowDocument(Document):
    """What the host took from one organization; null stands for unknown."""

    organization_id: UUID
    organization: str | None
    currency: str
    wallet_id: UUID | None
    periods: int = Field(description="Rows that the host billed")
    hours: Hours = Field(description="Distinct hours of them, which no charge of ours covers")
    due: Money
    ledger: Money
    wallet_moved: Money | None
    doubled: Money
    creation_hours: Money
    rounding: Money
    unknown: Money = Field(description="Debits whose hours are not known any more")
    failed_and_free: Money = Field(description="What the host tried to charge and never did")
    net: Money | None = Field(description="walletMoved - due - unknown")
    credited: Money
    proposed: Money = Field(description="Whole cents of a positive net, less what was credited")
    note: str


class AuditSumsDocument(Document):
    """Sums of all organizations; what is unknown of one is in no sum."""

    organizations: int
    unknown_organizations: int
    periods: int
    hours: Hours
    due: Money
    ledger: Money
    wallet_moved: Money
    doubled: Money
    creation_hours: Money
    rounding: Money
    unknown: Money
    failed_and_free: Money
    net: Money
    credited: Money
    proposed: Money


class AuditDocument(Document):
    """What the host's own program took, by organization."""

    as_of: Instant
    since: Instant | None
    currency: str
    sums: AuditSumsDocument
    organizations: list[AuditRowDocument]


def audit_document(rows: list[AuditRow], order: AuditOrder, as_of: datetime) -> AuditDocument:
    """Return the document of an audit."""
    return AuditDocument(
        as_of=as_of,
        since=order.since,
        currency=order.currency.upper(),
        sums=AuditSumsDocument.model_validate(sums_of(rows)),
        organizations=[AuditRowDocument.model_validate(one) for one in rows],
    )


def audit_csv(rows: Iterable[AuditRow], order: AuditOrder, as_of: datetime) -> bytes:
    """Return the file: one heading, one line an organization; amounts are plain decimals, empty stands for unknown."""
    text = io.StringIO(newline="")
    out = csv.writer(text, lineterminator="\r\n")
    out.writerow(COLUMNS)
    for one in rows:
        out.writerow(
            [
                one.organization_id,
                cell(one.organization),
                one.currency,
                one.wallet_id or "",
                one.periods,
                _digits(one.hours),
                *(
                    cell(amount)
                    for amount in (
                        one.due,
                        one.ledger,
                        one.wallet_moved,
                        one.doubled,
                        one.creation_hours,
                        one.rounding,
                        one.unknown,
                        one.failed_and_free,
                        one.net,
                        one.credited,
                        one.proposed,
                    )
                ),
                cell(one.note),
                _iso(order.since) if order.since else "",
                _iso(as_of),
            ]
        )
    return text.getvalue().encode()


def _digits(hours: Decimal) -> str:
    return f"{hours.normalize():f}"


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
