"""Every order in which the statements of several actors can reach the server.

An actor is a thread with a connection of its own. It stops before each statement, and goes on when the scheduler lets
it. After each step the scheduler waits until every actor stands before its next statement, has ended, or waits for a
lock, which pg_blocking_pids says. So one schedule is a list of choices, and all of them are found by going through one
after the other and branching wherever another could have been chosen.

Left out are stops before BEGIN, ROLLBACK and settings of the transaction: they touch no row, and under READ COMMITTED each
statement has a snapshot of its own, so they commute with whatever others do.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg
from tests.faultlab.steps import Moment, watched

LONGEST_WAIT_SECONDS = 60.0

Act = Callable[[psycopg.Connection[Any]], object]


@dataclass
class Actor:
    """An actor: its work, its connection, its present step and its end."""

    name: str
    act: Act
    connection: psycopg.Connection[Any]
    stands_before: str | None = None
    may_go: bool = False
    has_ended: bool = False
    ending: str = ""

    @property
    def runs(self) -> bool:
        """Whether it is on its way, or waits for a lock."""
        return not self.has_ended and self.stands_before is None


@dataclass
class Schedule:
    """One order of statements: the actor of each step, the candidates, its statement, and how each actor ended."""

    chosen: list[str] = field(default_factory=list)
    enabled: list[list[str]] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    endings: dict[str, str] = field(default_factory=dict)
    diverged: bool = False

    def branches(self, fixed: int) -> Iterator[list[str]]:
        """Yield the beginnings of the schedules that differ from this one after its first `fixed` choices."""
        for place in range(fixed, len(self.chosen)):
            for other in self.enabled[place]:
                if other != self.chosen[place]:
                    yield [*self.chosen[:place], other]


def is_stop(name: str) -> bool:
    """Whether actors stop before this exchange."""
    return not (
        name == "begin"
        or name.startswith("rollback")
        or name == "connect"
        or name.lower().startswith("select set_config")
    )


class Scheduler:
    """Runs actors in one given order; the monitor is a connection that reads which waits for which."""

    def __init__(self, monitor: psycopg.Connection[Any]) -> None:
        self._monitor = monitor
        self._changed = threading.Condition()
        self._actors: dict[str, Actor] = {}

    def run(self, acts: Mapping[str, tuple[Act, psycopg.Connection[Any]]], beginning: list[str]) -> Schedule:
        """Begin with these choices, then choose the first actor that can run, until all have ended."""
        self._actors = {name: Actor(name, act, connection) for name, (act, connection) in acts.items()}
        threads = [
            threading.Thread(target=self._live, args=(actor,), name=f"actor {actor.name}", daemon=True)
            for actor in self._actors.values()
        ]
        schedule = Schedule()
        with watched(self._tell):
            for thread in threads:
                thread.start()
            while self._settle():
                enabled = [actor.name for actor in self._actors.values() if actor.stands_before is not None]
                place = len(schedule.chosen)
                chosen = beginning[place] if place < len(beginning) else enabled[0]
                if chosen not in enabled:
                    schedule.diverged, chosen = True, enabled[0]
                schedule.chosen.append(chosen)
                schedule.enabled.append(enabled)
                schedule.steps.append(f"{chosen}: {self._actors[chosen].stands_before}")
                self._let_go(self._actors[chosen])
            for thread in threads:
                thread.join(LONGEST_WAIT_SECONDS)
        schedule.endings = {actor.name: actor.ending for actor in self._actors.values()}
        return schedule

    def _live(self, actor: Actor) -> None:
        try:
            actor.ending = str(actor.act(actor.connection))
        except Exception as error:  # noqa: BLE001  (how an actor ends is what is asked for)
            actor.ending = type(error).__name__
        with self._changed:
            actor.has_ended, actor.stands_before = True, None
            self._changed.notify_all()

    def _tell(self, name: str, moment: Moment) -> None:
        actor = self._actors.get(threading.current_thread().name.removeprefix("actor "))
        if actor is None or moment is not Moment.BEFORE or not is_stop(name):
            return
        with self._changed:
            actor.stands_before = name
            self._changed.notify_all()
            if not self._changed.wait_for(lambda: actor.may_go, LONGEST_WAIT_SECONDS):
                raise TimeoutError(f"nobody let {actor.name} go on to {name}")
            actor.may_go = False

    def _let_go(self, actor: Actor) -> None:
        with self._changed:
            actor.stands_before, actor.may_go = None, True
            self._changed.notify_all()

    def _settle(self) -> bool:
        """Wait until every actor is stopped, waits for a lock or has ended; False when all have ended."""
        deadline = time.monotonic() + LONGEST_WAIT_SECONDS
        while time.monotonic() < deadline:
            with self._changed:
                self._changed.wait_for(lambda: not any(one.runs for one in self._actors.values()), 0.002)
                running = [one for one in self._actors.values() if one.runs]
                standing = [one for one in self._actors.values() if one.stands_before is not None]
            if not running:
                return bool(standing)
            # Where all wait for each other the server ends one of them.
            if standing and self._all_blocked(running):
                return True
        raise TimeoutError(f"nobody goes on: {self._actors}")

    def _all_blocked(self, running: list[Actor]) -> bool:
        pids = [actor.connection.info.backend_pid for actor in running if not actor.connection.closed]
        rows = self._monitor.execute(
            "select count(*) from unnest(%s::int[]) as pid where cardinality(pg_blocking_pids(pid)) > 0",
            (pids,),
        ).fetchone()
        if rows != (len(running),):
            return False
        with self._changed:
            return all(actor.runs for actor in running)
