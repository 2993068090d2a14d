"""SIGKILL at every statement of every migration, on an empty database and on one that is adopted.

    python -m tests.faultlab.migration_kills [--seed S] [--rounds N]

Each migration is traced; the boundaries are its exchanges with the server, each before, during and after. Processes that
migrate are forked off and killed there, one after the other on one database, so that each has to go on from what the
one before left. Then an undisturbed process finishes, and catalogs and rows must be those of a database that nobody
disturbed. A round kills at every exchange once, the moment changing from one to the next; three rounds at all.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from tests.campaign import throw_away_database
from tests.faultlab.killed_process import copied, dies
from tests.faultlab.steps import Moment, watched

from containerstacks_billing.schema.catalog import read_catalog
from containerstacks_billing.schema.files import delivered_schema
from containerstacks_billing.schema.lock import Patience
from containerstacks_billing.schema.migrator import migrate

LEGACY = (Path(__file__).parents[1] / "schema" / "legacy.sql").read_text()
_INSTANT = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?[+-]\d\d(:\d\d)?")
_NUMBER = re.compile(r"^\(\d+,")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


# The files in the order in which they are applied.
ORDER = [file.file_name for file in delivered_schema().files]


HASTY = Patience(pause_seconds=0.02)


class Exchange(NamedTuple):
    """One exchange with the server: the migration it belongs to, its name, and how often that came."""

    file: str
    name: str
    occurrence: int


class Contents:
    """What a database holds: its catalogs, and its rows without what differs from one migration to the next."""

    def __init__(self, conninfo: str, known: frozenset[str] = frozenset()) -> None:
        with psycopg.connect(conninfo, autocommit=True) as connection:
            connection.execute("set time zone 'UTC'")
            self.schema = read_catalog(connection)
            tables = connection.execute(
                "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r' order by 1"
            ).fetchall()
            self.rows = {
                table: [
                    row[0]
                    for row in connection.execute(
                        sql.SQL("select t::text from {} t order by 1").format(sql.Identifier(table))
                    )
                ]
                for (table,) in tables
                if "migrations" not in table
            }
        self.identifiers = frozenset(
            found[0] for rows in self.rows.values() for row in rows for found in _UUID.finditer(row)
        )
        self.rows = {table: sorted(_masked(row, known) for row in rows) for table, rows in self.rows.items()}

    def differences(self, other: Contents) -> list[str]:
        """Say in lines what is different in the other."""
        lines = [f"schema: {line}" for line in sorted(set(self.schema) ^ set(other.schema))]
        for table in sorted(self.rows.keys() | other.rows.keys()):
            mine, others = Counter(self.rows.get(table, [])), Counter(other.rows.get(table, []))
            lines += [f"{table}: {row}" for row in ((mine - others) + (others - mine)).elements()]
        return lines


def _masked(row: str, known: frozenset[str]) -> str:
    """Write "now" for instants of today, and nothing for identifiers that a migration drew.

    A number is drawn too: what was rolled back leaves a hole in its sequence.
    """
    now = datetime.now(UTC)

    def instant(found: re.Match[str]) -> str:
        at = datetime.fromisoformat(found[0])
        return "now" if abs(at - now) < timedelta(days=1) else found[0]

    row = _INSTANT.sub(instant, _NUMBER.sub("(drawn,", row))
    return _UUID.sub(lambda found: found[0] if found[0] in known else "drawn", row)


class Watch:
    """Counts the exchanges of a process that migrates: within each migration by their name, and how often that came."""

    def __init__(self) -> None:
        self.seen: Counter[tuple[str, str]] = Counter()
        self.order: list[Exchange] = []
        self.file = ""
        self._files = set(ORDER)

    def progress(self, sentence: str) -> None:
        """Note with which migration the process goes on."""
        self.file = sentence if sentence in self._files else self.file

    def note(self, name: str, moment: Moment) -> Exchange:
        """Count an exchange when it begins, and name it."""
        if moment is Moment.BEFORE:
            self.seen[self.file, name] += 1
            self.order.append(Exchange(self.file, name, self.seen[self.file, name]))
        return Exchange(self.file, name, self.seen[self.file, name])


def trace(conninfo: str) -> list[Exchange]:
    """Migrate, and list the exchanges."""
    watch = Watch()
    with watched(watch.note):
        migrate(conninfo, progress=watch.progress, patience=HASTY)
    return watch.order


def doomed(conninfo: str, ends: Callable[[Exchange | None, Moment | None, str], bool]) -> bool:
    """Fork a process that migrates and kills itself once `ends` says so; False when it came to its end before."""
    watch = Watch()

    def tell(name: str, moment: Moment) -> None:
        if ends(watch.note(name, moment), moment, watch.file):
            os.kill(os.getpid(), signal.SIGKILL)

    def progress(sentence: str) -> None:
        watch.progress(sentence)
        if ends(None, None, watch.file):
            os.kill(os.getpid(), signal.SIGKILL)

    def work() -> None:
        with watched(tell):
            migrate(conninfo, progress=progress, patience=HASTY)

    return dies(work, "a migration")


def kill(conninfo: str, exchange: Exchange, moment: Moment) -> bool:
    """Let a process die at this moment of this exchange."""
    return doomed(conninfo, lambda one, now, _: (one, now) == (exchange, moment))


def round_of_kills(template: str, turn: int, tally: Counter[str]) -> list[str]:
    """Kill at every exchange of every migration; return what is different from an undisturbed database."""
    known = Contents(template).identifiers
    findings: list[str] = []

    def finish(disturbed: str, what: str) -> None:
        migrate(disturbed, patience=HASTY)
        tally["migrations"] += 1
        findings.extend(f"{what}: {line}" for line in Contents(disturbed, known).differences(expected))

    with copied(template) as undisturbed:
        exchanges = trace(undisturbed)
        expected = Contents(undisturbed, known)
    places = {exchange: place for place, exchange in enumerate(exchanges)}
    with copied(template) as stage:
        for file in dict.fromkeys(exchange.file for exchange in exchanges):
            with copied(stage) as disturbed:
                for exchange in (one for one in exchanges if one.file == file):
                    moment = list(Moment)[(places[exchange] + turn) % 3]
                    if exchange.name == "connect" and moment is Moment.DURING:
                        moment = Moment.AFTER
                    dead = kill(disturbed, exchange, moment)
                    if not dead:
                        # What was killed before had committed this migration, so nothing came here again.
                        with copied(stage) as another:
                            dead = kill(another, exchange, moment)
                            finish(another, f"{exchange} {moment}")
                    tally["kills" if dead else "missed"] += 1
                    tally[f"kills {moment}"] += dead
                finish(disturbed, file or "before the first migration")
            if file:
                doomed(stage, lambda _, __, now, done=file: _follows(now, done))  # type: ignore[misc]
    return findings


def _follows(file: str, done: str) -> bool:
    return bool(file) and ORDER.index(file) > ORDER.index(done)


def main() -> int:
    """Kill, and report; 1 when something was found."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faultlab.migration_kills",
        description="SIGKILL at every statement of every migration.",
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="rounds on each kind of database (default 3: all moments)"
    )
    parser.add_argument("--seed", type=int, default=0, help="which moment the first exchange has")
    parser.add_argument("--empty", help="an empty database to make copies of")
    parser.add_argument("--legacy", help="a database of the host to make copies of")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began, tally, findings = time.monotonic(), Counter[str](), list[str]()
    with nullcontext() if chosen.empty or chosen.legacy else throw_away_database() as server:
        templates = [one for one in (chosen.empty, chosen.legacy) if one]
        if server:
            with psycopg.connect(server, autocommit=True) as admin:
                for name in ("empty", "legacy"):
                    admin.execute(
                        sql.SQL("create database {} template template0").format(sql.Identifier(name))
                    )
            templates = [make_conninfo(server, dbname=name) for name in ("empty", "legacy")]
            with psycopg.connect(templates[1], autocommit=True) as host:
                host.execute(LEGACY)
        for turn in range(chosen.seed, chosen.seed + chosen.rounds):
            for template in templates:
                findings += round_of_kills(template, turn, tally)
                print(
                    f"{tally['kills']} kills, {tally['kills'] / (time.monotonic() - began):.1f} a second",
                    file=sys.stderr,
                )
    print(json.dumps({**tally, "findings": findings}, indent=1))
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
