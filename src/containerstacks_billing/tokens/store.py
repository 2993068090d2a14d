"""Storage of API tokens; only hashes are stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from psycopg.rows import class_row

from containerstacks_billing.database.connection import Connection, set_timeouts
from containerstacks_billing.database.statements import query
from containerstacks_billing.tokens.model import USUAL_SCOPES


@dataclass(frozen=True, slots=True)
class Token:
    """A token without its secret, for listings."""

    id: int
    name: str
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    usable: bool
    scopes: list[str]

    @property
    def state(self) -> str:
        """Whether it is usable, expired or revoked."""
        if self.revoked_at:
            return "revoked"
        return "usable" if self.usable else "expired"


@dataclass(frozen=True, slots=True)
class FoundToken:
    """A valid token found by its hash; `note_use` is true when its last recorded use is over a minute old."""

    id: int
    name: str
    token_hash: bytes
    note_use: bool
    scopes: list[str]


def create(
    connection: Connection,
    name: str,
    token_hash: bytes,
    created_by: str,
    valid_days: float | None,
    scopes: Sequence[str] = USUAL_SCOPES,
) -> Token | None:
    """Store a new token; return None when the name is in use."""
    values = {
        "name": name,
        "token_hash": token_hash,
        "created_by": created_by,
        "valid_days": valid_days,
        "scopes": list(scopes),
    }
    with (
        connection.transaction(),
        connection.cursor(row_factory=class_row(Token)) as cursor,
    ):
        set_timeouts(connection)
        return cursor.execute(query("create_token"), values).fetchone()


def listed(connection: Connection) -> list[Token]:
    """Return all tokens, newest first."""
    with connection.cursor(row_factory=class_row(Token)) as cursor:
        return cursor.execute(query("list_tokens"), {}).fetchall()


def revoke(connection: Connection, which: str) -> list[Token]:
    """Revoke the token of a name or number; return the revoked tokens."""
    with (
        connection.transaction(),
        connection.cursor(row_factory=class_row(Token)) as cursor,
    ):
        set_timeouts(connection)
        return cursor.execute(query("revoke_token"), {"which": which}).fetchall()


def find(connection: Connection, token_hash: bytes) -> FoundToken | None:
    """Return the valid token of a hash, inside the caller's transaction."""
    with connection.cursor(row_factory=class_row(FoundToken)) as cursor:
        return cursor.execute(query("find_token"), {"token_hash": token_hash}).fetchone()


def note_use(connection: Connection, token: FoundToken) -> None:
    """Record the use of a token, inside the caller's transaction."""
    connection.execute(query("note_token_use"), {"id": token.id})


def role_of_user(connection: Connection, user: UUID) -> str | None:
    """Return the role of a host user; None when the user does not exist."""
    row = connection.execute(query("role_of_user"), {"user_id": user}).fetchone()
    return row[0] if row else None
