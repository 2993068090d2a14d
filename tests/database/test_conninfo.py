"""Connection strings: what is accepted, what is said about them."""

import pytest

from containerstacks_billing.database.conninfo import describe, read, transport_warning
from containerstacks_billing.errors import ConfigurationError

SECRET = "canary-5d1c6a"


@pytest.mark.parametrize(
    ("conninfo", "words"),
    [
        (f"postgresql://u:{SECRET}@h:6543/d", "u@h:6543/d"),
        (f"postgres://u:{SECRET}@h1,h2:6543/d", "u@h1:5432,h2:6543/d"),
        (f"postgres://u:{SECRET}@h/d?password={SECRET}", "u@h:5432/d"),
        (f"host=h1,h2 port=1 user=u password={SECRET} dbname=d", "u@h1:1,h2:1/d"),
        ("postgresql://u@[::1]:5433/d", "u@[::1]:5433/d"),
        ("host=/run/postgresql dbname=d user=u", "u@[/run/postgresql]/d"),
        ("dbname=d", "localhost:5432/d"),
        ("postgresql://", "localhost:5432/"),
        (f"postgres://u:{SECRET}/x@h/d", "a malformed connection string"),
    ],
)
def test_a_connection_string_is_described_without_its_password(conninfo: str, words: str) -> None:
    """Host, port, database and user are enough to know which one is meant."""
    assert describe(conninfo) == words


@pytest.mark.parametrize(
    "conninfo",
    [
        f"postgres://u:a@{SECRET}@h/d",
        f"postgres://u:{SECRET}/x@h/d",
        f"postgres://u:%zz{SECRET}@h/d",
        f"host=h {SECRET} x",
        f"host=h password='{SECRET}",
        f"host=h port={SECRET}",
        f"nonsense={SECRET}",
    ],
)
def test_a_malformed_connection_string_is_never_quoted(conninfo: str) -> None:
    """Half a password is a secret too."""
    with pytest.raises(ConfigurationError, match="DATABASE_URL is malformed") as refused:
        read(conninfo)
    assert SECRET not in f"{refused.value} {refused.value.hint}"


def test_parameters_of_a_node_driver_are_left_out_and_named() -> None:
    """The file was written for another driver; what PostgreSQL knows is kept."""
    found = read("postgresql://u:p@h/d?schema=public&sslmode=no-verify&application_name=x&connection_limit=5")
    assert (found.parameters["sslmode"], found.parameters["application_name"]) == ("require", "x")
    assert len(found.warnings) == 3


@pytest.mark.parametrize(
    ("conninfo", "warned"),
    [
        ("postgresql://u@localhost/d", False),
        ("postgresql://u@127.0.0.8/d", False),
        ("postgresql://u@[::1]/d", False),
        ("host=/run/postgresql", False),
        ("postgresql://u@db.example/d?sslmode=verify-full", False),
        ("postgresql://u@db.example/d", True),
        ("postgresql://u@db.example/d?sslmode=require", True),
        ("postgresql://u@localhost,10.0.0.1/d", True),
    ],
)
def test_a_way_that_proves_nothing_is_warned_of(conninfo: str, warned: bool) -> None:
    """Anyone on the way could answer in the database's place."""
    assert (transport_warning(conninfo) is not None) is warned
