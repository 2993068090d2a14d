"""Heartbeats, and a clock that obeys, for tests of who bills."""

from __future__ import annotations

from datetime import timedelta

from tests.fleet import Fleet

from containerstacks_billing.billing.settings import Settings, settings_from


def settings_of(conninfo: str, **texts: str) -> Settings:
    """Settings for a database; keys in lower case, values as they would be written."""
    return settings_from({"DATABASE_URL": conninfo, **{key.upper(): text for key, text in texts.items()}})


def heartbeat(
    fleet: Fleet, age: timedelta = timedelta(0), daemon: str = "host-1", status: str = "running"
) -> None:
    """Write the row of a daemon whose last heartbeat is that old by the fleet's clock."""
    fleet.conn.execute(
        "insert into billing_daemon_status (daemon_instance_id, status, heartbeat_at, started_at, last_run_at)"
        " values (%s, %s, %s, %s, %s) on conflict (daemon_instance_id) do update"
        " set heartbeat_at = excluded.heartbeat_at, status = excluded.status",
        (daemon, status, fleet.now - age, fleet.now - age - timedelta(hours=1), fleet.now - age),
    )


def host_clock_follows(fleet: Fleet) -> None:
    """Let this host's clock have moved as far as the fleet's since each run: the brake compares the two."""
    fleet.conn.execute("update billing_runs set host_clock = now() - (%s - as_of)", (fleet.now,))


def hourly_fleet(fleet: Fleet) -> None:
    """One instance at a cent an hour, which has run for two hours."""
    fleet.instance(fleet.organization("100.00"), fleet.plan("7.30"))
    fleet.hours(2)
