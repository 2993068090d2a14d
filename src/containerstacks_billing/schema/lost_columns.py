"""Columns of billing that a migration of the host dropped, made again from the books.

What was in them is derived from charges, ledger and segments where it can be. What cannot be known is a discrepancy
that `verify` names and `reconcile` settles. The columns of vps_billing_cycles are the charges themselves: of those only
a backup knows.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

from containerstacks_billing.database.connection import Connection

_COLUMN = re.compile(r"^-- column: (\w+\.\w+)$", re.MULTILINE)
REMADE = "Run `containerstacks-billing migrate`, which makes them again from the books, and then `verify`."


@cache
def _parts() -> dict[str, str]:
    text = (files("containerstacks_billing.schema") / "lost_columns.sql").read_text("utf-8")
    _, *parts = _COLUMN.split(text)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def can_be_made_again(subject: str) -> bool:
    """Whether a defect names a column that is missing and can be made again; `subject` is that of drift.sql."""
    name, _, state = subject.partition(" ")
    return state == "(missing)" and name in _parts()


def make_again(connection: Connection, column: str) -> None:
    """Add a column, `table.column`, and fill in what is known of it, in the open transaction."""
    connection.execute(_parts()[column].encode())
