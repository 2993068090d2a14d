"""JSON documents of `migrate`."""

from __future__ import annotations

from containerstacks_billing.document import Document, Instant
from containerstacks_billing.schema.model import MigrationState


class MigrationDocument(Document):
    """A migration and whether it was applied."""

    version: int | None
    name: str
    state: MigrationState
    applied_at: Instant | None
    duration_ms: int | None


class PlannedDocument(Document):
    """A migration that would be applied."""

    version: int | None
    name: str
    steps: list[str]
    effects: list[str]
    beside_daemon: str


class FindingDocument(Document):
    """What was found in the host's data, and the command to look at it."""

    kind: str
    count: int | None
    sentence: str
    command: str | None
