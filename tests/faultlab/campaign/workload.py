"""Workload of the host application and its customers on several connections, during the faults.

Every action is one transaction. One that touches several instances locks their rows first, which avoids deadlocks and
reads the clock only when no lock is left to wait for.
"""

from __future__ import annotations

import threading
from collections import Counter
from decimal import Decimal
from random import Random
from typing import Any, LiteralString

import psycopg
from psycopg import sql

Connection = psycopg.Connection[Any]
PLANS = ("5.00", "7.30", "11.00", "19.99", "42.42", "80.00")
_PAUSE_SECONDS = 0.045


def settle(conn: Connection, organizations: int, instances: int, chance: Random) -> None:
    """Create plans, organizations with wallets of every size, and instances whose hours begin at different minutes."""
    with conn.transaction():
        for number, price in enumerate(PLANS):
            conn.execute(
                "insert into vps_plans (name, provider_plan_id, base_price, markup_price, created_at)"
                " values (%s, %s, %s, %s, billing_clock())",
                (f"plan {number}", f"provider-{number}", price, chance.choice(("0", "1.11", "2.50"))),
            )
        for number in range(organizations):
            balance = chance.choice(("0.00", "0.07", "0.40", "3.00", "20.00", "100.00", "100.00"))
            conn.execute(
                "with owner as (insert into users (email, password_hash, name) values (%s, 'x', 'Owner') returning id),"
                " made as (insert into organizations (name, slug, owner_id) select %s, %s, id from owner returning id)"
                " insert into wallets (organization_id, balance, currency, created_at)"
                " select id, %s, 'USD', billing_clock() from made",
                (f"owner-{number}@example.org", f"Organization {number}", f"organization-{number}", balance),
            )
        for _ in range(instances):
            _create(conn, chance, minutes_ago=chance.uniform(0, 60))


def _create(conn: Connection, chance: Random, minutes_ago: float = 0) -> None:
    name = "id::text" if chance.random() < 0.8 else "provider_plan_id"
    conn.execute(
        "insert into vps_instances (organization_id, plan_id, provider_instance_id, label, status, created_at)"
        " select o.id, p.name, gen_random_uuid()::text, %s, %s, billing_clock() - %s * interval '1 minute'"
        " from (select id from organizations order by slug offset floor(%s * (select count(*) from organizations)) limit 1) o,"
        f" (select {name} as name from vps_plans order by name offset %s limit 1) p",  # type: ignore[arg-type]
        (
            f"vps-{chance.randrange(1000)}",
            "stopped" if chance.random() < 0.1 else "running",
            minutes_ago,
            chance.random(),
            chance.randrange(len(PLANS)),
        ),
    )


