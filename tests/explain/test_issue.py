"""Issuing statements: once for each month, under numbers without a gap, also beside other issuers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
from tests.daemons import eventually
from tests.fleet import Fleet

from containerstacks_billing.explain.issue import issue, reason_not_to_issue
from containerstacks_billing.explain.month import month_named
from containerstacks_billing.explain.snapshot import snapshot
from containerstacks_billing.explain.statement import Reading, read_statements


def test_two_who_issue_at_once_give_each_statement_one_number(conn: psycopg.Connection[Any]) -> None:
    """Both wait for the same lock; the second finds every statement issued and gives no number away."""
    fleet = Fleet(conn, at="2026-11-30 18:00")
    for _ in range(3):
        fleet.instance(fleet.organization("20.00"), fleet.plan("11.00"))
    fleet.at("2026-12-01 01:30")
    fleet.bill()
    with snapshot(fleet.conninfo) as connection:
        statements = list(read_statements(connection, Reading(month_named("2026-11"), "USD")))
    assert [None] * 3 == [reason_not_to_issue(one) for one in statements]

    with ThreadPoolExecutor() as pool:
        with psycopg.connect(fleet.conninfo) as holder:
            holder.execute("select pg_advisory_xact_lock(hashtextextended('billing_statements', 0))")
            given = [pool.submit(issue, fleet.conninfo, statements, name) for name in ("ann", "bob")]
            waiting = (
                "select from pg_stat_activity where wait_event = 'advisory' and datname = current_database()"
            )
            assert eventually(lambda: len(fleet.rows(waiting)) == 2)
        issued = sorted([one.result() for one in given], key=len)

    assert [0, 3] == [len(one) for one in issued]
    assert [1, 2, 3] == [one.number for one in issued[1]]
    assert [1, 2, 3] == [
        row.number for row in fleet.rows("select number from billing_statements order by number")
    ]
