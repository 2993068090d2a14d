"""Demo fleet of `up`, created in a new database only."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from psycopg.rows import class_row

from containerstacks_billing.charging.run_record import database_clock
from containerstacks_billing.database.connection import connect, set_timeouts
from containerstacks_billing.database.statements import query
from containerstacks_billing.schema.diagnose import diagnosed

# In this order: the price is raised before the first instance runs, and a change is dated back after its trigger.
_STEPS = (
    "demo_plans",
    "demo_raise_price",
    "demo_end_old_price",
    "demo_begin_new_price",
    "demo_owners",
    "demo_organizations",
    "demo_top_ups",
    "demo_wallets",
    "demo_instances",
    "demo_resize",
    "demo_stop",
    "demo_speak_as_billing",
    "demo_date_changes",
)


@dataclass(frozen=True, slots=True)
class Books:
    """One organization after a run: amounts billed and debited, and the balance, in its currency."""

    name: str
    instances: int
    hours: Decimal
    debited: Decimal
    balance: Decimal
    billing_carry: Decimal
    owed: Decimal


def make_demo_fleet(conninfo: str) -> bool:
    """Create the fleet with a few hours due in a new database; return False for any other."""
    with (
        diagnosed(conninfo),
        connect(conninfo, purpose="maintenance") as connection,
        connection.transaction(),
    ):
        set_timeouts(connection)
        connection.execute(query("demo_lock"))
        if connection.execute(query("database_is_new")).fetchone() != (True,):
            return False
        now = {"now": database_clock(connection)}
        for step in _STEPS:
            connection.execute(query(step), now)
    return True


def read_books(conninfo: str, run_id: int) -> list[Books]:
    """Return the first hundred organizations by name, with what one run billed them."""
    with (
        diagnosed(conninfo),
        connect(conninfo, purpose="reading") as connection,
        connection.cursor(row_factory=class_row(Books)) as cursor,
    ):
        return cursor.execute(query("books"), {"run_id": run_id}).fetchall()
