"""Ranges of organizations for work on a month."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

from containerstacks_billing.database.connection import Connection
from containerstacks_billing.database.ids import FIRST_UUID, LAST_UUID
from containerstacks_billing.database.statements import ask

ORGANIZATIONS_AT_ONCE = 50
# A range holds a month of some fifty organizations; only its own reader waits for it.
STATEMENT_TIMEOUT = "5min"


def ranges(connection: Connection, at_once: int = ORGANIZATIONS_AT_ONCE) -> Iterator[tuple[UUID, UUID]]:
    """Yield ranges without a gap between them that cover every possible organization."""
    first, after = FIRST_UUID, FIRST_UUID
    while row := ask(
        connection, "next_organizations", values={"after": after, "organizations": at_once}
    ).fetchone():
        after = row[0]
        yield first, after
        first = UUID(int=after.int + 1)
    yield first, LAST_UUID
