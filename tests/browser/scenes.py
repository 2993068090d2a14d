"""The states that the page has to show, each made of rows as the product writes them.

The clock of every scene stands at Sunday, 1 March 2026, 12:20 UTC.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import psycopg
from tests.clock import application_side, heartbeat
from tests.daemons import PATIENCE_SECONDS
from tests.fleet import Fleet, instant

from containerstacks_billing.database.statements import query

NOW = instant("2026-03-01 12:20")
HOUR = timedelta(hours=1)
MARKUP = '"><img src=x onerror=window.broken=1><script>window.broken=1</script>'
LABEL = f"<b>web</b>{MARKUP}"


def run(
    fleet: Fleet,
    at: datetime,
    outcome: str | None = "completed",
    *,
    amount: str = "4218.40",
    instances: int = 12_480,
    trigger: str = "daemon",
    error: str | None = None,
    batches: int = 6,
) -> None:
    """Write one run of four seconds; an open one has billed what `batches` of six say."""
    share = 1 if outcome in ("completed", None) else 0
    fleet.conn.execute(
        "insert into billing_runs (trigger, holder, fencing_token, as_of, host_clock, started_at, finished_at, outcome,"
        " error_message, hours_per_month, batches_planned, instances_planned, batches, instances_billed, hours, amount,"
        " past_due_instances, quarantined_instances, held_instances)"
        " values (%s, 'billing-1-4711', 1, %s, %s, %s, %s, %s, %s, 730, 6, %s, %s, %s, %s, %s, 3, 2, 1)",
        (
            trigger,
            at,
            at,
            at,
            at + timedelta(seconds=4.2) if outcome else None,
            outcome,
            error,
            instances,
            batches * share,
            instances * batches // 6 * share,
            instances * batches // 6 * share,
            float(amount) * batches / 6 * share,
        ),
    )


def history(
    fleet: Fleet, until: datetime, runs: int = 47, odd: dict[int, tuple[str, str]] | None = None
) -> None:
    """Write hourly runs, the last at `until`; the `odd` ones, counted back, ended otherwise."""
    odd = odd if odd is not None else {31: ("failed", "the connection was lost"), 12: ("interrupted", "")}
    for back in reversed(range(runs)):
        outcome, error = odd.get(back, ("completed", ""))
        grown = 3600 + (runs - back) * 13 + (runs - back) * 7919 % 97 * 3
        if back == 30:
            grown *= 2
        run(fleet, until - back * HOUR, outcome, amount=str(grown), error=error or None)


def daemon(
    fleet: Fleet, age: timedelta = timedelta(seconds=41), status: str = "running", **facts: Any
) -> None:
    """Write the daemon's row, by default with a run 20 minutes before, and the sign of life of an application side."""
    heartbeat(fleet, age, daemon="billing-1-4711", status=status)
    application_side(fleet)
    columns = {
        "last_run_at": instant("2026-03-01 12:00"),
        "last_run_success": True,
        "started_at": instant("2026-02-11 07:30"),
        "metadata": '{"next_run_at": "2026-03-01T13:00:00+00:00"}',
        **facts,
    }
    for column, value in columns.items():
        fleet.conn.execute(f"update billing_daemon_status set {column} = %s", (value,))


