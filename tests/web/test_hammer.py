"""The application side under fire, and a daemon beside it that does not notice: real processes, one database."""

from __future__ import annotations

import http.client
import random
import socket
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlsplit

import psycopg
import pytest
from tests.command import Command
from tests.daemons import PATIENCE_SECONDS, Start, eventually
from tests.fleet import Fleet
from tests.served import Serve
from tests.web.client import ADMIN_TOKEN, bearer

from containerstacks_billing.settings import Settings
from containerstacks_billing.web.app import create_application

PATHS = [
    *create_application(Settings.model_validate({}), "dbname=none").openapi()["paths"],
    "/status",
    "/status/events",
]
JUNK = [
    "",
    "0",
    "-1",
    "9" * 40,
    "1e9",
    "null",
    "\0",
    "é\U0001f4a3",
    "' or 1=1 --",
    "../../etc/passwd",
    "a" * 3000,
]
BEAT_SECONDS = 2


class Hammer:
    """Threads that ask for anything, at once and without end; what came back is counted by its status."""

    def __init__(self, address: str, seed: int) -> None:
        self._place = urlsplit(address)
        self._seed = seed
        self._stopping = threading.Event()
        self.answers: Counter[int] = Counter()
        jobs: list[Callable[[random.Random], None]] = [self._ask] * 4 + [self._dawdle, self._flood]
        self._threads = [threading.Thread(target=self._repeat, args=(i, job)) for i, job in enumerate(jobs)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(180)
            assert not thread.is_alive()

    def _repeat(self, number: int, job: Callable[[random.Random], None]) -> None:
        chance = random.Random(self._seed * 100 + number)
        while not self._stopping.is_set():
            with suppress(OSError, http.client.HTTPException):
                job(chance)

    def _connect(self) -> socket.socket:
        return socket.create_connection((self._place.hostname, self._place.port), timeout=5)

    def _ask(self, chance: random.Random) -> None:
        """A request that means something, or nearly."""
        names = ["limit", "before", "days", chance.choice(["x", "organization"])]
        query = "&".join(
            f"{name}={quote(chance.choice(JUNK))}" for name in chance.sample(names, chance.randint(0, 3))
        )
        headers = chance.choice(
            [bearer(ADMIN_TOKEN), bearer(ADMIN_TOKEN), {}, bearer("e30.e30."), {"Cookie": "a=b"}]
        )
        connection = http.client.HTTPConnection(
            str(self._place.hostname), self._place.port, timeout=PATIENCE_SECONDS
        )
        try:
            method = chance.choice(["GET"] * 6 + ["POST", "DELETE", "HEAD", "PUT"])
            connection.request(method, f"{chance.choice(PATHS)}?{query}", headers=headers)
            answer = connection.getresponse()
            answer.read1(4096)  # the beginning of a stream is enough
            self.answers[answer.status] += 1
        finally:
            connection.close()

    def _dawdle(self, chance: random.Random) -> None:
        """Fifty connections that begin a request and never end it."""
        idle = []
        try:
            for _ in range(50):
                idle.append(self._connect())
                idle[-1].sendall(b"GET /status HTTP/1.1\r\nHost: x\r\nX-Slow: "[: chance.randint(0, 40)])
            self._stopping.wait(0.5)
        finally:
            for connection in idle:
                connection.close()

    def _flood(self, chance: random.Random) -> None:
        """Megabytes in a header, or in a body that nobody asked for."""
        with self._connect() as connection:
            head = b"POST /status/sign-in HTTP/1.1\r\nHost: x\r\n"
            connection.sendall(head + chance.choice([b"X-Large: ", b"Content-Length: 99999999\r\n\r\n"]))
            for _ in range(32):
                connection.sendall(b"a" * 65536)


def note_beats(conn: psycopg.Connection[Any]) -> None:
    """Keep when each heartbeat was written, by the real clock."""
    conn.execute("create table beats (at timestamptz not null default clock_timestamp())")
    conn.execute(
        "create function note_beat() returns trigger language plpgsql as"
        " $$ begin insert into beats default values; return null; end $$"
    )
    conn.execute(
        "create trigger note_beat after insert or update on billing_daemon_status for each row execute function note_beat()"
    )


@pytest.mark.parametrize("beats", [4, pytest.param(60, marks=pytest.mark.slow)])
def test_a_hammered_application_side_delays_no_heartbeat(
    conn: psycopg.Connection[Any], start: Start, served: Serve, command: Command, beats: int
) -> None:
    """The daemon bills and beats; no answer is a 5xx but "not now", and memory stays. The long form times the beats."""
    fleet = Fleet(conn)
    organization, plan = fleet.organization("1000.00"), fleet.plan("7.30")
    for _ in range(200):
        fleet.instance(organization, plan)
    fleet.hours(2)
    note_beats(conn)
    seed = 20260301 if beats == 4 else random.randrange(2**31)  # drawn at night only
    print(f"seed {seed}")
    side = served(BUILT_IN_BILLING="off")
    with Hammer(side.address, seed) as hammer:
        eventually(lambda: hammer.answers.total() > 20)
        daemon = start(HEARTBEAT_SECONDS=str(BEAT_SECONDS), BILLING_BATCH_SIZE="20")
        daemon.when(lambda row: row.last_run_success)
        daemon.until(lambda: len(fleet.rows("select from beats")) > beats)
    assert 0 == daemon.stop()

    gaps = fleet.rows("select extract(epoch from at - lag(at) over (order by at)) as gap from beats")
    longest = max(row.gap for row in gaps[1:])
    print(
        f"longest gap {longest:.2f} s of {len(gaps)} beats every {BEAT_SECONDS} s; answers {dict(hammer.answers)}"
    )
    if beats == 60:  # in the nightly, which has the machine to itself
        assert longest <= 1.5 * BEAT_SECONDS
    assert {status for status in hammer.answers if status >= 500} <= {503}
    assert 200 in hammer.answers
    assert 200 == len(fleet.rows("select from vps_billing_cycles where status = 'billed'"))
    resident = Path(f"/proc/{side.process.pid}/status").read_text().partition("VmRSS:")[2].split()[0]
    assert int(resident) < 200_000
    assert 0 == command("verify", environment={"DATABASE_URL": fleet.conninfo}).returncode
