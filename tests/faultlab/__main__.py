"""Random faults against real processes: ./dev faults [--minutes M] [--seed S] [--rounds N] [--json].

The campaign runs rounds of some twenty seconds, each with its own seed and database, on a durable
throw-away server. Which fault happens when is a function of the seed; what the processes were doing at that moment is
not, so a seed that failed may need several runs until it fails again.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import signal
import sys
import tempfile
import time
from pathlib import Path

import psycopg
from psycopg import sql
from tests.faultlab.campaign import roles
from tests.faultlab.campaign.campaign_report import CampaignReport
from tests.faultlab.campaign.processes import DurableServer, ForkServer
from tests.faultlab.campaign.round import Report, run_round
from tests.faultlab.campaign.schedule import plan_round

from containerstacks_billing.schema.migrator import migrate


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="./dev faults", description="Random faults against real processes, judged by an oracle."
    )
    parser.add_argument("--minutes", type=float, default=1.0, help="how long to go on (default 1)")
    parser.add_argument("--rounds", type=int, help="how many rounds, whatever they take")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="the first round's seed")
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="how long faults last in a round (default 20)"
    )
    parser.add_argument("--rate", type=float, default=8.0, help="faults a second (default 8)")
    parser.add_argument("--until-found", action="store_true", help="stop at the first finding, with 1")
    parser.add_argument("--json", action="store_true", help="write one JSON document")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    """Run rounds until the time is over; return 1 when anything was found."""
    chosen = arguments(words)
    for name in [name for name in os.environ if name == "DATABASE_URL" or name.startswith("PG")]:
        del os.environ[name]
    total = campaign(chosen)
    print(json.dumps(total.document()) if chosen.json else total.text())
    return 0 if total.clean else 1


def campaign(chosen: argparse.Namespace) -> CampaignReport:
    """Run the rounds, with progress on stderr."""
    began, total = time.monotonic(), CampaignReport(chosen.seed, chosen.seconds, chosen.rate)
    with tempfile.TemporaryDirectory(prefix="containerstacks-faults-") as place, ForkServer() as fork_server:
        server = DurableServer(Path(place) / "server")
        try:
            _make_template(server)
            while _goes_on(chosen, total, time.monotonic() - began):
                report = _round(server, fork_server, Path(place), chosen, chosen.seed + len(total.reports))
                total.add(report)
                print(total.line(report), file=sys.stderr, flush=True)
        finally:
            server.stop()
    total.seconds = time.monotonic() - began
    return total


def _goes_on(chosen: argparse.Namespace, total: CampaignReport, passed: float) -> bool:
    if chosen.until_found and not total.clean:
        return False
    if chosen.rounds is not None:
        return len(total.reports) < chosen.rounds
    return passed < chosen.minutes * 60


def _make_template(server: DurableServer) -> None:
    with psycopg.connect(server.start(), autocommit=True) as conn:
        roles.make_roles(conn)
        conn.execute("create database template_of_rounds template template0")
    migrate(server.conninfo("template_of_rounds"))


def _round(
    server: DurableServer, fork_server: ForkServer, place: Path, chosen: argparse.Namespace, seed: int
) -> Report:
    database, directory = f"round_{seed}", place / f"round-{seed}"
    directory.mkdir()
    name = sql.Identifier(database)
    with psycopg.connect(server.start(), autocommit=True) as conn:
        conn.execute(
            sql.SQL("create database {} template template_of_rounds strategy file_copy").format(name)
        )
    report = run_round(
        server, fork_server, directory, database, plan_round(seed, chosen.seconds, chosen.rate)
    )
    with psycopg.connect(server.start(), autocommit=True) as conn:
        conn.execute(sql.SQL("drop database {} with (force)").format(name))
    return report


if __name__ == "__main__":
    # Ended by a signal it stops its server too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
