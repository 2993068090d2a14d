"""Heartbeats, and a clock that obeys, for tests of who bills."""

from __future__ import annotations

from datetime import timedelta

from tests.daemons import compress
from tests.fleet import Fleet

from containerstacks_billing.settings import Settings, settings_from


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


def application_side(
    fleet: Fleet, setting: str = "auto", age: timedelta = timedelta(0), holder: str = "built-in host-1-7"
) -> None:
    """Write the sign of life of an application side that looked so long ago, by the fleet's clock."""
    fleet.conn.execute(
        "insert into billing_application_sides (holder, setting, failover_after, looked_at)"
        " values (%s, %s, '90 minutes', %s) on conflict (holder) do update"
        " set setting = excluded.setting, looked_at = excluded.looked_at",
        (holder, setting, fleet.now - age),
    )


def host_clock_follows(fleet: Fleet) -> None:
    """Let this host's clock have moved as far as the fleet's since each run: the brake compares the two."""
    fleet.conn.execute("update billing_runs set host_clock = now() - (%s - as_of)", (fleet.now,))


def pass_time(fleet: Fleet, time: timedelta) -> None:
    """Let time pass by both clocks at once: a process that looks between the two sees a clock that jumped, and holds its run."""
    with fleet.conn.transaction():
        fleet.at(time)
        host_clock_follows(fleet)


def let_the_clock_run(fleet: Fleet) -> None:
    """Let the fleet's clock run as fast as a real one, from where it stands."""
    compress(fleet.conn, 1, fleet.now)


def stop_the_clock(fleet: Fleet) -> None:
    """Let a clock that runs stand still, so that it obeys again."""
    fleet.conn.execute("update test_clock set at = at + (clock_timestamp() - since) * speed, speed = 0")
    fleet.now = fleet.rows("select at from test_clock")[0].at


def hourly_fleet(fleet: Fleet) -> None:
    """One instance at a cent an hour, which has run for two hours."""
    fleet.instance(fleet.organization("100.00"), fleet.plan("7.30"))
    fleet.hours(2)
