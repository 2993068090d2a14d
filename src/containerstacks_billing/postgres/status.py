"""Read what the tables say about billing, from small tables and by index only."""

from __future__ import annotations

from uuid import UUID

from containerstacks_billing.billing.run import FIRST_UUID, LAST_UUID
from containerstacks_billing.postgres.connection import Connection
from containerstacks_billing.postgres.queries import query


def set_aside_reasons(connection: Connection, organization: UUID | None = None) -> dict[str, int]:
    """Count the instances that are quarantined or held, by reason, most frequent first."""
    values = {
        "first_organization": organization or FIRST_UUID,
        "last_organization": organization or LAST_UUID,
    }
    return dict(connection.execute(query("set_aside_reasons"), values).fetchall())
