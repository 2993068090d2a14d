"""The catalog of a migrated database, as lines: `catalog.txt` is the schema of this version on one page.

`./dev catalog --write` writes it from an empty database that was migrated. `drift` compares a database with it, and a
test compares every way to this schema: an empty database, an adopted host, and a database of the earlier migrations.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from containerstacks_billing.database.connection import Connection

# The body of billing_has_backups() depends on the host's columns, and tests replace billing_clock().
_BODY_MAY_DIFFER = ("billing_has_backups(", "billing_clock(")
_TABLE = re.compile(r"table (\w+)")
_FUNCTION = re.compile(r"function (.+) body (\w{32})")
_TRIGGER = re.compile(r"trigger (\w+) on (\w+):.*")


@dataclass(frozen=True, slots=True)
class Catalog:
    """The objects of the schema that can be lost or changed behind the record's back.

    `functions` are pairs of signature and MD5 of the body, which is empty where it may differ; `triggers` are pairs of
    name and table.
    """

    tables: tuple[str, ...]
    functions: tuple[tuple[str, str], ...]
    triggers: tuple[tuple[str, str], ...]


def read_catalog(connection: Connection) -> list[str]:
    """Return what a database holds in its schema public, one line per object, sorted."""
    text = (files("containerstacks_billing.schema") / "catalog.sql").read_bytes()
    return [row[0] for row in connection.execute(text)]


@cache
def expected_catalog() -> Catalog:
    """Return the objects of this version's schema."""
    lines = (files("containerstacks_billing.schema") / "catalog.txt").read_text("utf-8").splitlines()
    functions = [match.groups() for line in lines if (match := _FUNCTION.fullmatch(line))]
    return Catalog(
        tables=tuple(match[1] for line in lines if (match := _TABLE.match(line))),
        functions=tuple(
            (signature, "" if signature.startswith(_BODY_MAY_DIFFER) else body)
            for signature, body in functions
        ),
        triggers=tuple((match[1], match[2]) for line in lines if (match := _TRIGGER.fullmatch(line))),
    )
