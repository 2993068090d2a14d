"""Proof of a statement file: it closes by itself, it is what was issued, and the books still say the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from containerstacks_billing.errors import WorkFailed
from containerstacks_billing.explain.issue import issued_statement
from containerstacks_billing.explain.month import month_named
from containerstacks_billing.explain.snapshot import snapshot
from containerstacks_billing.explain.statement import Reading, read_statement
from containerstacks_billing.explain.statement_checks import changes, findings
from containerstacks_billing.explain.statement_schema import Statement, fingerprint

LARGEST_FILE_BYTES = 100_000_000


@dataclass(frozen=True, slots=True)
class Proof:
    """What was compared: the file with itself, with what was issued and with the books."""

    statement: Statement
    sha256: str
    issued: Statement | None
    findings: list[str]
    forged: list[str]
    changes: list[str]

    @property
    def ok(self) -> bool:
        """Whether nothing differs."""
        return not (self.findings or self.forged or self.changes)

    def as_document(self) -> dict[str, object]:
        """Return it as a document."""
        return {
            "ok": self.ok,
            "organizationId": self.statement.organization_id,
            "month": self.statement.month,
            "sha256": self.sha256,
            "number": self.issued.number if self.issued else None,
            "issuedAt": self.issued.issued_at if self.issued else None,
            "findings": self.findings,
            "forged": self.forged,
            "changes": self.changes,
        }

    def lines(self) -> Iterator[str]:
        """Yield it as lines."""
        one = self.statement
        yield f"Statement of {one.organization or one.organization_id} for {one.month}, SHA-256 {self.sha256}"
        yield from _verdict("It closes to the last digit.", "It does not add up:", self.findings)
        if self.issued is not None:
            as_issued = f"It is what was issued as number {self.issued.number}."
            yield from _verdict(as_issued, "It is not what was issued:", self.forged)
        else:
            yield from _verdict("It was not issued: a preview.", "It says that it was issued:", self.forged)
        yield from _verdict("The books say the same today.", "The books say otherwise since:", self.changes)


def _verdict(right: str, wrong: str, found: list[str]) -> Iterator[str]:
    if not found:
        yield f"OK   {right}"
        return
    yield f"FAIL {wrong}"
    for finding in found:
        yield f"     {finding}"


def prove(conninfo: str, path: Path) -> Proof:
    """Compare a JSON file of `statement` with itself, with what was issued, and with the books of today.

    Raises WorkFailed for a file that is none.
    """
    statement = _read(path)
    reading = Reading(month_named(statement.month, statement.timezone), statement.currency)
    with snapshot(conninfo) as connection:
        issued = issued_statement(connection, reading, statement.organization_id)
        present = read_statement(connection, reading, statement.organization_id)
    if present is None:
        raise WorkFailed(f"The books know no organization {statement.organization_id}.")
    sha256 = fingerprint(statement)
    return Proof(
        statement=statement,
        sha256=sha256,
        issued=issued,
        findings=findings(statement),
        forged=_forged(statement, sha256, issued),
        changes=changes(statement, present),
    )


def _read(path: Path) -> Statement:
    try:
        if path.stat().st_size > LARGEST_FILE_BYTES:
            raise WorkFailed(f"{path} is too large for a statement.")
        return Statement.model_validate_json(path.read_bytes())
    except OSError as error:
        raise WorkFailed(f"{path} cannot be read: {error.strerror}.") from None
    except ValidationError:
        raise WorkFailed(f"{path} is no statement.", "Give a file that `statement --json` wrote.") from None


def _forged(statement: Statement, sha256: str, issued: Statement | None) -> list[str]:
    """Return what the file claims and is not so."""
    found = []
    if statement.sha256 is not None and statement.sha256 != sha256:
        found.append(f"It says SHA-256 {statement.sha256}, but its content has {sha256}.")
    if issued is None:
        if statement.number is not None:
            found.append(f"It says number {statement.number}, which was never given to this month.")
        return found
    if statement.number is not None and statement.number != issued.number:
        found.append(f"It says number {statement.number}, but was issued as {issued.number}.")
    return found + changes(issued, statement)
