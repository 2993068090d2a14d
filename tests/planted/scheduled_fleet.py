"""Fleet with the oracle, and a hook after every statement of a run's workers, for tests of schedules.

    scheduled.run(after=7, do=lambda: scheduled.beside(lambda host: host.execute("…")))
    scheduled.judge()

`after` counts the statements that the workers execute, whatever those are, so a schedule goes on meaning something when
the statements change. A deed of the host that has to wait for the batch is left waiting, and ends when the batch does.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from tests.daemons import eventually, waits_for_lock
from tests.fleet import Fleet

from containerstacks_billing.drill import oracle
from containerstacks_billing.errors import BillingError
from containerstacks_billing.verification.verify import verify

Deed = Callable[[psycopg.Connection[Any]], Any]


class Killed(BaseException):
    """The process ends here: nothing of ours catches it."""


class ScheduledFleet:
    """A fleet in which something happens between two statements."""

    def __init__(self, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch) -> None:
        self.fleet = Fleet(conn)
        oracle.install(conn)
        self._beside: list[threading.Thread] = []
        self._hand: Callable[[], None] | None = None
        execute = psycopg.Cursor.execute

        def watched(cursor: psycopg.Cursor[Any], *arguments: Any, **options: Any) -> Any:
            execute(cursor, *arguments, **options)
            if self._hand is not None and threading.current_thread().name.startswith("billing-worker"):
                self._hand()
            return cursor

        monkeypatch.setattr(psycopg.Cursor, "execute", watched)

    def run(self, after: int | None = None, do: Callable[[], None] = lambda: None, **changes: Any) -> int:
        """Bill, with a deed after that many statements of the worker; return how many there were.

        A run that ends with an error of ours is no finding by itself: what matters is what it leaves.
        """
        count = itertools.count(1)
        last = [0]

        def hand() -> None:
            last[0] = next(count)
            if last[0] == after:
                do()

        self._hand = hand
        try:
            self.fleet.bill(**{"workers": 1, **changes})
        except (Killed, BillingError, psycopg.Error):
            pass
        finally:
            self._hand = None
            for thread in self._beside:
                thread.join(180)
            self._beside.clear()
        return last[0]

    def meanwhile(self, watch: Callable[[], None], **changes: Any) -> None:
        """Bill with two workers, and call `watch` after every statement of either."""
        self._hand = watch
        try:
            self.fleet.bill(**{"workers": 2, **changes})
        finally:
            self._hand = None

    def beside(self, deed: Deed) -> None:
        """Let the host do something on a connection of its own, until it is done or waits for us."""

        def act() -> None:
            with psycopg.Connection.connect(self.fleet.conninfo, autocommit=True) as host, host.transaction():
                deed(host)

        thread = threading.Thread(target=act, name="host")
        thread.start()
        self._beside.append(thread)
        eventually(lambda: not thread.is_alive() or self.a_session_waits())

    def a_session_waits(self) -> bool:
        """Whether a session of this database waits for a lock."""
        return waits_for_lock(self.fleet.conn)

    def later(self, minutes: int = 10) -> None:
        """Let some minutes pass."""
        self.fleet.at(timedelta(minutes=minutes))

    def judge(self, *, hours: float = 1) -> None:
        """Let an hour pass, bill undisturbed, and ask the oracle and `verify` whether the books are right."""
        self.fleet.hours(hours)
        self.fleet.bill()
        self.fleet.bill()
        verdict = oracle.judge(self.fleet.conn)
        assert [] == list(verdict.lines)
        found = verify(self.fleet.conninfo).discrepancies
        assert [] == [str(discrepancy) for discrepancy in found]
        assert [] == self.fleet.rows("select id, balance from wallets where balance < 0")
        assert {} == self.fleet.quarantine()

    def populate(self) -> tuple[list[UUID], UUID]:
        """Three organizations, one of which owes; return their instances, and a second plan."""
        small, odd = self.fleet.plan("7.30"), self.fleet.plan("6.20")
        rich, alone, poor = (self.fleet.organization(balance) for balance in ("100.00", "50.00", "0.03"))
        instances = [
            self.fleet.instance(rich, odd),
            self.fleet.instance(rich, small),
            self.fleet.instance(rich, odd),
            self.fleet.instance(alone, odd),
            self.fleet.instance(poor, small),
            self.fleet.instance(poor, odd),
        ]
        self.fleet.hours(3)
        self.fleet.bill()
        return instances, small
