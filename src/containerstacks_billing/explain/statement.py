"""Statements of account read from the books: what each number means is said in statement.sql."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from containerstacks_billing.database.connection import Connection
from containerstacks_billing.database.ids import FIRST_UUID, LAST_UUID
from containerstacks_billing.explain.model import hours_from_seconds
from containerstacks_billing.explain.month import Month, month_of
from containerstacks_billing.explain.snapshot import rows_of
from containerstacks_billing.explain.statement_checks import findings
from containerstacks_billing.explain.statement_schema import (
    EntrySum,
    HostLine,
    Reconciling,
    SingleEntry,
    Statement,
    Usage,
    UsageAdjustment,
    UsageLine,
)
from containerstacks_billing.money import plain

ZERO = Decimal(0)
MOST_SINGLE_ENTRIES = 100_000
ORGANIZATIONS_AT_ONCE = 25
_CENT = Decimal("0.01")


@dataclass(frozen=True, slots=True)
class Reading:
    """The order of statements: a month, in a currency; `at_once` organizations are read together."""

    month: Month
    currency: str
    at_once: int = ORGANIZATIONS_AT_ONCE

    def values(self, first: UUID, last: UUID) -> dict[str, Any]:
        """Return the values of the statements for a range of organizations."""
        return {
            "first_organization": first,
            "last_organization": last,
            "from": self.month.starts_at,
            "until": self.month.ends_at,
            "currency": self.currency,
            "limit": MOST_SINGLE_ENTRIES,
        }


@dataclass(slots=True)
class _Rows:
    """The rows about one organization, by statement."""

    organization: Any
    entries: list[Any]
    single_entries: list[Any]
    usage: list[Any]
    adjustments: list[Any]
    host: list[Any]
    sums: Any | None


def read_statement(connection: Connection, reading: Reading, organization: UUID) -> Statement | None:
    """Return the statement of one organization; None where neither the host nor the charges know it."""
    found = list(_read(connection, reading, organization, organization))
    return found[0] if found else None


def read_statements(connection: Connection, reading: Reading) -> Iterator[Statement]:
    """Yield the statement of every organization, also of those that are deleted and left charges.

    They are read a few at a time, so memory does not grow with their number.
    """
    values = reading.values(FIRST_UUID, LAST_UUID)
    every = [row.organization_id for row in rows_of(connection, "statement_organizations", values)]
    for start in range(0, len(every), reading.at_once):
        batch = every[start : start + reading.at_once]
        yield from _read(connection, reading, batch[0], batch[-1])


def _read(connection: Connection, reading: Reading, first: UUID, last: UUID) -> Iterator[Statement]:
    values = reading.values(first, last)
    organizations = rows_of(connection, "statement_organizations", values)
    if not organizations:
        return
    [state] = rows_of(connection, "statement_is_complete", values)
    entries, single_entries, usage, adjustments, host, sums = (
        _grouped(rows_of(connection, name, values))
        for name in (
            "statement_entries",
            "statement_single_entries",
            "statement_usage",
            "statement_adjustments",
            "statement_host_rows",
            "statement_sums",
        )
    )
    for organization in organizations:
        key = organization.organization_id
        rows = _Rows(
            organization,
            entries[key],
            single_entries[key],
            usage[key],
            adjustments[key],
            host[key],
            next(iter(sums[key]), None),
        )
        yield _statement(reading, rows, complete=state.complete)


def _grouped(rows: Sequence[Any]) -> defaultdict[UUID, list[Any]]:
    grouped: defaultdict[UUID, list[Any]] = defaultdict(list)
    for row in rows:
        grouped[row.organization_id].append(row)
    return grouped


def _statement(reading: Reading, rows: _Rows, *, complete: bool) -> Statement:
    organization, month = rows.organization, reading.month
    opening, entries, closing = _cash(rows)
    usage = _usage(month, rows)
    statement = Statement(
        organization_id=organization.organization_id,
        organization=organization.name,
        address=organization.address,
        tax_id=organization.tax_id,
        deleted=not organization.exists,
        month=month.name,
        timezone=month.timezone,
        starts_at=month.starts_at,
        ends_at=month.ends_at,
        currency=reading.currency,
        complete=complete,
        opening=opening,
        entries=entries,
        single_entries=[SingleEntry.model_validate(one) for one in rows.single_entries],
        closing=closing,
        usage=usage,
        reconciling=_reconciling(rows, usage) if organization.exists else None,
        findings=[],
    )
    return statement.model_copy(update={"findings": [*findings(statement), *_damage(rows, statement)]})


def _cash(rows: _Rows) -> tuple[Decimal | None, list[EntrySum], Decimal | None]:
    """Return the opening balance, what was posted by kind, and the closing balance."""
    organization = rows.organization
    posted = [
        EntrySum(kind=one.kind, entries=one.entries, amount=one.amount) for one in rows.entries if one.entries
    ]
    if organization.opened_in:
        posted.insert(0, EntrySum(kind="opening", entries=1, amount=organization.opened_in))
    if organization.acceptances:
        accepted = EntrySum(
            kind="accepted", entries=organization.acceptances, amount=organization.accepted_in
        )
        posted.append(accepted)
    if not organization.wallets and not rows.entries:
        return None, [], None
    opening = organization.opened_before + sum((one.before for one in rows.entries), ZERO)
    return opening, posted, opening + sum((one.amount for one in posted), ZERO)


def _usage(month: Month, rows: _Rows) -> Usage:
    lines = [
        UsageLine(
            instance_id=one.instance_id,
            label=one.label,
            deleted=one.deleted,
            plan_id=one.plan_id,
            plan=one.plan,
            first_at=one.first_at,
            last_at=one.last_at,
            hours=one.whole_hours + hours_from_seconds(one.part_seconds),
            hourly_rate=one.hourly_rate,
            whole_hours=one.whole_hours,
            part_seconds=one.part_seconds,
            part_amount=one.part_amount,
            amount=one.amount,
            past_due=one.past_due,
            debited_later=one.debited_later,
        )
        for one in rows.usage
    ]
    adjustments = [
        UsageAdjustment(
            instance_id=one.instance_id,
            label=one.label,
            kind=one.kind,
            correction_id=one.correction_id,
            order_id=one.order_id,
            posted_at=one.posted_at,
            first_at=one.first_at,
            last_at=one.last_at,
            hours=hours_from_seconds(one.seconds),
            months=_months(one.first_at, one.last_at, month.timezone),
            reason=one.reason,
            amount=one.amount,
        )
        for one in rows.adjustments
    ]
    host = [
        HostLine(
            instance_id=one.instance_id,
            label=one.label,
            first_at=one.first_at,
            last_at=one.last_at,
            periods=one.periods,
            hours=hours_from_seconds(one.seconds),
            amount=one.amount,
        )
        for one in rows.host
    ]
    charges = sum((line.amount for line in lines), ZERO)
    adjusted = sum((one.amount for one in adjustments), ZERO)
    seconds = sum((one.whole_hours * 3600 + one.part_seconds for one in rows.usage), ZERO)
    return Usage(
        lines=lines,
        adjustments=adjustments,
        hours=hours_from_seconds(seconds),
        charges=charges,
        adjusted=adjusted,
        amount=charges + adjusted,
        by_the_host=host,
        by_the_host_amount=sum((one.amount for one in host), ZERO),
    )


def _months(first_at: datetime, last_at: datetime, timezone: str) -> list[str]:
    """Return the names of the months in which hours from one instant to another start."""
    month = month_of(first_at, timezone)
    names = [month.name]
    while month.ends_at < last_at:
        month = month_of(month.ends_at, timezone)
        names.append(month.name)
    return names


def _reconciling(rows: _Rows, usage: Usage) -> Reconciling:
    sums = rows.sums
    if sums is None:
        return Reconciling.model_validate(dict.fromkeys(Reconciling.model_fields, ZERO))
    carry_in = sums.billed_before + sums.adjusted_before - sums.debited_before
    billed = (
        sums.billed_for_month
        + sums.billed_for_earlier
        + sums.past_due_collected
        + sums.billed_ahead
        + sums.adjusted
    )
    carry_out = carry_in + billed - sums.debited
    debited_later = sum((line.debited_later for line in usage.lines), ZERO)
    past_due = sum((line.past_due for line in usage.lines), ZERO)
    accounted = usage.amount - debited_later - past_due - sums.billed_early
    accounted += sums.billed_for_earlier + sums.past_due_collected + sums.billed_ahead + carry_in - carry_out
    return Reconciling(
        usage=usage.amount,
        debited_later=debited_later,
        past_due=past_due,
        debited_earlier=sums.billed_early,
        for_earlier_months=sums.billed_for_earlier,
        past_due_collected=sums.past_due_collected,
        ahead_of_month=sums.billed_ahead,
        carry_in=carry_in,
        carry_out=carry_out,
        debits=sums.debited,
        debits_in_other_currencies=sums.debited_elsewhere,
        difference=sums.debited - accounted,
    )


def _damage(rows: _Rows, statement: Statement) -> Iterator[str]:
    """Yield what the books of the organization say against themselves, whatever the month."""
    organization, sums, block = rows.organization, rows.sums, statement.reconciling
    ever = organization.opening + sum((one.ever for one in rows.entries), ZERO)
    if organization.exists and organization.wallets and organization.balance != ever:
        yield (
            f"At present the balance is {plain(organization.balance)}, but openings and ledger entries make"
            f" {plain(ever)}; `verify` says more."
        )
    if sums is None or block is None:
        return
    carried = sums.billed_ever + sums.adjusted_ever - sums.debited_ever + sums.accepted
    if carried != sums.carried_now:
        yield (
            f"At present {plain(sums.carried_now)} is carried, but charges and debits leave {plain(carried)};"
            " `verify` says more."
        )
    elif not sums.accepted and not ZERO <= block.carry_out < _CENT:
        yield f"What was carried out of the month, {plain(block.carry_out)}, is not between nothing and a cent."
