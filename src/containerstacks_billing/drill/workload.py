"""Workload of a drill: a small fleet and a thread that changes it as a host application does.

Every change is one transaction, and the journal of the oracle (journal.sql) writes it down inside of it, so a change
that is lost in a crash is lost for both. When the server goes away the crowd comes back with it.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import psycopg

ORGANIZATIONS = 24
INSTANCES = 240
_PRICES = ("4.00", "5.00", "6.00")
_PAUSE_SECONDS = 0.04

# Until the commit is known a run may have read the price of before, and the oracle takes either.
_PRICE_SEEN = "update oracle.prices set seen_by = {} where plan_id = %s and not isfinite(seen_by)"
_PRICE_CHANGE = """
    update oracle.prices set seen_by = 'infinity'
    where number = (select max(number) from oracle.prices where plan_id = %s)
"""


def make_fleet(conn: psycopg.Connection[Any]) -> None:
    """Make organizations with wallets, plans, and instances that have up to five hours due."""
    values = {"organizations": ORGANIZATIONS, "instances": INSTANCES}
    text = (Path(__file__).parent / "fleet.sql").read_text()
    with conn.transaction():
        for statement in text.split(";\n")[:-1]:
            conn.execute(statement.encode(), values)


class Workload:
    """Thread of host changes; `counts` holds the committed changes by kind."""

    def __init__(self, conninfo: str, seed: int, pause_seconds: float = _PAUSE_SECONDS) -> None:
        self._conninfo, self._pause_seconds = conninfo, pause_seconds
        self._random = random.Random(seed)  # noqa: S311  (choices, not secrets)
        self._between = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="crowd", daemon=True)
        self._conn: psycopg.Connection[Any] | None = None
        self._doings = (
            (6, "top-ups", self._top_up),
            (2, "debits by hand", self._debit),
            (5, "stops and starts", self._stop_or_start),
            (3, "resizes", self._resize),
            (1, "moves to another customer", self._move),
            (2, "new instances", self._create),
            (2, "deleted instances", self._delete),
            (1, "price changes", self._reprice),
        )
        self.counts: Counter[str] = Counter()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Pause the workload for the length of the block; a change in progress completes."""
        with self._between:
            yield

    def _run(self) -> None:
        weights = [weight for weight, _, _ in self._doings]
        while not self._stopping.wait(self._pause_seconds * self._random.random()):
            _, name, do = self._random.choices(self._doings, weights)[0]
            with self._between:
                try:
                    if self._conn is None or self._conn.closed:
                        self._conn = psycopg.connect(self._conninfo, autocommit=True, connect_timeout=5)
                    do(self._conn)
                    self.counts[name] += 1
                except psycopg.OperationalError:
                    # The server is away, or this was the one of two that had to give way; it tries something else.
                    if self._conn is not None and self._conn.broken:
                        self._conn.close()
        if self._conn is not None:
            self._conn.close()

    def _money(self, conn: psycopg.Connection[Any], least: str, amount: str, method: str) -> None:
        """Change the balance of a wallet that holds at least that much, with its ledger entry."""
        with conn.transaction():
            conn.execute("select set_config('lock_timeout', '10s', true)")
            row = conn.execute(
                "update wallets set balance = balance + %s where id = (select id from wallets where balance >= %s"
                " order by random() limit 1) and balance >= %s returning organization_id",
                (amount, least, least),
            ).fetchone()
            if row is not None:
                conn.execute(
                    "insert into payment_transactions (organization_id, amount, payment_method, payment_provider,"
                    " status) values (%s, %s, %s, 'paypal', 'completed')",
                    (row[0], amount, method),
                )

    def _top_up(self, conn: psycopg.Connection[Any]) -> None:
        self._money(conn, "0", self._random.choice(("0.01", "0.10", "1.00", "5.00")), "paypal")

    def _debit(self, conn: psycopg.Connection[Any]) -> None:
        self._money(conn, "0.30", "-0.25", "manual")

    def _some(self, share: float = 0.02) -> tuple[float, int]:
        """Return how large a share of the instances is looked at, and how many of those are taken."""
        return share, self._random.choice((1, 1, 1, 2, 5))

    def _stop_or_start(self, conn: psycopg.Connection[Any]) -> None:
        conn.execute(
            "update vps_instances set status = case status when 'running' then 'stopped' else 'running' end"
            " where id in (select id from vps_instances where random() < %s limit %s)",
            self._some(),
        )

    def _resize(self, conn: psycopg.Connection[Any]) -> None:
        conn.execute(
            "update vps_instances set plan_id = %s"
            " where id in (select id from vps_instances where random() < %s limit %s)",
            (f"plan-{self._random.randint(1, 3)}", *self._some()),
        )

    def _move(self, conn: psycopg.Connection[Any]) -> None:
        conn.execute(
            "update vps_instances set organization_id = (select id from organizations order by random() limit 1)"
            " where id = (select id from vps_instances order by random() limit 1)"
        )

    def _create(self, conn: psycopg.Connection[Any]) -> None:
        conn.execute(
            "insert into vps_instances (organization_id, plan_id, provider_instance_id, label, status, created_at)"
            " select id, 'plan-1', 'new', 'new', 'running', billing_clock()"
            " from organizations order by random() limit 1"
        )

    def _delete(self, conn: psycopg.Connection[Any]) -> None:
        conn.execute(
            "delete from vps_instances where id = (select id from vps_instances order by random() limit 1)"
        )

    def _reprice(self, conn: psycopg.Connection[Any]) -> None:
        with conn.transaction():
            row = conn.execute(
                "update vps_plans set base_price = %s where provider_plan_id = %s returning id",
                (self._random.choice(_PRICES), f"plan-{self._random.randint(1, 3)}"),
            ).fetchone()
            if row is None:
                return
            conn.execute(_PRICE_CHANGE, row)
        conn.execute(_PRICE_SEEN.format("oracle.reading()"), row)
