"""Read the fleet for the brake, remember what was read, and know the hold that stands.

What counts as unusual is decided in charging/brake.py. A run bound by an earlier hold says so in its own row, so
the hold is released once and not once for every hour that passed since.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from containerstacks_billing import logs
from containerstacks_billing.charging.brake import (
    Reading,
    clock_hold_reason,
    hold_reason,
    is_clock_hold,
    shrink_reason,
)
from containerstacks_billing.charging.model import OpenRun
from containerstacks_billing.database.connection import Connection, set_timeouts
from containerstacks_billing.database.statements import query


@dataclass(frozen=True, slots=True)
class Hold:
    """A run that was held for what it saw, in its sentence; `reading` is what it saw."""

    run_id: int
    sentence: str
    held_at: datetime | None
    is_released: bool
    reading: Reading
    vouches_for_clocks: bool = False


def brake(connection: Connection, run: OpenRun, host_clock: datetime) -> str | None:
    """Read the fleet into the run's row, and return why this run has to be held, or None.

    A hold binds every run until it is released. A release says that what the held run saw is right, so the next run is
    compared with that, and passes unless it looks different again. A hold for the clocks alone binds no run whose own
    clocks agree.
    """
    hold = latest_hold(connection)
    reference = _reference(hold, last_reading(connection))
    now = read_fleet(connection, run, host_clock, reference.as_of if reference else run.as_of)
    bound = hold is not None and not hold.is_released
    reason = hold_reason(reference, now, run.terms.brake_factor)
    if shrunk := shrink_reason(reference, now, run.terms.brake_factor):
        logs.logger().warning(
            "The fleet shrank since the last run", run=run.run_id, reason=shrunk, held=run.terms.shrink_brake
        )
        reason = reason or (shrunk if run.terms.shrink_brake else None)
    if hold and bound and is_clock_hold(hold.reading):
        bound = clock_hold_reason(reference, now) is not None
    # A plan without a usable price, or without an instance, is compared with the last rate it had.
    known = {**(reference.rates if reference else {}), **now.rates}
    _note(connection, run, now, known, held_by=hold.run_id if hold and bound else None)
    if hold and bound:
        return f"run {hold.run_id} was held: {hold.sentence}"
    return reason


def is_clock_credible(connection: Connection, as_of: datetime, host_clock: datetime) -> bool:
    """Return whether a run at this instant may let prices and policies begin; a hold vouches for no clock."""
    hold = latest_hold(connection)
    reference = _reference(hold if hold and hold.is_released else None, last_reading(connection))
    return not clock_hold_reason(reference, Reading(as_of, host_clock, 0, 0, Decimal(0)))


def _reference(hold: Hold | None, last: Reading | None) -> Reading | None:
    """Return the reading that a run is compared with: that of the latest hold, or of the last completed run.

    What was seen under a wrong clock is no reference for later. A release of such a hold vouches for the difference of
    the clocks, and only where the database's clock had not been set back by then.
    """
    if hold is None:
        return last
    if is_clock_hold(hold.reading) and not hold.vouches_for_clocks:
        return last
    return hold.reading


def latest_hold(connection: Connection) -> Hold | None:
    """Return the hold that stands or was released last, unless a run completed since."""
    row = connection.execute(query("latest_hold")).fetchone()
    if row is None:
        return None
    reading = _reading(row[5:])
    released_at = row[4]
    return Hold(
        row[0],
        row[1] or "it was held",
        row[2],
        row[3],
        reading,
        vouches_for_clocks=released_at is not None and released_at >= reading.as_of,
    )


def last_reading(connection: Connection) -> Reading | None:
    """Return what the last completed run over the whole fleet saw."""
    row = connection.execute(query("last_completed_run")).fetchone()
    return _reading(row) if row else None


def read_fleet(connection: Connection, run: OpenRun, host_clock: datetime, since: datetime) -> Reading:
    """Read all billable instances and their plans as they are at the run's instant."""
    values = {
        "as_of": run.as_of,
        "since": since,
        "every_status": run.terms.billable_statuses == ("*",),
        "billable_statuses": list(run.terms.billable_statuses),
        "hours_per_month": run.terms.hours_per_month,
    }
    row = connection.execute(query("read_fleet"), values).fetchone()
    instances, rated_instances, hourly_rate, rates, highest, labels = row or (0, 0, Decimal(0), {}, {}, {})
    return Reading(
        run.as_of,
        host_clock,
        instances,
        rated_instances,
        hourly_rate,
        _rates(rates),
        _rates(highest),
        labels,
        tuple(run.terms.billable_statuses),
    )


def release_hold(connection: Connection, hold: Hold, decided_by: str, reason: str) -> bool:
    """Release a hold; False when it was released meanwhile."""
    values = {"held_run": hold.run_id, "decided_by": decided_by, "reason": reason}
    with connection.transaction():
        set_timeouts(connection)
        row = connection.execute(query("release_hold"), values).fetchone()
    return bool(row and row[0])


def _note(
    connection: Connection, run: OpenRun, reading: Reading, rates: Mapping[str, Decimal], held_by: int | None
) -> None:
    connection.execute(
        query("note_reading"),
        {
            "run_id": run.run_id,
            "fleet_instances": reading.instances,
            "fleet_rated_instances": reading.rated_instances,
            "fleet_hourly_rate": reading.hourly_rate,
            "fleet_rates": json.dumps({name: f"{rate:f}" for name, rate in rates.items()}),
            "held_by": held_by,
        },
    )


def _reading(row: Sequence[Any]) -> Reading:
    as_of, host_clock, instances, rated_instances, hourly_rate, rates, statuses = row
    return Reading(
        as_of,
        host_clock,
        instances,
        rated_instances,
        hourly_rate,
        rates=_rates(rates),
        billable_statuses=tuple(statuses or ()),
    )


def _rates(rates: Mapping[str, str]) -> dict[str, Decimal]:
    return {name: Decimal(rate) for name, rate in rates.items()}
