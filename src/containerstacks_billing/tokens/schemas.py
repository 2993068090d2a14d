"""JSON documents of `token`."""

from __future__ import annotations

from pydantic import Field

from containerstacks_billing.document import Document, Instant


class TokenDocument(Document):
    """An admin token as it may be shown: everything but the token."""

    id: int
    name: str
    state: str
    scopes: list[str] = Field(description="read, finance (customers and their money), decide (release)")
    created_at: Instant
    created_by: str
    expires_at: Instant | None
    revoked_at: Instant | None
    last_used_at: Instant | None


class NewToken(TokenDocument):
    """An admin token that was just made, with its text, which is shown once."""

    token: str
