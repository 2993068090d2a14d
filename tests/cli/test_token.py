"""`token`, from the shell to the table and back."""

from __future__ import annotations

import json

import psycopg
import pytest
from tests.command import Command

from containerstacks_billing.tokens.model import hash_of, is_token


@pytest.fixture
def environment(database: str) -> dict[str, str]:
    return {"DATABASE_URL": database}


def test_a_token_is_shown_once_listed_without_and_revoked(
    command: Command, environment: dict[str, str], database: str
) -> None:
    """Create writes the token alone on standard output; afterwards only its name is known."""
    created = command("token", "create", "prometheus", environment=environment)
    text = created.stdout.strip()
    listed = command("token", "list", "--json", environment=environment)
    revoked = command("token", "revoke", "prometheus", environment=environment)
    after = command("token", "list", environment=environment)

    assert (0, True) == (created.returncode, is_token(text))
    (token,) = json.loads(listed.stdout)["tokens"]
    assert ("prometheus", "usable", None) == (token["name"], token["state"], token["lastUsedAt"])
    assert text not in listed.stdout + after.stdout + listed.stderr
    assert (0, "Revoked prometheus.\n") == (revoked.returncode, revoked.stdout)
    assert "revoked" in after.stdout
    with psycopg.connect(database) as conn:
        assert [(hash_of(text),)] == conn.execute("select token_hash from billing_tokens").fetchall()


def test_a_name_is_used_once_at_a_time(command: Command, environment: dict[str, str]) -> None:
    """Revoking needs to know which one is meant; after that the name is free again."""
    codes = [
        command("token", *arguments, environment=environment).returncode
        for arguments in (
            ("create", "ada", "--days", "30"),
            ("create", "ada"),
            ("revoke", "ada"),
            ("revoke", "ada"),
            ("create", "ada", "--never-expires"),
            ("create", " "),
        )
    ]
    assert [0, 1, 0, 1, 0, 2] == codes
