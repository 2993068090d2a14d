"""How `status` says who bills, and when the next run is due: as the page does, from the same values."""

from __future__ import annotations

from datetime import timedelta

from containerstacks_billing.settings import Settings
from containerstacks_billing.status.model import (
    Biller,
    Health,
    Limits,
    biller,
    is_stopped,
    limits_of,
    silent_for,
)
from containerstacks_billing.status.verdict import next_run, successor


def who_bills(health: Health, settings: Settings) -> str:
    """Say who bills, and how the daemon is."""
    limits = limits_of(settings)
    who = biller(health, limits.failover_after)
    if who is Biller.DAEMON:
        return _daemon(health, limits, settings.built_in_billing)
    bills = {Biller.BUILT_IN: "Built-in billing bills", Biller.HOST: "The host application bills by itself"}
    daemon = health.daemon
    if daemon is None:
        never = "No billing daemon has ever run on this database."
        return f"{bills[who]}. {never}" if who in bills else never
    state = "is stopped" if daemon.status == "stopped" else "is silent"
    age = span(health.now - daemon.heartbeat_at) if daemon.heartbeat_at else "an unknown time"
    return f"{bills.get(who, 'Nobody bills')}: {daemon.daemon_instance_id} {state}, its last heartbeat was {age} ago."


def _daemon(health: Health, limits: Limits, switch: str) -> str:
    """Say how a daemon is that nobody has taken over from."""
    assert health.daemon is not None  # noqa: S101 - its heartbeat is known
    assert health.failover.heartbeat_at is not None  # noqa: S101 - it is fresh
    name, beat = health.daemon.daemon_instance_id, health.failover.heartbeat_at
    age, rest = span(health.now - beat), span(beat + limits.failover_after - health.now)
    then = f"{successor(health, switch)} in {rest}."
    if is_stopped(health):
        return f"No daemon bills: {name} is stopped, its last heartbeat was {age} ago. {then}"
    if silent_for(health, limits) is not None:
        return f"No daemon bills: {name} has been silent for {age}. {then}"
    if health.daemon.status == "error":
        return f"The billing daemon {name} reports an error; its last heartbeat was {age} ago."
    return f"The billing daemon {name} bills; its last heartbeat was {age} ago."


def next_due(health: Health, limits: Limits) -> str:
    """Say when the next run is due, as the page does."""
    who = biller(health, limits.failover_after)
    due = next_run(health, who, limits.interval)
    if due is None:
        if who is Biller.HOST:
            return "by the host application"
        if who is Biller.DAEMON and not is_stopped(health):
            return "now"
        return "when the daemon starts" if health.daemon else "when a daemon or built-in billing is started"
    if due > health.now:
        return f"in {span(due - health.now)}"
    return f"overdue for {span(health.now - due)}" if silent_for(health, limits) else "now"


def span(time: timedelta) -> str:
    """Write a span with its two largest units at most: `3 min 5 s`, `2 d 4 h`."""
    seconds = max(int(time.total_seconds()), 0)
    days, hours, minutes = seconds // 86400, seconds // 3600 % 24, seconds // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds % 60} s" if minutes else f"{seconds} s"
