"""The month of history of the demo: real runs, and books that are right."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import psycopg
import pytest
from tests.clock import settings_of

from containerstacks_billing.charging.run import RunOrder, run_billing, terms_of
from containerstacks_billing.sandbox import history
from containerstacks_billing.sandbox.demo import make_demo_fleet
from containerstacks_billing.status.series import SPANS, read_series
from containerstacks_billing.verification.verify import verify


def order_on(conninfo: str) -> RunOrder:
    return RunOrder(conninfo, terms_of(settings_of(conninfo)), "up", "test")


def test_a_few_days_of_history_are_runs_of_the_past(
    database: str, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three days: hourly runs with an outage between them, which a catch-up ends; the books are right afterwards."""
    monkeypatch.setattr(history, "FIRST_HOUR", 48)
    monkeypatch.setattr(history, "HOURLY_FROM", 48)
    assert make_demo_fleet(database)
    assert 30 == history.make_history(order_on(database))
    assert (30, True) == conn.execute(
        "select count(*), bool_and(outcome = 'completed' and started_at = as_of) from billing_runs"
    ).fetchone()
    series = read_series(conn, SPANS["7d"])
    assert [12.0] == [one.since_previous_hours for one in series if (one.since_previous_hours or 0) > 1.01]
    run_billing(order_on(database))
    assert () == verify(database).discrepancies


@pytest.mark.slow
def test_a_month_of_history_has_something_for_every_page(
    database: str, conn: psycopg.Connection[Any]
) -> None:
    """A price that changed, a credit, a reversal, a customer who recovers and owes again, and every cent explained."""
    assert make_demo_fleet(database)
    history.make_history(order_on(database))
    run_billing(order_on(database))
    kinds = {kind for (kind,) in conn.execute("select distinct kind from billing_events").fetchall()}
    assert {"past_due", "recovered", "runway_24h"} <= kinds
    rates = conn.execute(
        "select distinct hourly_rate from vps_billing_cycles c join vps_instances i on i.id = vps_instance_id"
        " where label = 'timetable'"
    ).fetchall()
    assert 2 == len(rates)
    adjusted = conn.execute(
        "select kind, count(*) > 1 from billing_adjustments one join billing_adjustment_orders given"
        " on given.id = order_id group by kind order by kind"
    ).fetchall()
    assert [("credit", True), ("reversal", True)] == adjusted
    assert [(Decimal(0),)] != conn.execute("select max(past_due_amount) from billing_runs").fetchall()
    assert () == verify(database).discrepancies
