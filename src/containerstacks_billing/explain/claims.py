"""Claims on the hours of an instance: charges, segments, decisions, quarantine and the row itself, as periods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from containerstacks_billing.explain.model import HOUR
from containerstacks_billing.explain.timeline import FOREVER, Period, State, lay_out

# Segments over which the host application moved the watermark by itself, and what that means.
_OF_HOST = {
    "watermark": "The host application moved the watermark over it.",
    "creation": "Paid by the fee that the host application took at creation (CREATION_FEE).",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """The rows about one instance, as hours.sql reads them; `instance` is None where it is deleted."""

    read_at: datetime
    instance: Any | None
    segments: Sequence[Any]
    charges: Sequence[Any]
    decisions: Sequence[Any]
    quarantine: Sequence[Any]


def periods_of(records: Records, starts_at: datetime, ends_at: datetime) -> list[Period]:
    """Return what became of each instant of [starts_at, ends_at)."""
    claims = [
        *_own_charges(records),
        *_waived_open_hours(records),
        *_settled_segments(records, by_host=False),
        *_host_charges(records),
        # The host moves the watermark on with rows of its own, which say more, or without.
        *_settled_segments(records, by_host=True),
        *_open_periods(records),
        *_before_and_after(records),
        *_only_charges(records),
    ]
    # Whether a gap is one depends on what ends it, which may lie beyond the span.
    until = min((at for at in beginnings(records) if at > ends_at), default=ends_at)
    placed = (_absent(one, records) for one in lay_out(claims, starts_at, until))
    return [
        one if one.charge_id is not None else replace(one, ends_at=min(one.ends_at, ends_at))
        for one in placed
        if one.starts_at < ends_at
    ]


def beginnings(records: Records) -> list[datetime]:
    """Return the instants at which metering of the instance began: once, or again each time that its row came back."""
    rows = [records.instance] if records.instance is not None else []
    rows += [segment for segment in records.segments if segment.reason in ("deleted", "re-keyed")]
    return sorted({row.rated_from for row in rows if row.rated_from is not None})


def _absent(one: Period, records: Records) -> Period:
    """Return time in front of a beginning as time without the instance; any other as it is."""
    if one.state is not State.UNKNOWN or one.ends_at not in beginnings(records):
        return one
    deleted = [row for row in records.segments if row.reason == "deleted" and row.ends_at <= one.starts_at]
    gone = f"It was deleted at {deleted[-1].closed_at:%Y-%m-%d %H:%M}" if deleted else "Its row was not there"
    detail = f"{gone}, and its metering began again at {one.ends_at:%Y-%m-%d %H:%M}."
    return replace(one, state=State.DELETED, detail=detail)


def _own_charges(records: Records) -> list[Period]:
    return [
        Period(
            starts_at=one.starts_at,
            ends_at=one.ends_at,
            state=State.PAST_DUE if one.status == "failed" else State.BILLED,
            detail="The wallet could not pay it yet." if one.status == "failed" else "Charged.",
            organization_id=one.organization_id,
            hourly_rate=one.hourly_rate,
            amount=one.amount,
            charge_id=one.charge_id,
            entry_id=one.entry_id,
        )
        for one in records.charges
        if one.run_id is not None
    ]


def _host_charges(records: Records) -> list[Period]:
    return [
        Period(
            starts_at=one.starts_at,
            ends_at=one.ends_at,
            state=State.BY_HOST,
            detail="The host application billed it by itself.",
            organization_id=one.organization_id,
            hourly_rate=one.hourly_rate,
            amount=one.amount,
            charge_id=one.charge_id,
            entry_id=one.entry_id,
        )
        for one in records.charges
        if one.run_id is None
    ]


def _waived_open_hours(records: Records) -> list[Period]:
    return [
        Period(starts_at=one.starts_at, ends_at=one.ends_at, state=State.WAIVED, detail=_waived(one))
        for one in records.decisions
        if not one.segment_id
    ]


def _waived(decision: Any) -> str:
    return f"Waived by {decision.decided_by} at {decision.decided_at:%Y-%m-%d %H:%M}: {decision.reason}"


def _settled_segments(records: Records, *, by_host: bool) -> list[Period]:
    """Return what segments say; those `by_host` are spans over which the host moved the watermark by itself."""
    since: datetime | None = None
    last_end: datetime | None = None
    found = []
    for segment in records.segments:
        if segment.outcome == "not billable":
            since = since if since is not None and segment.starts_at == last_end else segment.starts_at
            last_end = segment.ends_at
        if (segment.reason in _OF_HOST) is by_host:
            found += _segment(segment, records, since)
    return found


def _segment(segment: Any, records: Records, since: datetime | None) -> list[Period]:
    """Return what a segment says about itself: what was to be charged, and the rest of its last hour."""
    whole = segment.outcome in ("not billable", "free")
    until = segment.ends_at if whole else segment.charge_until
    parts = [
        (segment.starts_at, until, *verdict) for verdict in (_verdict(segment, records, since),) if verdict
    ]
    if not whole and segment.outcome != "repeated":
        rest = "The rest of an hour that was not completed is free (PARTIAL_HOUR=free)."
        parts.append((until, segment.ends_at, State.FREE, rest))
    return [
        Period(
            starts_at=begin, ends_at=end, state=state, detail=detail, organization_id=segment.organization_id
        )
        for begin, end, state, detail in parts
        if begin < end
    ]


def _verdict(segment: Any, records: Records, since: datetime | None) -> tuple[State, str] | None:
    """Return why a segment is not charged; None where its charges answer for it."""
    waits = _quarantine(records, segment.segment_id)
    match segment.outcome:
        case "not billable":
            return State.NOT_BILLABLE, _not_billable(segment.status, since)
        case "free":
            return State.FREE, "A started hour that was not completed is free (PARTIAL_HOUR=free)."
        case "waived":
            decided = [
                one for one in records.decisions if one.segment_id and one.segment_id == segment.segment_id
            ]
            return State.WAIVED, _waived(decided[-1]) if decided else _OF_HOST.get(segment.reason, "Waived.")
        case "damaged":
            damaged = "It begins where something was charged already; it waits for a repair."
            return State.QUARANTINED, _reason(waits) if waits else damaged
        case None:
            closed = f"Closed at {segment.closed_at:%Y-%m-%d %H:%M} by a change; the next run charges it."
            return (_state(waits), _reason(waits)) if waits else (State.DUE, closed)
    return None


def _not_billable(status: str | None, since: datetime | None) -> str:
    begun = f" since {since:%Y-%m-%d %H:%M}" if since is not None else ""
    return f"Its status is {status or 'missing'}{begun}."


def _quarantine(records: Records, segment_id: int | None) -> Any | None:
    """Return why a segment waits; what has no row of its own waits with the open period."""
    rows = {one.segment_id: one for one in records.quarantine}
    held = next((one for one in records.quarantine if one.reason == "held"), None)
    return rows.get(segment_id or 0) or held


def _state(row: Any) -> State:
    return State.HELD if row.reason == "held" else State.QUARANTINED


def _reason(row: Any) -> str:
    since = f"since {row.first_seen_at:%Y-%m-%d %H:%M}"
    return (
        f"Held {since}: {row.detail}."
        if row.reason == "held"
        else f"{row.reason.capitalize()} {since}: {row.detail}."
    )


def _open_periods(records: Records) -> list[Period]:
    """Return what holds from the watermark on: billable hours that are due, later ones, or the reason why none are."""
    instance = records.instance
    if instance is None:
        return []

    def period(begin: datetime, end: datetime, state: State, detail: str) -> Period:
        return Period(
            starts_at=begin,
            ends_at=end,
            state=state,
            detail=detail,
            organization_id=instance.organization_id,
        )

    watermark = instance.watermark
    waits = _quarantine(records, 0) if instance.billable else None
    if watermark is None:
        begin = instance.rated_until or records.read_at
        return [
            period(
                begin, FOREVER, State.QUARANTINED, _reason(waits) if waits else "It has no usable watermark."
            )
        ]
    if not instance.billable:
        return [
            period(
                watermark, FOREVER, State.NOT_BILLABLE, _not_billable(instance.status, _idle_since(records))
            )
        ]
    if waits is not None:
        return [period(watermark, FOREVER, _state(waits), _reason(waits))]
    whole = max((records.read_at - watermark) // HOUR, 0) * HOUR
    due_until = watermark + whole
    next_hour = due_until + HOUR
    found = [
        period(
            due_until,
            FOREVER,
            State.NOT_DUE_YET,
            f"An hour is charged when it is over; the present one ends at {next_hour:%Y-%m-%d %H:%M}.",
        )
    ]
    if whole > timedelta(0):
        found.insert(
            0, period(watermark, due_until, State.DUE, "Over and not charged yet; the next run charges it.")
        )
    return found


def _idle_since(records: Records) -> datetime:
    """Return since when the instance is not billable without a break, the present period included."""
    since: datetime = records.instance.watermark  # type: ignore[union-attr]
    for segment in sorted(records.segments, key=lambda one: one.starts_at, reverse=True):
        if segment.outcome == "not billable" and segment.ends_at == since:
            since = segment.starts_at
    return since


def _only_charges(records: Records) -> list[Period]:
    """Return all other time of an instance whose row and segments are gone."""
    if records.instance is not None or records.segments:
        return []
    detail = "Its row and its usage segments are gone; only its charges say when it was there."
    begin = datetime.min.replace(tzinfo=records.read_at.tzinfo)
    return [Period(starts_at=begin, ends_at=FOREVER, state=State.DELETED, detail=detail)]


def _before_and_after(records: Records) -> list[Period]:
    """Return the time before metering began and the time after the deletion."""
    begins = [
        one.rated_from for one in (records.instance, *records.segments) if one is not None and one.rated_from
    ]
    begins += [segment.starts_at for segment in records.segments]
    found = []
    if begins:
        first = min(begins)
        created_at = getattr(records.instance, "created_at", None)
        is_adopted = created_at is not None and created_at < first
        detail = f"Its metering begins at {first:%Y-%m-%d %H:%M}"
        detail += "; earlier hours are the host application's." if is_adopted else ", when it was created."
        begin = datetime.min.replace(tzinfo=first.tzinfo)
        found.append(Period(starts_at=begin, ends_at=first, state=State.NOT_THERE_YET, detail=detail))
    deleted = [segment for segment in records.segments if segment.reason == "deleted"]
    if deleted and records.instance is None:
        end = deleted[-1].ends_at
        detail = f"It was deleted at {deleted[-1].closed_at:%Y-%m-%d %H:%M}."
        found.append(Period(starts_at=end, ends_at=FOREVER, state=State.DELETED, detail=detail))
    return found
