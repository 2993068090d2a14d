"""The console over HTTP: who may see which page, forms of other sites, and decisions of pages and API."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from tests.fleet import Fleet
from tests.web.client import ADMIN_TOKEN, bearer, client_of

from containerstacks_billing.tokens import store as tokens
from containerstacks_billing.tokens.model import PREFIX, hash_of
from containerstacks_billing.web.plot import Point, plot_of

PAGES = ("charts", "runs", "decisions", "prices", "deliveries", "verification")


@pytest.fixture
def fleet(conn: psycopg.Connection[Any]) -> Fleet:
    return Fleet(conn)


def token_of(fleet: Fleet, *scopes: str) -> str:
    """A token with some scopes."""
    text = PREFIX + "B" * 43
    assert tokens.create(fleet.conn, "scoped", hash_of(text), "test", 1, scopes) is not None
    return text


def held(fleet: Fleet) -> str:
    """An instance with 100 hours due, which are held."""
    late = fleet.instance(fleet.organization("900.00"), fleet.plan("730.00"))
    fleet.hours(100)
    fleet.bill()
    return str(late)


def csrf_of(text: str) -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', text)
    assert found is not None
    return found[1]


def test_a_page_leads_to_the_sign_in_and_back(fleet: Fleet) -> None:
    """A copied address shows the same to who may see it; no address leads to another site."""
    with client_of(fleet.conninfo) as client:
        for path in PAGES:
            answer = client.get(f"/status/{path}", follow_redirects=False)
            assert (303, f"sign-in?to={path}") == (answer.status_code, answer.headers["location"])
        answer = client.get("/status/runs/7?x=1", follow_redirects=False)
        assert "../sign-in?to=runs%2F7%3Fx%3D1" == answer.headers["location"]
        for wanted, place in (
            ("runs?outcome=failed", "runs?outcome=failed"),
            ("//example.org", "../status"),
            ("https://example.org", "../status"),
            ("../../x", "../status"),
        ):
            form = {"token": ADMIN_TOKEN, "to": wanted}
            answer = client.post("/status/sign-in", data=form, follow_redirects=False)
            assert (303, place) == (answer.status_code, answer.headers["location"])


def test_scopes_bound_what_a_session_sees(fleet: Fleet) -> None:
    """A token that reads sees no customers and decides nothing."""
    late = held(fleet)
    with client_of(fleet.conninfo) as client:
        client.post("/status/sign-in", data={"token": token_of(fleet, "read")})
        for path in PAGES:
            assert 200 == client.get(f"/status/{path}").status_code
        for path in ("organizations", f"instances/{late}", "release", "release-run"):
            answer = client.get(f"/status/{path}")
            assert (403, True) == (answer.status_code, "lacks the scope" in answer.text)
        page = client.get("/status/decisions").text
        assert 403 == client.post("/status/release", data={"csrf": csrf_of(page)}).status_code


def test_a_decision_needs_a_form_of_the_session_a_preview_and_a_reason(fleet: Fleet) -> None:
    """Another site's form changes nothing; nor does a preview, or a form without a reason."""
    late = held(fleet)
    with client_of(fleet.conninfo) as client:
        client.post("/status/sign-in", data={"token": ADMIN_TOKEN})
        form = {"instance": late, "decision": "waive", "reason": "our fault", "step": "decide"}
        assert 403 == client.post("/status/release", data=form | {"csrf": "guess"}).status_code
        own = form | {"csrf": csrf_of(client.get("/status/release").text)}
        foreign = {"Origin": "https://example.org", "Sec-Fetch-Site": "cross-site"}
        assert 403 == client.post("/status/release", data=own, headers=foreign).status_code
        assert 422 == client.post("/status/release", data=own | {"reason": " "}).status_code
        preview = client.post("/status/release", data=own | {"step": "preview"})
        assert (200, True) == (preview.status_code, "100.00 USD" in preview.text)
        assert [] == fleet.rows("select from billing_decisions")
        done = client.post("/status/release", data=own, follow_redirects=False)
        assert (303, "decisions") == (done.status_code, done.headers["location"])
        assert 409 == client.post("/status/release", data=own | {"step": "preview"}).status_code
    assert [("waive", "ADMIN_TOKEN", "our fault")] == [
        tuple(row) for row in fleet.rows("select decision, decided_by, reason from billing_decisions")
    ]


