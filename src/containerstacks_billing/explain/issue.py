"""Issuing a statement: it gets a number once, is kept as it was, and is the same ever after."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from uuid import UUID

from psycopg.types.json import Jsonb

from containerstacks_billing.database.connection import Connection, bounded_transaction, connect
from containerstacks_billing.errors import WorkFailed
from containerstacks_billing.explain.snapshot import rows_of
from containerstacks_billing.explain.statement import Reading, read_statement, read_statements
from containerstacks_billing.explain.statement_checks import changes
from containerstacks_billing.explain.statement_schema import Statement, content, fingerprint
from containerstacks_billing.schema.diagnose import diagnosed


def as_issued(connection: Connection, reading: Reading, organization: UUID) -> Statement | None:
    """Return the statement that was issued with what changed since, else the present one as a preview.

    None is returned where neither the host nor the charges know the organization, and nothing was issued.
    """
    issued = _issued(connection, reading, organization, organization)
    present = read_statement(connection, reading, organization)
    return _chosen(issued.get(organization), present)


def issued_statement(connection: Connection, reading: Reading, organization: UUID) -> Statement | None:
    """Return the statement that was issued; None where none was."""
    return _issued(connection, reading, organization, organization).get(organization)


def all_as_issued(connection: Connection, reading: Reading) -> Iterator[Statement]:
    """Yield the same for every organization that there is or was, a few at a time."""
    batch: list[Statement] = []
    for one in read_statements(connection, reading):
        batch.append(one)
        if len(batch) == reading.at_once:
            yield from _all_chosen(connection, reading, batch)
            batch = []
    yield from _all_chosen(connection, reading, batch)


def _all_chosen(connection: Connection, reading: Reading, batch: Sequence[Statement]) -> Iterator[Statement]:
    if not batch:
        return
    issued = _issued(connection, reading, batch[0].organization_id, batch[-1].organization_id)
    for present in batch:
        yield _chosen(issued.get(present.organization_id), present) or present


def _chosen(issued: Statement | None, present: Statement | None) -> Statement | None:
    if issued is None or present is None:
        return issued or present
    return issued.model_copy(update={"changes": changes(issued, present)})


def _issued(connection: Connection, reading: Reading, first: UUID, last: UUID) -> dict[UUID, Statement]:
    values = reading.values(first, last) | {"month": reading.month.name}
    found: dict[UUID, Statement] = {}
    for row in rows_of(connection, "issued_statements", values):
        if row.time_zone != reading.month.timezone:
            raise WorkFailed(
                f"The statement of {reading.month.name} was issued by the time zone {row.time_zone}.",
                f"Give --timezone {row.time_zone}; a month is issued once.",
            )
        found[row.organization_id] = Statement.model_validate(
            row.document | {"number": row.number, "issuedAt": row.issued_at, "sha256": row.sha256}
        )
    return found


def reason_not_to_issue(statement: Statement) -> str | None:
    """Return why a statement cannot be issued, in a sentence; None where it can."""
    if statement.number is not None:
        return f"it was issued as number {statement.number} before"
    if not statement.complete:
        return "the month is not over, or its last hour is not billed yet"
    if statement.findings:
        return f"it does not add up: {statement.findings[0]}"
    return None


def issue(conninfo: str, statements: Sequence[Statement], issued_by: str) -> list[Statement]:
    """Keep statements under the next numbers and return them with number, instant and hash.

    One that was issued meanwhile by another process is left out. Raises BillingError.
    """
    issued = []
    with (
        diagnosed(conninfo),
        connect(conninfo, purpose="maintenance") as connection,
        bounded_transaction(connection),
    ):
        rows_of(connection, "hold_statement_numbers", {})
        for statement in statements:
            sha256 = fingerprint(statement)
            numbered = rows_of(
                connection,
                "issue_statement",
                {
                    "organization": statement.organization_id,
                    "month": statement.month,
                    "time_zone": statement.timezone,
                    "currency": statement.currency,
                    "sha256": sha256,
                    "document": Jsonb(content(statement)),
                    "issued_by": issued_by,
                },
            )
            issued += [
                statement.model_copy(
                    update={"number": one.number, "issued_at": one.issued_at, "sha256": sha256}
                )
                for one in numbered
            ]
    return issued
