"""A month of history for the demo: real runs in compressed time bill customers who came a month ago.

The runs are those of the product; only the instant that they treat as now is given to them. In the month there are an
outage of eleven hours with its catch-up, a price that was raised, and a customer whose wallet is empty twice; half of
the outage was credited, and three hours of a wrong setting were taken back.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal

from containerstacks_billing.adjustments.model import Mode, Order, OrderKind, Scope
from containerstacks_billing.adjustments.orders import post_order
from containerstacks_billing.charging.run import RunOrder, run_billing
from containerstacks_billing.charging.run_record import database_clock
from containerstacks_billing.database.connection import Connection, connect, set_timeouts
from containerstacks_billing.database.statements import query
from containerstacks_billing.schema.diagnose import diagnosed

# Runs are six hours apart at first and hourly in the last days: a run takes a few hundredths of a second.
FIRST_HOUR = 30 * 24
HOURLY_FROM = 72
# The other customers of the demo began after that: the run that is shown bills them first.
HOURS_LEFT = 7
_HOUR = timedelta(hours=1)
_OUTAGE = range(30, 41)
_MISTAKE = range(44, 48)
_TOP_UP_HOURS_AGO = 9 * 24


def make_history(order: RunOrder) -> int:
    """Bill the customers of a month ago by runs until seven hours ago; return the number of runs.

    For a database in which only the demo fleet was made. Raises what a run raises; what it did until then stays.
    """
    hours = [back for back in _hours_ago() if back not in _OUTAGE]
    with diagnosed(order.conninfo), connect(order.conninfo, purpose="maintenance") as connection:
        now = database_clock(connection).replace(minute=0, second=0, microsecond=0)
        _write(
            connection,
            ("history_organizations", "history_top_ups", "history_wallets", "history_instances"),
            now,
        )
        _write(connection, ("history_raise_price", "history_end_old_price", "history_begin_new_price"), now)
        try:
            for back in hours:
                if back == _TOP_UP_HOURS_AGO:
                    _write(
                        connection, ("history_second_top_up", "history_second_balance"), now - back * _HOUR
                    )
                _run(order, now - back * _HOUR)
        finally:
            _write(connection, ("history_date_runs",), now)
    _adjust(order, now)
    return len(hours)


def _adjust(order: RunOrder, now: datetime) -> None:
    """Credit half of the outage, and take back three hours of the day before it."""
    outage = Scope(begin=now - _OUTAGE[-1] * _HOUR, end=now - _OUTAGE[0] * _HOUR)
    mistake = Scope(begin=now - _MISTAKE[-1] * _HOUR, end=now - _MISTAKE[0] * _HOUR)
    half = Order(
        OrderKind.CREDIT, Mode.CREDIT, outage, "demo", "half of the outage", currency=order.terms.currency,
        factor=Decimal("0.5"),
    )  # fmt: skip
    taken_back = Order(
        OrderKind.REVERSAL, Mode.WAIVE, mistake, "demo", "a setting was wrong", currency=order.terms.currency
    )
    for one in (half, taken_back):
        post_order(order.conninfo, one, holder=order.holder)


def _hours_ago() -> list[int]:
    return [*range(FIRST_HOUR, HOURLY_FROM, -6), *range(HOURLY_FROM, HOURS_LEFT, -1)]


def _run(order: RunOrder, at: datetime) -> None:
    run_billing(replace(order, trigger="daemon", as_of=at, host_clock=lambda: at, workers=1))


def _write(connection: Connection, steps: tuple[str, ...], at: datetime) -> None:
    with connection.transaction():
        set_timeouts(connection)
        for step in steps:
            connection.execute(query(step), {"at": at})