def troubles(
    fleet: Fleet, label: str = "shop-frontend-eu-central-1", name: str = "Lindqvist & Söhne Cloud Hosting"
) -> None:
    """Write quarantined and held instances, past-due charges, runways and announced prices; one instance and its customer are named."""
    plan = fleet.plan("14.00", "2.00")
    fleet.conn.execute("update vps_plans set name = 'Nebula 4 GB'")
    names = ("Northwind Hosting", "Acme GmbH", name, "Blue Harbor Studio", "Kiyo Labs", "مختبر الشمس")
    organizations = [fleet.organization(balance, name=name) for name, balance in zip(names, ("0.42", "3.10", "9.00", "18.20", "160.00", "92.00"), strict=True)]  # fmt: skip
    instances = [
        fleet.instance(one, plan, label=label)
        for one, label in zip(
            organizations, ("web-01", "db-primary", label, "build-7", "edge-2", "api-3"), strict=True
        )
    ]
    reasons = (
        (
            2,
            "no plan",
            "No plan has the id or provider_plan_id of this instance; give it one that exists.",
            9,
        ),
        (3, "no price", "The plan has no usable price; repair it, and the next run charges every hour.", 4),
        (4, "held", "More than 72 hours are due; decide with: containerstacks-billing release", 118),
    )
    for index, reason, detail, hours in reasons:
        fleet.conn.execute(
            "insert into billing_quarantine (organization_id, instance_id, label, reason, detail, due_hours, first_seen_at,"
            " last_seen_at, run_id) values (%s, %s, (select label from vps_instances where id = %s), %s, %s, %s, %s, %s, 1)",
            (
                organizations[index],
                instances[index],
                instances[index],
                reason,
                detail,
                hours,
                NOW - hours * HOUR,
                NOW,
            ),
        )
    fleet.conn.execute(query("count_quarantine"))
    for index, hours, past_due in (
        (0, -7, True),
        (1, 2.2, False),
        (2, 19, False),
        (3, 44, False),
        (4, 310, False),
    ):
        wallet = fleet.rows("select id from wallets where organization_id = %s", organizations[index])[0].id
        end = NOW + hours * HOUR
        fleet.conn.execute(
            "insert into billing_runways (organization_id, wallet_id, burn_per_hour, empties_at, level, past_due_since, updated_at)"
            " values (%s, %s, %s, %s, null, %s, %s)",
            (organizations[index], wallet, f"{0.4 + index * 0.31:.4f}", end, end if past_due else None, NOW),
        )
    fleet.conn.execute(
        "insert into vps_billing_cycles (organization_id, vps_instance_id, billing_period_start, billing_period_end,"
        " hourly_rate, total_amount, status, run_id) values (%s, %s, %s, %s, 0.0219, 0.1533, 'failed', 1)",
        (organizations[0], instances[0], NOW - 7 * HOUR, NOW),
    )
    fleet.conn.execute(
        "update plan_price_versions set valid_to = %s where plan_id = %s", (NOW + 84 * HOUR, plan)
    )
    fleet.conn.execute(
        "insert into plan_price_versions (plan_id, valid_from, base_price, markup_price, announced) values (%s, %s, 15, 2.5, true)",
        (plan, NOW + 84 * HOUR),
    )


def lease(fleet: Fleet) -> None:
    """Hold the lease as another process does, renewed until the database is dropped."""
    began = threading.Event()

    def renew() -> None:
        with suppress(psycopg.Error), psycopg.connect(fleet.conninfo, autocommit=True) as conn:
            while True:
                conn.execute(
                    "update billing_leases set holder = 'billing-1-4711', acquired_at = clock_timestamp(),"
                    " renewed_at = clock_timestamp(), expires_at = clock_timestamp() + interval '29 seconds'"
                )
                began.set()
                threading.Event().wait(1.0)

    threading.Thread(target=renew, name="held-lease", daemon=True).start()
    assert began.wait(PATIENCE_SECONDS)


def first_run(fleet: Fleet) -> None:
    """Nothing has ever happened."""


def on_duty(fleet: Fleet) -> None:
    """All is well, apart from past-due charges and an instance to repair."""
    history(fleet, instant("2026-03-01 12:00"))
    daemon(fleet)
    troubles(fleet)


def all_well(fleet: Fleet) -> None:
    """All is well, and nothing needs attention."""
    history(fleet, instant("2026-03-01 12:00"), 20, {})
    fleet.conn.execute("update billing_runs set past_due_instances = 0")
    daemon(fleet)


def in_progress(fleet: Fleet) -> None:
    """A run is under way, and has done four of six batches."""
    on_duty(fleet)
    run(fleet, NOW - timedelta(seconds=9), None, batches=4)
    lease(fleet)


