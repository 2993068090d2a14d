"""Injection of each kind of fault. Every function returns whether it had an effect."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from typing import LiteralString

import psycopg
from tests.faultlab.campaign.environment import Biller, Environment
from tests.faultlab.campaign.schedule import Fault

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


def inject(environment: Environment, fault: Fault) -> bool:
    """Inject a fault; False when there was nothing to hit. Cuts are counted by their proxy instead."""
    return _INJECTORS[fault.kind.split(" ", maxsplit=1)[0]](environment, fault)


def _victim(environment: Environment, fault: Fault) -> Biller | None:
    who = fault.kind.split(" ", maxsplit=1)[1]
    if who == "run":
        living = [run for run in environment.runs if environment.fork_server.status(run.pid) is None]
        return living[fault.whom % len(living)] if living else None
    return environment.daemon if who == "daemon" else environment.built_in


def _kill(environment: Environment, fault: Fault) -> bool:
    victim = _victim(environment, fault)
    if victim is None or not environment.fork_server.signal(victim.pid, signal.SIGKILL):
        return False
    victim.killed = True
    if fault.strength < 0.6:
        # Its lease expires at once; otherwise every killed holder would pause all billers.
        environment.execute(
            "update billing_leases set expires_at = clock_timestamp() where holder ~ %s",
            f"-{victim.pid}(-|$)",
        )
    return True


def _freeze(environment: Environment, fault: Fault) -> bool:
    victim = _victim(environment, fault)
    if victim is None or not environment.fork_server.signal(victim.pid, signal.SIGSTOP):
        return False
    environment.after(fault.seconds, lambda: environment.fork_server.signal(victim.pid, signal.SIGCONT))
    return True


def _stop(environment: Environment, fault: Fault) -> bool:
    """Stop the daemon with SIGTERM, as an operator does."""
    del fault
    if environment.daemon.stopped_at or not environment.fork_server.signal(
        environment.daemon.pid, signal.SIGTERM
    ):
        return False
    environment.daemon.stopped_at = environment.now()
    return True


def _cut(environment: Environment, fault: Fault) -> bool:
    where: Where = fault.kind.split()[1]  # type: ignore[assignment]
    cutters = environment.cutters[_THROUGH[fault.whom % len(_THROUGH)]]
    # Mostly the commits of batches, and now and then whatever comes: of the lease, the run's row, a heartbeat.
    interesting = mentions("vps_billing_cycles") if fault.strength < 0.8 else every_commit
    cutters.arm(fault.kind, where, fault.count, interesting, skip=int(fault.strength * 10) % 4)
    return False


def _end(environment: Environment, fault: Fault) -> bool:
    return _upon_backends(environment, fault, "select pg_terminate_backend(pid) from chosen")


def _cancel(environment: Environment, fault: Fault) -> bool:
    """The server ends a statement by the same error as for a statement timeout."""
    return _upon_backends(environment, fault, "select pg_cancel_backend(pid) from chosen")


def _upon_backends(environment: Environment, fault: Fault, act: LiteralString) -> bool:
    rows = environment.execute(
        "with chosen as (select pid from pg_stat_activity where datname = current_database()"
        " and application_name like 'containerstacks-billing%%'"
        " order by (state = 'active' or state like 'idle in%%') desc, hashint4(pid # %s) limit %s) " + act,
        fault.whom,
        fault.count,
    )
    return bool(rows)


def _lock(environment: Environment, fault: Fault) -> bool:
    """Hold locks that a batch needs, often for longer than it waits for them."""
    with ExitStack() as held:
        try:
            conn = psycopg.connect(environment.conninfo, application_name="locker", autocommit=True)
            held.callback(conn.close)
            conn.execute("set lock_timeout = '300ms'")
            conn.execute("begin")
            conn.execute(_LOCKS[fault.kind], {"whom": fault.whom} if fault.kind != "lock tables" else None)
        except psycopg.Error:
            return False
        environment.after(fault.seconds, held.pop_all().close)
    return True


def _lose(environment: Environment, fault: Fault) -> bool:
    del fault
    return environment.execute("truncate billing_daemon_status") is not None


def _restart(environment: Environment, fault: Fault) -> bool:
    del fault
    environment.server.cut_off()
    environment.server.start()
    return True


def _clock(environment: Environment, fault: Fault) -> bool:
    """Set the database's clock: a little, permanently; or far beyond the brake's limit, until the operator corrects it."""
    sign = 1 if fault.kind.endswith("ahead") else -1
    if "far" not in fault.kind:
        return _step(environment, sign * timedelta(minutes=10 + 100 * fault.strength))
    if environment.far_off:
        return False
    delta = sign * timedelta(hours=14 + 6 * fault.strength)
    environment.far_off = _step(environment, delta)
    if not environment.far_off:
        return False
    if sign > 0 and fault.whom % 2:
        # The operator believes the clock, and says so; what is held is charged.
        environment.after(fault.seconds, lambda: release_holds(environment))
    environment.after(fault.seconds + 0.7, lambda: _set_right(environment, -delta))
    return True


def _set_right(environment: Environment, delta: timedelta) -> None:
    if not _step(environment, delta):
        environment.after(0.2, lambda: _set_right(environment, delta))
        return
    environment.far_off = False
    release_holds(environment)


def _step(environment: Environment, delta: timedelta) -> bool:
    return environment.execute("select oracle.set_clock(oracle.reading() + %s, null)", delta) is not None


def release_holds(environment: Environment) -> bool:
    """Release a held run, as an operator does after checking the clock; return whether there was one."""
    try:
        with connect(environment.conninfo, purpose="billing") as connection:
            hold = brake.latest_hold(connection)
            if hold is None or hold.is_released:
                return False
            return brake.release_hold(connection, hold, "operator", "looked at the clock")
    except (BillingError, psycopg.Error):
        return False


_INJECTORS: dict[str, Callable[[Environment, Fault], bool]] = {
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
