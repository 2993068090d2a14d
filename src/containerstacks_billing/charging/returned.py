"""Comparing the rows that billing did not write itself with what is charged, before anything of them is.

The argument stands in README.md under "No hour twice", the statements in returned.sql.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from containerstacks_billing.database.connection import Connection
from containerstacks_billing.database.ids import FIRST_UUID
from containerstacks_billing.database.statements import query
from containerstacks_billing.errors import InvariantBroken

_NO_CHARGES = {"first_id": FIRST_UUID, "last_id": FIRST_UUID}


def flush_segments(connection: Connection, values: Mapping[str, Any], *, everything: bool = False) -> None:
    """Flush the pending segments of a range, and move watermarks of others to where the charges end.

    With `everything` the rows that billing wrote itself are compared too.
    """
    bound = {**_NO_CHARGES, **values} | {"everything": everything}
    connection.execute(query("compare_segments"), bound)
    row = connection.execute(query("flush_segments"), bound).fetchone()
    if row is None:
        raise InvariantBroken("the statement flush_segments returned nothing")
    if row[0]:
        connection.execute(query("adopt_repaired_plans"), values)


def seal_charged(connection: Connection, values: Mapping[str, Any], unsealed: list[UUID]) -> bool:
    """Seal rows whose ordinary hour was just charged; False where an hour of them was charged before."""
    row = connection.execute(query("seal_charged"), {**values, "unsealed": unsealed}).fetchone()
    return row is not None and not row[0]