NO_SPACE = "could not extend file base/16384: no space left on device"


def failing(fleet: Fleet) -> None:
    """The last run failed."""
    _failed(fleet, NO_SPACE)
    troubles(fleet)


def hostile(fleet: Fleet) -> None:
    """The same, with an error and names that would like to be part of the page."""
    _failed(fleet, f"{NO_SPACE} {MARKUP}")
    troubles(fleet, LABEL, LABEL)


def _failed(fleet: Fleet, error: str) -> None:
    history(fleet, instant("2026-03-01 12:00"), odd={0: ("failed", error)})
    daemon(fleet, status="error", last_run_success=False, error_message="no space left on device")


def held(fleet: Fleet) -> None:
    """The brake held the last two runs."""
    why = "51,902 instances are billable, 12,480 were at the last run"
    history(fleet, instant("2026-03-01 12:00"), odd={0: ("held", why), 1: ("held", why)})
    daemon(fleet, last_run_success=False)
    troubles(fleet)


def taken_over(fleet: Fleet) -> None:
    """The daemon has been silent for more than two hours, and built-in billing bills."""
    history(fleet, instant("2026-03-01 10:00"))
    run(fleet, instant("2026-03-01 11:31"), trigger="built-in")
    daemon(fleet, timedelta(hours=2, minutes=19), last_run_at=instant("2026-03-01 10:00"))
    troubles(fleet)


def nobody(fleet: Fleet) -> None:
    """The daemon is silent, and no application side has looked for an hour."""
    history(fleet, instant("2026-03-01 08:00"))
    daemon(fleet, timedelta(hours=4, minutes=12), last_run_at=instant("2026-03-01 08:00"))
    application_side(fleet, age=HOUR)
    troubles(fleet)


def silent(fleet: Fleet) -> None:
    """The daemon died 80 minutes ago: its run is overdue, and failover is still waiting."""
    history(fleet, instant("2026-03-01 10:55"))
    daemon(
        fleet,
        timedelta(minutes=80),
        last_run_at=instant("2026-03-01 10:55"),
        metadata='{"next_run_at": "2026-03-01T11:55:00+00:00"}',
    )
    troubles(fleet)


def stopped(fleet: Fleet) -> None:
    """The daemon was stopped a quarter of an hour ago."""
    history(fleet, instant("2026-03-01 12:00"))
    daemon(fleet, timedelta(minutes=15), status="stopped")
    troubles(fleet)


def without_daemon(fleet: Fleet) -> None:
    """No daemon was ever installed, and built-in billing bills."""
    application_side(fleet)
    for back in reversed(range(5)):
        run(fleet, instant("2026-03-01 11:31") - back * HOUR, trigger="built-in")
    troubles(fleet)


def host_bills(fleet: Fleet) -> None:
    """The daemon is silent, and the host's own scheduler debits wallets."""
    history(fleet, instant("2026-03-01 08:00"))
    daemon(fleet, timedelta(hours=4, minutes=12), last_run_at=instant("2026-03-01 08:00"))
    troubles(fleet)
    fleet.conn.execute(
        "insert into payment_transactions (organization_id, amount, payment_method, payment_provider, status, created_at,"
        " description) select id, -1, 'wallet_debit', 'internal', 'completed', %s, 'VPS Hourly Billing - web-1 (1h)' from organizations limit 1",
        (NOW - HOUR / 3,),
    )


SCENES: dict[str, Callable[[Fleet], None]] = {
    scene.__name__.replace("_", "-"): scene
    for scene in (
        first_run,
        on_duty,
        all_well,
        in_progress,
        failing,
        held,
        silent,
        stopped,
        taken_over,
        without_daemon,
        host_bills,
        nobody,
    )
}


def fleet_of(conn: psycopg.Connection[Any]) -> Fleet:
    """A fleet whose clock stands at the time of the scenes."""
    return Fleet(conn, at=NOW)
