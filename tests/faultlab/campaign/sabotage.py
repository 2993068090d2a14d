"""How each kind of fault is done. Every function returns whether it hit something."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from typing import LiteralString

import psycopg
from tests.faultlab.campaign.schedule import Fault
from tests.faultlab.campaign.stage import Biller, Stage

from containerstacks_billing.charging import fleet_reading as brake
from containerstacks_billing.database.connection import connect
from containerstacks_billing.drill.commit_proxy import Where, every_commit, mentions
from containerstacks_billing.errors import BillingError

_LOCKS: dict[str, LiteralString] = {
    "lock wallets": "select from wallets where organization_id = (select id from organizations order by slug"
    " offset %(whom)s %% (select count(*) from organizations) limit 1) for update",
    "lock instances": "select from vps_instances where right(id::text, 1) = right(to_hex(%(whom)s), 1)"
    " order by id for update",
    "lock tables": "lock table vps_billing_cycles in share row exclusive mode",
}
_THROUGH = ("run", "run", "run", "daemon", "daemon", "built-in")


def do(stage: Stage, fault: Fault) -> bool:
    """Do a fault; False when there was nothing to hit. Cuts are counted by their proxy instead."""
    return _WAYS[fault.kind.split(" ", maxsplit=1)[0]](stage, fault)


def _victim(stage: Stage, fault: Fault) -> Biller | None:
    who = fault.kind.split(" ", maxsplit=1)[1]
    if who == "run":
        living = [run for run in stage.runs if stage.nursery.status(run.pid) is None]
        return living[fault.whom % len(living)] if living else None
    return stage.daemon if who == "daemon" else stage.built_in


def _kill(stage: Stage, fault: Fault) -> bool:
    victim = _victim(stage, fault)
    if victim is None or not stage.nursery.signal(victim.pid, signal.SIGKILL):
        return False
    victim.killed = True
    if fault.strength < 0.6:
        # The rest of its lease passes at once, or a killed holder would be a pause for everybody each time.
        stage.execute(
            "update billing_leases set expires_at = clock_timestamp() where holder ~ %s",
            f"-{victim.pid}(-|$)",
        )
    return True


def _freeze(stage: Stage, fault: Fault) -> bool:
    victim = _victim(stage, fault)
    if victim is None or not stage.nursery.signal(victim.pid, signal.SIGSTOP):
        return False
    stage.after(fault.seconds, lambda: stage.nursery.signal(victim.pid, signal.SIGCONT))
    return True


def _stop(stage: Stage, fault: Fault) -> bool:
    """Ask the daemon to end, as an operator does."""
    del fault
    if stage.daemon.stopped_at or not stage.nursery.signal(stage.daemon.pid, signal.SIGTERM):
        return False
    stage.daemon.stopped_at = stage.now()
    return True


def _cut(stage: Stage, fault: Fault) -> bool:
    where: Where = fault.kind.split()[1]  # type: ignore[assignment]
    scissors = stage.scissors[_THROUGH[fault.whom % len(_THROUGH)]]
    # Mostly the commits of batches, and now and then whatever comes: of the lease, the run's row, a heartbeat.
    interesting = mentions("vps_billing_cycles") if fault.strength < 0.8 else every_commit
    scissors.arm(fault.kind, where, fault.count, interesting, skip=int(fault.strength * 10) % 4)
    return False


def _end(stage: Stage, fault: Fault) -> bool:
    return _upon_backends(stage, fault, "select pg_terminate_backend(pid) from chosen")


def _cancel(stage: Stage, fault: Fault) -> bool:
    """The server ends a statement by the same error as for a statement timeout."""
    return _upon_backends(stage, fault, "select pg_cancel_backend(pid) from chosen")


def _upon_backends(stage: Stage, fault: Fault, act: LiteralString) -> bool:
    rows = stage.execute(
        "with chosen as (select pid from pg_stat_activity where datname = current_database()"
        " and application_name like 'containerstacks-billing%%'"
        " order by (state = 'active' or state like 'idle in%%') desc, hashint4(pid # %s) limit %s) " + act,
        fault.whom,
        fault.count,
    )
    return bool(rows)


def _lock(stage: Stage, fault: Fault) -> bool:
    """Hold locks that a batch needs, often for longer than it waits for them."""
    with ExitStack() as held:
        try:
            conn = psycopg.connect(stage.conninfo, application_name="locker", autocommit=True)
            held.callback(conn.close)
            conn.execute("set lock_timeout = '300ms'")
            conn.execute("begin")
            conn.execute(_LOCKS[fault.kind], {"whom": fault.whom} if fault.kind != "lock tables" else None)
        except psycopg.Error:
            return False
        stage.after(fault.seconds, held.pop_all().close)
    return True


def _lose(stage: Stage, fault: Fault) -> bool:
    del fault
    return stage.execute("truncate billing_daemon_status") is not None


def _restart(stage: Stage, fault: Fault) -> bool:
    del fault
    stage.ground.cut_off()
    stage.ground.start()
    return True


def _clock(stage: Stage, fault: Fault) -> bool:
    """Set the database's clock: a little, for good; or far beyond what the brake lets pass, until somebody notices."""
    sign = 1 if fault.kind.endswith("ahead") else -1
    if "far" not in fault.kind:
        return _step(stage, sign * timedelta(minutes=10 + 100 * fault.strength))
    if stage.far_off:
        return False
    delta = sign * timedelta(hours=14 + 6 * fault.strength)
    stage.far_off = _step(stage, delta)
    if not stage.far_off:
        return False
    if sign > 0 and fault.whom % 2:
        # The operator believes the clock, and says so; what is held is charged.
        stage.after(fault.seconds, lambda: release_holds(stage))
    stage.after(fault.seconds + 0.7, lambda: _set_right(stage, -delta))
    return True


def _set_right(stage: Stage, delta: timedelta) -> None:
    if not _step(stage, delta):
        stage.after(0.2, lambda: _set_right(stage, delta))
        return
    stage.far_off = False
    release_holds(stage)


def _step(stage: Stage, delta: timedelta) -> bool:
    return stage.execute("select oracle.set_clock(oracle.reading() + %s, null)", delta) is not None


def release_holds(stage: Stage) -> bool:
    """Release a held run, as an operator would who looked at the clock; return whether there was one."""
    try:
        with connect(stage.conninfo, purpose="billing") as connection:
            hold = brake.latest_hold(connection)
            if hold is None or hold.is_released:
                return False
            return brake.release_hold(connection, hold, "operator", "looked at the clock")
    except (BillingError, psycopg.Error):
        return False


_WAYS: dict[str, Callable[[Stage, Fault], bool]] = {
    "kill": _kill,
    "freeze": _freeze,
    "stop": _stop,
    "cut": _cut,
    "end": _end,
    "cancel": _cancel,
    "lock": _lock,
    "lose": _lose,
    "restart": _restart,
    "clock": _clock,
}
