"""A day of one daemon, compressed: `python -m tests.faultlab.day [--hours 24] [--speed 120] [--seed 1]`.

The daemon is one process and stays it. It reaches a primary and its replica through an address that names both, by way of
gates that can be shut and of proxies that cut commits. While a workload changes instances and wallets, the server is restarted,
crashes, is out of reach for a while, and dies for a replica that has not heard of its last runs; later the dead server comes
back and takes over again. Connections are cut before, during and after the COMMIT of charges and of heartbeats in between.

Judged is what the daemon leaves: the oracle and `verify`, its memory, its exit code, and its heartbeats. Every beat counts
that was committed anywhere, by the database's clock. **A gap** between two beats is what lies between them without the time
in which the server was away: from the instant before it was taken away until the first connection, by the daemon's own
way, to a server that accepts writes.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo
from tests import daemons
from tests.daemons import Daemon, eventually
from tests.faultlab.day_log import Report
from tests.faultlab.primary_and_standby import Servers
from tests.faultlab.replica import Node, Pair, Relay, scratch

from containerstacks_billing.charging.model import Outcome, Terms
from containerstacks_billing.charging.run import RunOrder, run_billing
from containerstacks_billing.drill import fake_clock as clock
from containerstacks_billing.drill import oracle
from containerstacks_billing.drill.commit_proxy import CommitProxy, Where, mentions
from containerstacks_billing.drill.workload import Workload, make_fleet
from containerstacks_billing.sandbox.state_directory import PORT
from containerstacks_billing.verification.verify import verify

AWAY_SHARE = 0.0125  # of the day
SAMPLES = 24  # of the daemon's memory
# Half a minute would be hours here; what is decided by it stays the same.
LEASE_SECONDS = 3.0
_LAST_RUNS = 12
_BEATS = """
    create table beats (at timestamptz not null);
    create function note_beat() returns trigger language plpgsql as
        $$ begin insert into beats values (new.heartbeat_at); return null; end $$;
    create trigger note_beat after insert or update on billing_daemon_status
        for each row execute function note_beat();
