"""Readers of the lists in records.sql; each returns one page, inside the caller's transaction."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from psycopg.rows import args_row, dict_row

from containerstacks_billing.database.connection import Connection
from containerstacks_billing.database.statements import ask
from containerstacks_billing.records.model import LARGEST_NUMBER, Page, decode, page_of
from containerstacks_billing.status.model import RunRecord

Fields = dict[str, Any]

_WILDCARD = re.compile(r"([\\%_])")


@dataclass(frozen=True, slots=True)
class Span:
    """The instants from `start` until before `end`; None is open."""

    start: datetime | None = None
    end: datetime | None = None


def organizations(
    connection: Connection, currency: str, limit: int, cursor: str | None = None, text: str | None = None
) -> Page[Fields]:
    """Return organizations by name, of those whose name begins with a text if one is given; an id finds its own.

    Raises CursorInvalid.
    """
    after_name, after_id = decode(cursor, str, UUID)
    if text and (organization := _uuid(text)):
        found = _organization(connection, currency, organization)
        return Page((found,) if found else (), None)
    pattern = _WILDCARD.sub(r"\\\1", text) + "%" if text else None
    values = {
        "currency": currency, "pattern": pattern, "after_name": after_name, "after_id": after_id,
        "limit": limit + 1,
    }  # fmt: skip
    rows = ask(connection, "organizations_by_name", dict_row, values).fetchall()
    return page_of(rows, limit, lambda row: (row["place"], row["organization_id"]))


def organization(connection: Connection, currency: str, organization_id: UUID) -> Fields | None:
    """Return one organization with the wallet that pays; None when there is none."""
    return _organization(connection, currency, organization_id)


def _organization(connection: Connection, currency: str, organization_id: UUID) -> Fields | None:
    values = {"currency": currency, "id": organization_id}
    return ask(connection, "organization_by_id", dict_row, values).fetchone()


def instances(
    connection: Connection, limit: int, cursor: str | None = None, organization: UUID | None = None
) -> Page[Fields]:
    """Return instances by id, of one organization if it is given. Raises CursorInvalid."""
    (after,) = decode(cursor, UUID)
    values = {"organization": organization, "after": after, "id": None, "limit": limit + 1}
    rows = ask(connection, "instances_by_id", dict_row, values).fetchall()
    return page_of(rows, limit, lambda row: (row["instance_id"],))


def instance(connection: Connection, instance_id: UUID) -> Fields | None:
    """Return one instance as it is now; None when its row is gone."""
    values = {"organization": None, "after": None, "id": instance_id, "limit": 1}
    return ask(connection, "instances_by_id", dict_row, values).fetchone()


def charges(
    connection: Connection,
    organization: UUID,
    span: Span,
    limit: int,
    cursor: str | None = None,
    instance: UUID | None = None,
) -> Page[Fields]:
    """Return the charges of an organization that begin in a span, newest first. Raises CursorInvalid."""
    start, after_instance, after_id = decode(cursor, datetime, UUID, UUID)
    values = {
        "organization": organization, "instance": instance, "from": span.start, "until": span.end,
        "after_start": start, "after_instance": after_instance, "after_id": after_id, "limit": limit + 1,
    }  # fmt: skip
    rows = ask(connection, "charges_of_organization", dict_row, values).fetchall()
    return page_of(rows, limit, lambda row: (row["starts_at"], row["instance_id"], row["charge_id"]))


def entries(
    connection: Connection, organization: UUID, limit: int, cursor: str | None = None
) -> Page[Fields]:
    """Return the ledger entries of an organization, newest first. Raises CursorInvalid."""
    at, after_id = decode(cursor, datetime, UUID)
    values = {"organization": organization, "after_at": at, "after_id": after_id, "limit": limit + 1}
    rows = ask(connection, "entries_of_organization", dict_row, values).fetchall()
    return page_of(rows, limit, lambda row: (row["posted_at"], row["entry_id"]))


def moved_since(connection: Connection, organization: UUID, cursor: str | None) -> Decimal:
    """Return what the ledger entries before a page add up to: 0 on the first. Raises CursorInvalid."""
    at, after_id = decode(cursor, datetime, UUID)
    if cursor is None:
        return Decimal(0)
    values = {"organization": organization, "after_at": at, "after_id": after_id}
    amount: Decimal = ask(connection, "moved_since", values=values).fetchall()[0][0]
    return amount


def moved_by_day(connection: Connection, organization: UUID) -> list[Fields]:
    """Return debits and additions of an organization by day, within 31 days."""
    return ask(connection, "moved_by_day", dict_row, {"organization": organization}).fetchall()


def runways(
    connection: Connection,
    limit: int,
    cursor: str | None = None,
    below_hours: float | None = None,
    *,
    past_due: bool = False,
) -> Page[Fields]:
    """Return the wallets that end, soonest first. Raises CursorInvalid."""
    end, organization, wallet = decode(cursor, datetime, UUID, UUID)
    values = {
        "below_hours": below_hours, "past_due": past_due, "after_end": end, "after_organization": organization,
        "after_wallet": wallet, "limit": limit + 1,
    }  # fmt: skip
    rows = ask(connection, "runways_by_end", dict_row, values).fetchall()
    return page_of(rows, limit, lambda row: (row["empties_at"], row["organization_id"], row["wallet_id"]))


def left_out(
    connection: Connection,
    limit: int,
    cursor: str | None = None,
    organization: UUID | None = None,
    reason: str | None = None,
) -> Page[Fields]:
    """Return quarantined and held instances, the longest first. Raises CursorInvalid."""
    at, after_organization, after_instance, segment = decode(cursor, datetime, UUID, UUID, int)
    values = {
        "organization": organization, "reason": reason, "after_at": at, "after_organization": after_organization,
        "after_instance": after_instance, "after_segment": segment, "limit": limit + 1,
    }  # fmt: skip
    rows = ask(connection, "left_out_by_age", dict_row, values).fetchall()
    place = ("first_seen_at", "organization_id", "instance_id", "segment_id")
    return page_of(rows, limit, lambda row: tuple(row[name] for name in place))


def decisions(
    connection: Connection, limit: int, cursor: str | None = None, organization: UUID | None = None
) -> Page[Fields]:
    """Return decisions of every kind, newest first; of one organization those about its money. Raises CursorInvalid."""
    before, origin, number = decode(cursor, datetime, int, int)
    values = {
        "organization": organization, "before": before, "before_origin": origin, "before_number": number,
        "largest": LARGEST_NUMBER, "limit": limit + 1,
    }  # fmt: skip
    rows = ask(connection, "decisions_by_time", dict_row, values).fetchall()
    return page_of(rows, limit, lambda row: (row["decided_at"], row["origin"], row["decision_id"]))


def runs(
    connection: Connection,
    limit: int,
    cursor: str | None = None,
    outcome: str | None = None,
    trigger: str | None = None,
    span: Span = Span(),
) -> Page[RunRecord]:
    """Return runs, newest first; the outcome `open` is that of a run in progress. Raises CursorInvalid."""
    values = {
        "before": _before(cursor), "outcome": outcome, "trigger": trigger, "from": span.start, "until": span.end,
        "limit": limit + 1,
    }  # fmt: skip
    rows = ask(connection, "runs_by_number", args_row(RunRecord), values).fetchall()
    return page_of(rows, limit, lambda run: (run.run_id,))


def run(connection: Connection, run_id: int) -> tuple[RunRecord, Fields] | None:
    """Return a run, and by what it was held and who released it; None when there is none."""
    values = {"run_id": run_id}
    found = ask(connection, "run_by_number", args_row(RunRecord), values).fetchone()
    hold = ask(connection, "hold_of_run", dict_row, values).fetchone()
    return (found, hold) if found and hold else None


def events(
    connection: Connection,
    limit: int,
    cursor: str | None = None,
    state: str | None = None,
    kind: str | None = None,
    organization: UUID | None = None,
) -> Page[Fields]:
    """Return events for the host, newest first. Raises CursorInvalid."""
    values = {
        "before": _before(cursor), "state": state, "kind": kind, "organization": organization,
        "limit": limit + 1,
    }  # fmt: skip
    rows = ask(connection, "events_by_number", dict_row, values).fetchall()
    return page_of(rows, limit, lambda row: (row["id"],))


def _before(cursor: str | None) -> object:
    (number,) = decode(cursor, int)
    return LARGEST_NUMBER if number is None else number


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
