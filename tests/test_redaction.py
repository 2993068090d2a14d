"""Redaction: no text shows a secret, and harmless text stays."""

import pytest

from containerstacks_billing.redaction import redact

SECRET = "canary-5d1c6a"


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql://billing:{SECRET}@db:5432/containerstacks",
        f"postgres://u:a@{SECRET}@h/d",
        f"postgres://u:{SECRET}/x@h/d",
        f"postgresql://u:{SECRET}",
        f"postgresql://u@h/d?password={SECRET}",
        f"host=h password={SECRET} dbname=d",
        f"host=h password='x {SECRET}' dbname=d",
        f"host=h password='{SECRET}",
        f'{{"password": "{SECRET}"}}',
        f"PGPASSWORD={SECRET}",
        f"Authorization: Bearer {SECRET}",
        f"ADMIN_TOKEN={SECRET}-{SECRET}",
        f"https://user:{SECRET}@hooks.example/x",
        f"postgresql://user:password@{SECRET}@host:5432/database",
        f"postgresql://user:password@host:5432/database?password={SECRET}",
        f"DATABASE_URL=postgresql://user:{SECRET}@localhost:5432/containerstacks",
        f"password='postgresql://user:password@host:5432/database {SECRET}'",
        f"postgresql://user:password@host:5432/database postgresql://u:{SECRET}@h/d",
        f'invalid percent-encoded token in "postgres://u:%zz{SECRET}@h/d"',
    ],
)
def test_a_secret_with_a_shape_is_taken_out(text: str) -> None:
    """A connection string is quoted without its password by every caller."""
    assert SECRET not in redact(text)


def test_a_known_secret_is_taken_out_wherever_it_stands() -> None:
    """A secret without a shape is known by its value."""
    assert redact(f"cannot open {SECRET}!", [SECRET]) == "cannot open ***!"


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://db:5432/containerstacks",
        "fencing token: 17",
        "The unit would not know DATABASE_URL: it is in no file that the service reads.",
        "The password was refused.",
        "Billing run completed: 5,000 instances, 12.50 USD",
        "see http://localhost:3001/status",
        "Write postgresql://user:password@host:5432/database with special characters percent-encoded.",
        "DATABASE_URL=postgresql://user:password@localhost:5432/containerstacks",
        "DATABASE_URL (.env, line 1) must be postgresql://user:password@host:port/database, or key=value pairs",
    ],
)
def test_harmless_text_stays(text: str) -> None:
    """Redaction must not eat what an operator needs."""
    assert redact(text) == text