def test_a_held_run_is_released_by_the_page_that_showed_it(fleet: Fleet) -> None:
    """The preview says what the next run would charge; the run that was looked at is the one that is released."""
    for _ in range(3):
        fleet.instance(fleet.organization("900.00"), fleet.plan("730.00"))
    fleet.hours(1)
    fleet.bill()
    fleet.conn.execute(
        "insert into billing_runs (trigger, holder, fencing_token, as_of, host_clock, hours_per_month, started_at, finished_at,"
        " outcome, error_message) select 'daemon', 'host', 1, as_of, as_of, 730, started_at, started_at, 'held', 'too much'"
        " from billing_runs"
    )
    with client_of(fleet.conninfo) as client:
        client.post("/status/sign-in", data={"token": ADMIN_TOKEN})
        page = client.get("/status/release-run").text
        assert "too much" in page
        form = {"csrf": csrf_of(page), "run": "2", "reason": "it is right"}
        fleet.hours(1)
        assert "3.00 USD" in client.post("/status/release-run", data=form | {"step": "preview"}).text
        assert (
            409 == client.post("/status/release-run", data=form | {"step": "decide", "run": "1"}).status_code
        )
        done = client.post("/status/release-run", data=form | {"step": "decide"}, follow_redirects=False)
        assert 303 == done.status_code
    assert [("ADMIN_TOKEN", "it is right")] == [
        tuple(row)
        for row in fleet.rows(
            "select released_by, release_reason from billing_runs where released_at is not null"
        )
    ]


def test_the_api_decides_for_tokens_that_may(fleet: Fleet) -> None:
    """Without the scope 403, without a change 200, and then the decision with the name of the token."""
    late = held(fleet)
    order = {"decision": "cap", "hours": 10, "instance": late, "reason": "outage"}
    path = "/api/v1/holds/release"
    with client_of(fleet.conninfo) as client:
        assert (
            403
            == client.post(path, json=order, headers=bearer(token_of(fleet, "read", "finance"))).status_code
        )
        fleet.conn.execute("delete from billing_tokens")
        headers = bearer(token_of(fleet, "read", "decide"))
        assert 422 == client.post(path, json=order | {"hours": None}, headers=headers).status_code
        assert (
            422 == client.post(path, json=order | {"unknown": 1, "reason": ""}, headers=headers).status_code
        )
        shown = client.post(path, json=order, headers=headers).json()
        assert ("10.00", "90.00", True) == (shown["hoursApproved"], shown["hoursWaived"], shown["dryRun"])
        assert [] == fleet.rows("select from billing_decisions")
        done = client.post(path, json=order | {"step": "decide"}, headers=headers).json()
        assert (1, False, "token scoped") == (done["instances"], done["dryRun"], done["decidedBy"])
        held_run = client.post(
            "/api/v1/runs/1/release", json={"reason": "x", "step": "decide"}, headers=headers
        )
        assert (409, "application/problem+json") == (held_run.status_code, held_run.headers["content-type"])


def test_a_running_balance_goes_backwards_from_the_present_one(fleet: Fleet) -> None:
    """100.00 paid in, three hours at 1.00: the pages of the ledger agree about the balance after each entry."""
    acme = fleet.organization("100.00")
    fleet.instance(acme, fleet.plan("730.00"))
    for _ in range(3):
        fleet.hours(1)
        fleet.bill()
    with client_of(fleet.conninfo) as client:
        client.post("/status/sign-in", data={"token": ADMIN_TOKEN})
        text = client.get(f"/status/organizations/{acme}").text
    rows = re.findall(r'<td class="n">(-?\d+\.\d\d)</td><td class="n">(-?\d+\.\d\d)</td>', text)
    assert [("-1.00", "97.00"), ("-1.00", "98.00"), ("-1.00", "99.00")] == rows[:3]


def test_an_axis_of_time_shows_gaps_and_cuts_what_would_flatten_the_rest(fleet: Fleet) -> None:
    """Of 24 hours five are missing and one caught up 30-fold: the gap is as wide as five bars, the others keep a height."""
    hour = timedelta(hours=1)
    start = fleet.now.replace(minute=0, second=0, microsecond=0)
    values = {number: 10.0 for number in range(24) if not 10 <= number < 15} | {15: 300.0}
    points = [Point(start + number * hour, value) for number, value in sorted(values.items())]
    drawn = plot_of(points, start, start + 24 * hour, hour, lambda value: f"{value:.0f}")
    assert [(400.0, 200.0)] == [(gap.x, gap.width) for gap in drawn.gaps]
    assert 5 == drawn.missing
    assert ["300"] == [title.rsplit(" ", 1)[1] for title in drawn.cut]
    assert {96.0, 120.0} == {bar.height for bar in drawn.bars}
