"""The status page without a browser: sessions, streams, headers, and how it writes."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from tests.browser import scenes
from tests.clock import application_side
from tests.web.client import ADMIN_TOKEN, client_of, serving

from containerstacks_billing.database.connection import connect
from containerstacks_billing.errors import DatabaseUnavailable
from containerstacks_billing.status.model import RunRecord
from containerstacks_billing.status.read import ask_details, read_status
from containerstacks_billing.web import formatting as writing
from containerstacks_billing.web import sessions
from containerstacks_billing.web import sse as stream
from containerstacks_billing.web.chart import HEIGHT, chart_of
from containerstacks_billing.web.sessions import Sessions

NOW = datetime(2026, 3, 1, 12, 20, tzinfo=UTC)


def test_a_session_ends_with_its_bearer_its_time_or_its_sign_out() -> None:
    """Whatever comes first; an unknown cookie is nobody's."""
    clock = [0.0]
    valid = {"first": True, "second": True}
    known = Sessions(lambda bearer: valid[bearer], lambda: clock[0])
    first, second = known.begin("anna", "first"), known.begin("bert", "second")
    assert [None, None] == [known.find(None), known.find("guess")]

    valid["first"] = False
    assert known.find(first) is not None
    clock[0] = sessions.RECOGNISE_AGAIN_SECONDS
    assert known.find(first) is None
    valid["first"] = True
    assert known.find(first) is None

    found = known.find(second)
    assert found is not None
    assert (True, False) == (sessions.carries(found, found.csrf), sessions.carries(found, ""))
    clock[0] = sessions.LIFETIME_SECONDS
    assert known.find(second) is None


def test_sessions_are_bounded_and_outlast_a_database_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest ends when there are too many; an outage signs nobody out."""
    monkeypatch.setattr(sessions, "SESSIONS", 2)
    clock = [0.0]

    def away(bearer: str) -> bool:
        raise DatabaseUnavailable("The database does not answer.")

    known = Sessions(away, lambda: clock[0])
    cookies = [known.begin("anna", "bearer") for _ in range(3)]
    clock[0] = sessions.RECOGNISE_AGAIN_SECONDS
    assert [False, True, True] == [known.find(cookie) is not None for cookie in cookies]


def test_the_policy_is_strict_and_nothing_is_inline(conn: psycopg.Connection[Any]) -> None:
    """No inline script or style, no other host, no frame; files are found relative to the page, wherever it is mounted."""
    fleet = scenes.fleet_of(conn)
    scenes.on_duty(fleet)
    with client_of(fleet.conninfo) as client:
        answer = client.get("/status")
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert [] == [
            bad
            for bad in (" style=", "<style", " onclick", "http://", "https://", '="/')
            if bad in answer.text
        ]
        for name in ("status.css", "status.js", "inter.woff2", "icon.svg"):
            assert 200 == client.get(f"/status/{name}").status_code
        assert 404 == client.get("/status/inter.LICENSE").status_code


def test_figures_want_a_session_and_a_bearer_is_none(conn: psycopg.Connection[Any]) -> None:
    """The page of an admin follows from the cookie alone, and signing out ends it on the server too."""
    fleet = scenes.fleet_of(conn)
    scenes.on_duty(fleet)
    with client_of(fleet.conninfo) as client:
        assert "Acme" not in client.get("/status", headers={"Authorization": f"Bearer {ADMIN_TOKEN}"}).text
        answer = client.post("/status/sign-in", data={"token": ADMIN_TOKEN}, follow_redirects=False)
        assert (303, "../status") == (answer.status_code, answer.headers["Location"])
        cookie = answer.headers["Set-Cookie"]
        assert all(part in cookie for part in ("HttpOnly", "SameSite=strict", "Max-Age=43200"))
        assert "Path" not in cookie
        held = {"Cookie": cookie.partition(";")[0]}
        page = client.get("/status", headers=held).text
        assert "Acme" in page
        csrf = page.partition('name="csrf" value="')[2].partition('"')[0]
        client.post("/status/sign-out", data={"csrf": csrf}, headers=held)
        client.cookies.clear()
        assert "Acme" not in client.get("/status", headers=held).text


def words(fleet: Any) -> str:
    """The text of the page, without its marks."""
    with client_of(fleet.conninfo) as client:
        return " ".join(re.sub(r"<[^>]+>", " ", client.get("/status").text).split())


def test_a_silent_daemon_is_counted_down_and_its_run_is_overdue(conn: psycopg.Connection[Any]) -> None:
    """It is not on duty, nobody bills, and the page says until when."""
    fleet = scenes.fleet_of(conn)
    scenes.silent(fleet)
    page = words(fleet)
    for said in (
        "The billing daemon is silent",
        "Silent, last heartbeat 1 h 20 min ago",
        "Built-in billing takes over in 0:10:00",
        "Bills at present nothing",
        "Overdue",
        "Daemon Silent",
    ):
        assert said in page
    assert "on duty" not in page


def test_page_and_command_count_the_same_wallets(conn: psycopg.Connection[Any]) -> None:
    """Two within 3 hours, one of them owes already; one within 24 and one within 72."""
    fleet = scenes.fleet_of(conn)
    scenes.on_duty(fleet)
    expected = {3: 2, 24: 1, 72: 1}
    with connect(fleet.conninfo, purpose="reading") as connection:
        assert expected == read_status(connection).runways
        assert expected == ask_details(connection)().levels


def test_without_a_daemon_nothing_waits_for_one(conn: psycopg.Connection[Any]) -> None:
    """Built-in billing takes over at once, and then bills; no daemon failed."""
    fleet = scenes.fleet_of(conn)
    assert "Heartbeat none yet Nothing takes over: no application side has looked" in words(fleet)
    application_side(fleet)
    assert "Heartbeat none yet Built-in billing takes over at once" in words(fleet)
    scenes.without_daemon(fleet)
    page = words(fleet)
    assert "Bills at present built-in billing" in page
    assert not re.search("failed|taken over|90", page.partition("Recent runs")[0])


def test_a_stream_tells_news_once_and_ends_with_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look that finds nothing new says nothing; ending leaves no stream behind."""
    monkeypatch.setattr(stream, "POLL_SECONDS", 0.0)
    streams = stream.Streams()
    looks = iter(["a", "a", "b", "b"])

    async def look(before: object) -> tuple[object, str, dict[str, object] | None]:
        seen = next(looks, None)
        if seen is None:
            streams.end()
        return seen or before, "now", {"page": seen} if seen and seen != before else None

    async def told(pieces: AsyncIterator[str]) -> list[str]:
        return [piece async for piece in pieces]

    # In a thread of its own: a browser that another test holds open keeps a loop running in this one.
    with ThreadPoolExecutor(1) as thread:
        pieces = thread.submit(lambda: asyncio.run(told(streams.pieces(look, "203.0.113.7")))).result()
    news = [
        json.loads(piece.partition("data: ")[2])["page"]
        for piece in pieces
        if piece.startswith("event: state")
    ]
    assert ["a", "b"] == news
    assert streams.full("203.0.113.7")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (3600, "1 h"),
        (5400, "1 h 30 min"),
        (90000, "1 d 1 h"),
    ],
)
def test_durations_are_written_in_two_units(seconds: int, text: str) -> None:
    """The script writes them alike."""
    assert text == writing.duration(timedelta(seconds=seconds))


