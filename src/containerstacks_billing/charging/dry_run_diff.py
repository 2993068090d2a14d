"""Instances that a run charged and a dry run would not, and the other way round.

The ids that a run charged are kept in memory while the dry run goes on, some 100 bytes each: a comparison in the
database would read all charges of the run in every batch. They are the ones that the batches of the dry run really
wrote before each was rolled back, so whatever decides that an instance is charged decides here too.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.rows import args_row

from containerstacks_billing.charging.model import BatchScope, Terms, terms_parameters
from containerstacks_billing.database.connection import Connection
from containerstacks_billing.database.ids import FIRST_UUID, LAST_UUID
from containerstacks_billing.database.statements import ask


@dataclass(frozen=True, slots=True)
class InstanceDifference:
    """An instance that is charged by one of both, and why not by the other."""

    instance_id: UUID
    organization_id: UUID | None
    organization: str | None
    label: str | None
    status: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class ChargeDifference:
    """A run and a dry run compared. Lists are bounded; the counts beside them are not."""

    run_id: int
    as_of: datetime
    charged_by_run: int
    charged_now: int
    not_due_yet: int
    not_charged_now: int
    newly_charged: int
    no_longer: tuple[InstanceDifference, ...]
    newly: tuple[InstanceDifference, ...]


class ChargedInstances:
    """The instances that the batches of a dry run charged; any worker may add some."""

    def __init__(self) -> None:
        self.ids: set[UUID] = set()
        self._lock = threading.Lock()

    def note(self, connection: Connection, scope: BatchScope) -> None:
        """Add those that the open transaction charged."""
        found = {row[0] for row in ask(connection, "charged_in_batch", values=scope.parameters())}
        with self._lock:
            self.ids |= found


def charged_by_run(connection: Connection, run_id: int, organization: UUID | None = None) -> set[UUID]:
    """Return the instances that a run wrote charges for, past-due ones included; their ids begin with its number."""
    prefix = f"{run_id % 2**32:08x}"
    values = {
        "run_id": run_id,
        "first_id": prefix + "0" * 24,
        "last_id": prefix + "f" * 24,
        "first_organization": organization or FIRST_UUID,
        "last_organization": organization or LAST_UUID,
    }
    return {row[0] for row in ask(connection, "charged_by_run", values=values)}


def difference(
    connection: Connection,
    run: tuple[int, datetime],
    before: set[UUID],
    now: set[UUID],
    terms: Terms,
    limit: int | None = 1000,
) -> ChargeDifference:
    """Return what was charged by the run and is not now, and what is charged now and was not."""
    run_id, as_of = run
    values: dict[str, Any] = terms_parameters(terms) | {"run_as_of": as_of, "run_id": run_id, "limit": limit}
    gone, new = list(before - now), list(now - before)
    counted = ask(connection, "count_not_due", values=values | {"instances": gone}).fetchone()
    not_due = counted[0] if counted else 0
    row = args_row(InstanceDifference)
    return ChargeDifference(
        run_id=run_id,
        as_of=as_of,
        charged_by_run=len(before),
        charged_now=len(now),
        not_due_yet=not_due,
        not_charged_now=len(gone) - not_due,
        newly_charged=len(new),
        no_longer=tuple(ask(connection, "not_charged_any_more", row, values | {"instances": gone})),
        newly=tuple(ask(connection, "charged_for_the_first_time", row, values | {"instances": new})),
    )