"""


class Way:
    """Route from the daemon to the pair: for each server a proxy that cuts commits, and a gate behind it."""

    def __init__(self, pair: Pair, stack: ExitStack) -> None:
        self._nodes = (pair.primary, pair.standby)
        self._gates = [Relay() for _ in self._nodes]
        self._proxies = [stack.enter_context(CommitProxy("127.0.0.1", gate.port)) for gate in self._gates]
        for gate in self._gates:
            stack.callback(gate.close)
        self.open()
        self.conninfo = make_conninfo(
            pair.primary.conninfo(),
            host=",".join("127.0.0.1" for _ in self._proxies),
            port=",".join(str(proxy.port) for proxy in self._proxies),
        )

    @property
    def cuts(self) -> int:
        """How many commits were cut."""
        return sum(proxy.fired for proxy in self._proxies)

    def open(self) -> None:
        """Open the gates."""
        for gate, node in zip(self._gates, self._nodes, strict=True):
            gate.resume((node.address, PORT))

    def shut(self) -> None:
        """Close every connection and accept none, while the servers run on."""
        for gate in self._gates:
            gate.refuse()

    def cut(self, where: Where, table: str) -> None:
        """Cut the next commit that writes into a table, wherever it arrives."""
        for proxy in self._proxies:
            proxy.arm(where, interesting=mentions(f"insert into {table}"))

    def writes(self) -> bool:
        """Whether a server that accepts writes is reachable by this route."""
        with psycopg.connect(self.conninfo, connect_timeout=2, target_session_attrs="read-write"):
            return True


class Day:
    """The daemon, the faults of its day, and the log of both."""

    def __init__(self, pair: Pair, way: Way, daemon: Daemon, report: Report, began: float) -> None:
        self._pair, self._way, self._daemon, self._report = pair, way, daemon, report
        self._began = began
        self._away: list[tuple[float, float]] = []
        self._beats: set[datetime] = set()

    def until(self, hour: float) -> None:
        """Run until an hour of the day."""
        pause = threading.Event()
        while (now := self._hour()) < hour:
            if self._daemon.process.poll() is not None:
                raise AssertionError(f"the daemon ended at hour {now:.1f}\n{self._daemon.log()}")
            if now * SAMPLES > (len(self._report.memory_kilobytes) + 1) * self._report.hours:
                self._report.memory_kilobytes.append(resident_kilobytes(self._daemon.pid))
            pause.wait(min((hour - now) * 3600 / self._report.speed, 0.05))

    def cut(self, where: Where, table: str) -> None:
        """Cut the next commit of a kind."""
        self._way.cut(where, table)

    def restart(self) -> None:
        """Restart the server in order."""
        with self._without_a_server("a restart"):
            self._pair.primary.stop()
            self._pair.primary.start(self._pair.settings)

    def crash(self) -> None:
        """Crash the server and let it recover."""
        with self._without_a_server("a crash"):
            self._pair.primary.kill()
            self._pair.primary.start(self._pair.settings)

    def out_of_reach(self) -> None:
        """Close the route for a while; the server runs on."""
        hours = AWAY_SHARE * self._report.hours
        with self._without_a_server(f"{hours * 60:.0f} minutes out of reach"):
            self._way.shut()
            self.until(self._hour() + hours)
            self._way.open()

    def stop_replication(self) -> None:
        """Stop the replication stream from here on."""
        self._pair.follow()
        self._pair.stall()

    def promote(self) -> None:
        """Kill the primary and promote the replica; what was not replicated is lost."""
        before = self._runs(self._pair.primary)
        with self._without_a_server("a promotion"):
            self._pair.kill(hard=True)
            self._pair.promote()
        lost = before - self._runs(self._pair.primary)
        self._report.runs_lost += lost
        self._report.suffered[-1] += f" without the last {lost} runs"

    def rejoin(self) -> None:
        """Make the dead server the replica of the other; the primary stops for as long as its files are copied."""
        with self._without_a_server("the return of the dead server as a replica"):
            self._pair.rejoin()

    def read_beats(self) -> None:
        """Save the heartbeats of the primary before a failover loses some."""
        with psycopg.connect(self._pair.primary.conninfo(), autocommit=True) as conn:
            self._beats |= {at for (at,) in conn.execute("select at from beats").fetchall()}

    def judge_beats(self) -> None:
        """Find the longest gap between two beats, without the time in which the server was away."""
        beats = sorted(self._beats)
        gaps = [
            (later - earlier).total_seconds() - self._away_between(earlier.timestamp(), later.timestamp())
            for earlier, later in itertools.pairwise(beats)
        ]
        self._report.beats, self._report.longest_gap_seconds = len(beats), max(gaps)
        at = beats[gaps.index(max(gaps))] - BEGIN
        self._report.longest_gap_at_hour = at.total_seconds() / 3600
        self._report.away_seconds = sum(end - start for start, end in self._away)

    def _away_between(self, earlier: float, later: float) -> float:
        return sum(max(0.0, min(later, end) - max(earlier, start)) for start, end in self._away)

    @contextmanager
    def _without_a_server(self, why: str) -> Iterator[None]:
        self.read_beats()
        start = self._database_time()
        yield
        eventually(self._way.writes)
        self._away.append((start, self._database_time()))
        self._report.suffered.append(why)

    def _database_time(self) -> float:
        """Reading of the database's clock, also while no server runs: it advances with the clock of this machine."""
        return BEGIN.timestamp() + (time.time() - self._began) * self._report.speed

    def _hour(self) -> float:
        return (time.time() - self._began) * self._report.speed / 3600

    def _runs(self, node: Node) -> int:
        return int(node.one("select count(*) from billing_runs where outcome = 'completed'"))


BEGIN = (datetime.now(UTC) - timedelta(days=90)).replace(minute=0, second=0, microsecond=0)
Step = tuple[float, Callable[[Day], None]]
# What happens at which share of the day.
COURSE: tuple[Step, ...] = (
    (0.08, lambda day: day.cut("before", "vps_billing_cycles")),
    (0.14, lambda day: day.cut("during", "billing_daemon_status")),
    (0.20, Day.restart),
    (0.25, lambda day: day.cut("after", "vps_billing_cycles")),
    (0.31, Day.out_of_reach),
    (0.37, lambda day: day.cut("before", "billing_daemon_status")),
    (0.42, Day.stop_replication),
    (0.47, Day.promote),
    (0.54, lambda day: day.cut("during", "vps_billing_cycles")),
    (0.60, Day.rejoin),
    (0.66, Day.crash),
    (0.71, lambda day: day.cut("after", "billing_daemon_status")),
    (0.76, Day.stop_replication),
    (0.81, Day.promote),
    (0.88, lambda day: day.cut("before", "vps_billing_cycles")),
    (0.93, Day.restart),
)
SHORT_COURSE = tuple(step for step in COURSE if step[0] not in {0.60, 0.66, 0.76, 0.81})


