"""Proof of closed months, from the rows and from exports: totals and hashes are derived again, the chain is followed.

Each range of organizations is read in a transaction of its own, so nothing holds back vacuum for long.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from containerstacks_billing.database.connection import Connection, bounded_transaction, connect
from containerstacks_billing.database.statements import ask, one_row
from containerstacks_billing.errors import WorkFailed
from containerstacks_billing.months.model import KnownMonth, MonthState
from containerstacks_billing.months.ranges import STATEMENT_TIMEOUT, ranges
from containerstacks_billing.months.read import known_months
from containerstacks_billing.schema.diagnose import diagnosed
from containerstacks_billing.schema.row_security import hidden_rows_problem

HEADING = "organizationId,instanceId,startsAt,endsAt,hourlyRate,amount,planId,runId,chargeId"


@dataclass(frozen=True, slots=True)
class Difference:
    """Something of a closed month that is not what was frozen; without an organization it is about the month."""

    month: str
    organization_id: UUID | None
    message: str


def verify_months(
    conninfo: str, *, progressed: Callable[[str], None] = lambda _: None
) -> tuple[list[KnownMonth], list[Difference]]:
    """Return the closed months, oldest first, and every difference between what was frozen and the rows."""
    found: list[Difference] = []
    with diagnosed(conninfo), connect(conninfo, purpose="reading") as connection:
        if problem := hidden_rows_problem(connection):
            raise problem
        closed = [one for one in known_months(connection) if one.state == MonthState.CLOSED]
        for month in closed:
            progressed(month.month)
            found.extend(_chain(connection, month))
            for first, last in ranges(connection):
                with bounded_transaction(connection, STATEMENT_TIMEOUT):
                    rows = ask(
                        connection, "differences_from_frozen", values=month.span.values(first, last)
                    ).fetchall()
                found.extend(Difference(month.month, *row) for row in rows)
    return closed, found


def _chain(connection: Connection, month: KnownMonth) -> Iterator[Difference]:
    with bounded_transaction(connection, STATEMENT_TIMEOUT):
        previous, sha256 = one_row(connection, "hash_of_month", values=month.span.values())
    if previous != month.previous_sha256:
        yield Difference(month.month, None, "it does not follow from the hash of the month before it")
    elif sha256 != month.sha256:
        yield Difference(month.month, None, "its frozen totals were changed: they do not come to its hash")


def export(conninfo: str, name: str, file: Path) -> int:
    """Write the lines of a closed month to a file, replacing one of that name once complete; return their number.

    Raises WorkFailed for a month that is not closed, and where the file cannot be written.
    """
    lines = 0
    with diagnosed(conninfo), connect(conninfo, purpose="reading") as connection:
        if problem := hidden_rows_problem(connection):
            raise problem
        month = closed_month(connection, name)
        with _replacing(file) as write:
            write(HEADING)
            for first, last in ranges(connection):
                with bounded_transaction(connection, STATEMENT_TIMEOUT):
                    rows = ask(connection, "lines_of_month", values=month.span.values(first, last)).fetchall()
                for (line,) in rows:
                    write(line)
                lines += len(rows)
    return lines


def verify_export(conninfo: str, name: str, file: Path) -> list[Difference]:
    """Return the organizations whose lines in a file are not those that were frozen."""
    with diagnosed(conninfo), connect(conninfo, purpose="reading") as connection:
        closed_month(connection, name)
        frozen = dict(ask(connection, "frozen_hashes_of_month", values={"month": name}).fetchall())
    exported = _hashes(file)
    return [
        Difference(name, one, "its lines in the file are not those that were frozen")
        for one in sorted(frozen.keys() | exported.keys())
        if frozen.get(one) != exported.get(one)
    ]


def _hashes(file: Path) -> dict[UUID, str]:
    """Return the hash over the lines of each organization in a file; memory does not grow with the lines."""
    hashes: dict[UUID, hashlib._Hash] = {}
    try:
        with file.open(encoding="utf-8", newline="\n") as lines:
            if next(lines, "").rstrip("\n") != HEADING:
                raise WorkFailed(f"{file} is no export of a month: its heading is another one.")
            for line in lines:
                text = line.rstrip("\n")
                try:
                    organization = UUID(text.partition(",")[0])
                except ValueError:
                    raise WorkFailed(f"{file} is damaged: a line names no organization.") from None
                if (known := hashes.get(organization)) is None:
                    hashes[organization] = hashlib.sha256(text.encode())
                else:
                    known.update(b"\n" + text.encode())
    except (OSError, UnicodeDecodeError) as error:
        raise WorkFailed(f"{file} cannot be read: {error}.") from None
    return {organization: known.hexdigest() for organization, known in hashes.items()}


def closed_month(connection: Connection, name: str) -> KnownMonth:
    """Return a closed month; raises WorkFailed for one that is not."""
    for one in known_months(connection):
        if one.month == name and one.state == MonthState.CLOSED:
            return one
    raise WorkFailed(f"{name} is not closed.", f"containerstacks-billing months close {name}")


@contextmanager
def _replacing(file: Path) -> Iterator[Callable[[str], object]]:
    """Yield a writer of lines to a file that takes the place of another one of that name when it is complete."""
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", newline="\n", dir=file.parent, prefix=f".{file.name}.", delete=False
        ) as out:
            place = Path(out.name)
            try:
                yield lambda line: out.write(f"{line}\n")
                out.flush()
                os.fchmod(out.fileno(), 0o640)
                place.replace(file)
            finally:
                place.unlink(missing_ok=True)
    except OSError as error:
        raise WorkFailed(f"{file} cannot be written: {error.strerror}.") from None