class HostWorkload:
    """Threads that write as the host does; their errors are counted, and they go on."""

    def __init__(self, conninfo: str, seed: int, threads: int = 3) -> None:
        self._conninfo = conninfo
        self._leaving = threading.Event()
        self._count_lock = threading.Lock()
        self.done: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self._threads = [
            threading.Thread(
                target=self._run_child, args=(Random(f"{seed} {number}"),), name=f"host-{number}"
            )
            for number in range(threads)
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop the threads after their current transaction."""
        self._leaving.set()
        for thread in self._threads:
            thread.join()

    def _run_child(self, chance: Random) -> None:
        conn: Connection | None = None
        while not self._leaving.wait(chance.expovariate(1 / _PAUSE_SECONDS)):
            action = chance.choices(list(_ACTIONS), [weight for weight, _ in _ACTIONS.values()])[0]
            try:
                if conn is None or conn.closed:
                    conn = psycopg.connect(self._conninfo, autocommit=True, application_name="host")
                    conn.execute("set lock_timeout = '3s'")
                    conn.execute("set idle_in_transaction_session_timeout = '10s'")
                _ACTIONS[action][1](conn, chance)
                counts, name = self.done, action
            except psycopg.Error as error:
                counts, name = self.errors, type(error).__name__
                if conn is not None and conn.broken:
                    conn.close()
                self._leaving.wait(0.05)
            with self._count_lock:
                counts[name] += 1
        if conn is not None:
            conn.close()


def _one_instance(conn: Connection, chance: Random, where: LiteralString = "true") -> Any:
    """Lock one instance and return its id, or None."""
    row = conn.execute(
        f"select id from vps_instances where {where} and id >= %s order by id limit 1 for update",
        (f"{chance.getrandbits(128):032x}",),
    ).fetchone()
    return row[0] if row else None


def _organization(conn: Connection, chance: Random) -> Any:
    row = conn.execute(
        "select id from organizations order by slug offset floor(%s * (select count(*) from organizations)) limit 1",
        (chance.random(),),
    ).fetchone()
    assert row is not None
    return row[0]


def _top_up(conn: Connection, chance: Random, sign: int = 1) -> None:
    with conn.transaction():
        organization = _organization(conn, chance)
        row = conn.execute(
            "select balance from wallets where organization_id = %s for update", (organization,)
        ).fetchone()
        amount = sign * chance.choice((1, 7, 25, 50, 300)) / 100
        if row is None or float(row[0]) + amount < 0:
            return
        conn.execute(
            "insert into payment_transactions (organization_id, amount, currency, payment_method, payment_provider, status,"
            " description, created_at) values (%s, %s, 'USD', 'paypal', 'paypal', 'completed', 'Top-up', billing_clock())",
            (organization, amount),
        )
        conn.execute(
            "update wallets set balance = balance + %s::numeric where organization_id = %s",
            (str(amount), organization),
        )


def _debit(conn: Connection, chance: Random) -> None:
    _top_up(conn, chance, sign=-1)


def _toggle(conn: Connection, chance: Random) -> None:
    with conn.transaction():
        instance = _one_instance(conn, chance)
        for _ in range(2 if chance.random() < 0.1 else 1):
            conn.execute(
                "update vps_instances set status = case status when 'running' then 'stopped' else 'running' end"
                " where id = %s",
                (instance,),
            )


def _start(conn: Connection, chance: Random) -> None:
    with conn.transaction():
        instance = _one_instance(conn, chance, "status <> 'running'")
        conn.execute("update vps_instances set status = 'running' where id = %s", (instance,))


def _resize(conn: Connection, chance: Random) -> None:
    with conn.transaction():
        instance = _one_instance(conn, chance)
        conn.execute(
            "update vps_instances set plan_id = (select id::text from vps_plans order by name offset %s limit 1),"
            " label = 'resized' where id = %s",
            (chance.randrange(len(PLANS)), instance),
        )


def _move(conn: Connection, chance: Random) -> None:
    with conn.transaction():
        instance = _one_instance(conn, chance)
        conn.execute(
            "update vps_instances set organization_id = %s where id = %s",
            (_organization(conn, chance), instance),
        )


def _delete(conn: Connection, chance: Random) -> None:
    with conn.transaction():
        conn.execute("delete from vps_instances where id = %s", (_one_instance(conn, chance),))


def _stop_all(conn: Connection, chance: Random) -> None:
    with conn.transaction():
        organization = _organization(conn, chance)
        conn.execute(
            "select from vps_instances where organization_id = %s order by id for update", (organization,)
        )
        conn.execute(
            "update vps_instances set status = case status when 'running' then 'stopped' else 'running' end"
            " where organization_id = %s and right(id::text, 1) < '8'",
            (organization,),
        )


def _label(conn: Connection, chance: Random) -> None:
    conn.execute(
        "update vps_instances set label = %s, updated_at = billing_clock() where id >= %s and id < %s",
        (f"label-{chance.random()}", *sorted(f"{chance.getrandbits(128):032x}" for _ in range(2))),
    )


def _reprice(conn: Connection, chance: Random) -> None:
    """Change a price within the brake's limit; until the commit is confirmed, a run may read the old one.

    In one exchange: the clock is constant inside a transaction, and half a second between two statements, on a busy
    machine, would be an hour in which the price is not visible.
    """
    number = chance.randrange(len(PLANS))
    conn.execute(
        sql.SQL(
            "do $$ begin"
            " update vps_plans set base_price = {price} where name = {name};"
            " update oracle.prices set seen_by = 'infinity' where number ="
            " (select max(number) from oracle.prices where name = {provider}); end $$"
        ).format(
            price=round(Decimal(PLANS[number]) * Decimal(str(round(chance.uniform(0.7, 1.4), 3))), 2),
            name=f"plan {number}",
            provider=f"provider-{number}",
        )
    )
    confirm_prices(conn)


def confirm_prices(conn: Connection) -> None:
    """Record that the prices visible now are seen by every later reader."""
    conn.execute(
        "update oracle.prices set seen_by = greatest(at, billing_clock()) where seen_by = 'infinity'"
    )


_ACTIONS: dict[str, tuple[int, Any]] = {
    "top-up": (18, _top_up),
    "manual debit": (8, _debit),
    "stop or start": (14, _toggle),
    "start": (10, _start),
    "resize": (12, _resize),
    "move": (4, _move),
    "create": (7, _create),
    "delete": (5, _delete),
    "stop or start many": (4, _stop_all),
    "relabel": (5, _label),
    "price": (6, _reprice),
}