def test_instants_are_utc_in_a_text_that_scripts_can_read() -> None:
    """Shown without a script, rewritten with one."""
    text = writing.instant(NOW)
    assert 'datetime="2026-03-01T12:20:00Z"' in text
    assert 'title="2026-03-01 12:20:00 UTC">01 Mar 2026, 12:20 UTC<' in text
    assert ">1:30:00<" in writing.countdown(NOW + timedelta(minutes=90), NOW)


def test_a_server_that_stops_does_not_wait_for_who_looks_on(conn: psycopg.Connection[Any]) -> None:
    """A stream is open when the server is told to end; it is ended in good order, and not cut off when patience is over."""
    with serving(scenes.fleet_of(conn).conninfo) as address:
        looking = http.client.HTTPConnection(*address, timeout=180)
        looking.request("GET", "/status/events")
        answer = looking.getresponse()
        assert (200, "text/event-stream; charset=utf-8") == (answer.status, answer.getheader("Content-Type"))
        assert b"retry: 2000\n" == answer.readline()
    assert b'"admin": false' in answer.read()
    looking.close()


def test_what_charged_nothing_is_a_mark_at_the_base_and_no_amount() -> None:
    """Failed, held and interrupted runs stand on the scale of amounts; for the public every run is one mark of a strip."""
    runs = [record(3, "failed", 0), record(2, "interrupted", 40), record(1, "completed", 100)]
    drawn = chart_of(runs, figures=True)
    assert [HEIGHT, HEIGHT * 0.4, 9.0] == [bar.height for bar in drawn.bars]
    assert [HEIGHT] * 3 == [bar.height for bar in chart_of(runs, figures=False).bars]
    assert {"completed": 1, "interrupted": 1, "failed": 1} == drawn.counts
    assert [3, 2] == [run.run_id for run in drawn.odd]


def record(number: int, outcome: str, amount: int) -> RunRecord:
    return RunRecord(number, outcome, "daemon", "h", None, NOW, NOW, NOW, 1, 1, 1, Decimal(1), Decimal(amount), 0, 0, 0, 1, 1.0, None)  # fmt: skip


def test_every_run_that_is_drawn_has_a_row_and_how_it_ended_is_written(conn: psycopg.Connection[Any]) -> None:
    """47 runs, 47 rows for admins; the public reads what colours and hovering say."""
    fleet = scenes.fleet_of(conn)
    scenes.on_duty(fleet)
    with client_of(fleet.conninfo) as client:
        public = " ".join(re.sub(r"<[^>]+>", " ", client.get("/status").text).split())
        client.post("/status/sign-in", data={"token": ADMIN_TOKEN})
        admin = client.get("/status").text
    table = admin.partition("<tbody>")[2].partition("</tbody>")[0]
    assert 47 == table.count('<th scope="row"')
    assert "45 completed 1 interrupted 1 failed" in public
    assert "Did not complete: interrupted 01 Mar 2026, 00:00 UTC , failed 28 Feb 2026, 05:00 UTC" in public
    assert 'class="scale zero">0<' in admin
    for said in ("118 h due", "first seen"):
        assert said in admin