def live(
    directory: Path,
    *,
    hours: float,
    speed: float,
    seed: int,
    course: tuple[Step, ...] = COURSE,
    **settings: str,
) -> Report:
    """Run a day and judge it."""
    report = Report(hours, speed, int(settings.setdefault("HEARTBEAT_SECONDS", "60")))
    with ExitStack() as stack:
        servers = Servers(stack.enter_context(scratch()))
        stack.callback(servers.stop)
        pair = servers.pair()
        way = Way(pair, stack)
        began = _begin(pair, speed)
        daemon = daemons.start(
            directory, way.conninfo, speed, TEST_LEASE_SECONDS=str(LEASE_SECONDS), **settings
        )
        stack.callback(daemon.kill)
        pid, day = daemon.pid, Day(pair, way, daemon, report, began)
        with Workload(pair.conninfo, seed, pause_seconds=0.3) as crowd:
            for share, happens in course:
                day.until(share * hours)
                happens(day)
            day.until(hours)
        report.changes, report.cuts = sum(crowd.counts.values()), way.cuts
        report.one_process = daemon.row().metadata["pid"] == pid == daemon.process.pid
        report.exit_code = daemon.stop()
        day.read_beats()
        day.judge_beats()
        _judge(pair, report)
    return report


def _begin(pair: Pair, speed: float) -> float:
    """Make the fleet, let time pass, and return when by this machine's clock it began."""
    with psycopg.connect(pair.primary.conninfo(), autocommit=True) as conn:
        oracle.install(conn)
        clock.start_clock(conn, BEGIN)
        run_billing(_order(pair, conn))  # the policy of the first run holds since ever
        make_fleet(conn)
        conn.execute(_BEATS.encode())
        clock.set_clock(conn, BEGIN, speed)
        (began,) = conn.execute("select since from oracle.clock").fetchone() or (None,)
    pair.follow()
    assert isinstance(began, datetime)
    return began.timestamp()


def _order(pair: Pair, conn: psycopg.Connection[tuple[object, ...]]) -> RunOrder:
    now = clock.read_clock(conn)
    return RunOrder(
        pair.conninfo, Terms(), "test", "last-run", as_of=now, host_clock=lambda: now, wait_seconds=10
    )


def _judge(pair: Pair, report: Report) -> None:
    """Stop the clock, charge what became due since the daemon's last run, and return the findings of oracle and `verify`."""
    with psycopg.connect(pair.primary.conninfo(), autocommit=True) as conn:
        runs = conn.execute("select coalesce(outcome, 'open'), count(*) from billing_runs group by 1")
        report.runs = dict(runs.fetchall())
        clock.set_clock(conn, at=clock.highest(conn), speed=0)
        for _ in range(_LAST_RUNS):
            result = run_billing(_order(pair, conn))
            if result.outcome is not Outcome.COMPLETED:
                report.findings.append(f"a last run {result.outcome}: {result.error_message}")
            elif not result.hours:
                break
        report.verdict = oracle.judge(conn)
    report.findings += [f"oracle: {line}" for line in report.verdict.lines]
    report.findings += [f"verify: {one}" for one in verify(pair.primary.conninfo()).discrepancies]
    report.judge()


def resident_kilobytes(pid: int) -> int:
    """The memory of a process that is resident now; one that has ended has none."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next((line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")), 0))


def main() -> int:
    """Run a day and print its report; 1 when something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.faultlab.day", description=__doc__)
    parser.add_argument("--hours", type=float, default=24)
    parser.add_argument("--speed", type=float, default=120, help="how many hours pass in one (default 120)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="containerstacks-day-") as directory:
        report = live(Path(directory), hours=chosen.hours, speed=chosen.speed, seed=chosen.seed)
    print(f"seed       {chosen.seed}\n{report.text()}")
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
