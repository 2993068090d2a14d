"""Thousands of random histories against the reference model: ./dev reference [--machines N] [--seed S] [--minutes M].

The machines come in rounds of fifty, and each round has a seed of its own, which is printed when one of its histories
goes wrong: `./dev reference --seed S --machines 50` lives that round again. The server is a throw-away one, or
TEST_DATABASE_URL, where the campaign makes a database and drops it.
"""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from tests.explain.judge import judge
from tests.stateful_test import live

from containerstacks_billing import logs
from containerstacks_billing.sandbox import server as embedded
from containerstacks_billing.schema.migrator import migrate

ROUND = 50
SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "autovacuum_naptime": "5s",
}


@contextmanager
def throw_away_database() -> Iterator[str]:
    """Yield the conninfo of a migrated database that is gone afterwards."""
    for name in [name for name in os.environ if name == "DATABASE_URL" or name.startswith("PG")]:
        del os.environ[name]
    with tempfile.TemporaryDirectory(prefix="containerstacks-reference-") as directory:
        foreign = os.environ.get("TEST_DATABASE_URL")
        own = None if foreign else embedded.EmbeddedServer(Path(directory), settings=SETTINGS)
        server = foreign or own.start()  # type: ignore[union-attr]
        name = f"billing_reference_{secrets.token_hex(4)}"
        try:
            with psycopg.connect(server, autocommit=True) as admin:
                admin.execute(sql.SQL("create database {} template template0").format(sql.Identifier(name)))
            migrate(make_conninfo(server, dbname=name))
            yield make_conninfo(server, dbname=name)
        finally:
            with psycopg.connect(server, autocommit=True) as admin:
                admin.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))
            if own:
                own.stop()


def main() -> int:
    """Run the histories; the first that differs from the model is raised."""
    parser = argparse.ArgumentParser(
        prog="./dev reference", description="Random histories against the reference model."
    )
    parser.add_argument("--machines", type=int, default=1000, help="how many histories (default 1000)")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so many minutes")
    parser.add_argument(
        "--seed", type=int, default=secrets.randbelow(10**6), help="the seed of the first round"
    )
    parser.add_argument(
        "--steps", type=int, default=40, help="the longest history, in things that happen (default 40)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="show the first history that differs without shrinking it"
    )
    parser.add_argument(
        "--explain", action="store_true", help="also explain every entry, hour and month of each history"
    )
    chosen = parser.parse_args()
    # Ended by a signal it stops its server too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    logs.configure("error")
    began, lived, seed, tally = time.monotonic(), 0, chosen.seed, Counter[str]()
    with throw_away_database() as conninfo, psycopg.connect(conninfo, autocommit=True) as conn:
        while lived < chosen.machines and time.monotonic() - began < chosen.minutes * 60:
            histories = min(ROUND, chosen.machines - lived)
            judges = (judge,) if chosen.explain else ()
            tally.update(live(conn, histories, chosen.steps, seed, not chosen.quick, judges).tally)
            lived, seed = lived + histories, seed + 1
            pace = lived / (time.monotonic() - began)
            print(f"{lived} machines agree, {pace:.1f} a second; next seed {seed}", file=sys.stderr)
    counted = {
        "runs": "runs",
        "billed": "hours billed",
        "failed": "hours past due",
        "held": "machines with held instances",
        **{name: name for name in sorted(tally) if " " in name or name == "releases"},
    }
    print(
        f"{lived} machines agree with the reference model to the last digit (seeds {chosen.seed} to {seed - 1}): "
        + ", ".join(f"{tally[name]:,} {words}" for name, words in counted.items())
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
