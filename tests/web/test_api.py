"""What the API answers, from the rows that are given."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from starlette.testclient import TestClient
from tests.clock import heartbeat, hourly_fleet
from tests.fleet import Fleet
from tests.web.client import ADMIN_TOKEN, DAEMON, bearer, client_of

OPENAPI = Path(__file__).parents[2] / "docs" / "openapi.json"
AS_ADMIN = bearer(ADMIN_TOKEN)


@pytest.fixture
def fleet(conn: psycopg.Connection[Any]) -> Fleet:
    return Fleet(conn, at="2026-03-01 00:00")


@pytest.fixture
def client(fleet: Fleet) -> Iterator[TestClient]:
    with client_of(fleet.conninfo) as client:
        yield client


def test_the_page_of_the_host_finds_the_fields_that_it_reads(client: TestClient, fleet: Fleet) -> None:
    """Names and kinds as they were; amounts and hours are JSON numbers there."""
    fleet.conn.execute(
        "insert into billing_daemon_status (daemon_instance_id, status, last_run_at, last_run_success, instances_billed,"
        " total_amount, total_hours, error_message, started_at, heartbeat_at, metadata) values"
        " ('host-1', 'error', '2026-02-28 23:00Z', false, 7, 12.34, 21.5, 'disk full', '2026-02-28 20:00Z',"
        " '2026-02-28 23:59Z', '{\"next_run_at\": \"2026-03-01T00:00:00+00:00\"}')"
    )
    body = client.get(DAEMON, headers=AS_ADMIN).json()
    daemon = body["daemon"]

    assert (True, "2026-03-01T00:00:00Z") == (body["success"], body["timestamp"])
    expected = {
        "status": "error",
        "lastRun": "2026-02-28T23:00:00Z",
        "lastRunSuccess": False,
        "instancesBilled": 7,
        "totalAmount": 12.34,
        "totalHours": 21.5,
        "nextScheduledRun": "2026-03-01T00:00:00Z",
        "uptimeMinutes": 240,
        "isStale": False,
        "warningThresholdExceeded": False,
        "errorMessage": "disk full",
        "heartbeatAgeSeconds": 60.0,
        "biller": "daemon",
    }
    assert expected == {name: daemon[name] for name in expected}


def test_without_a_daemon_every_field_is_there_but_the_error(client: TestClient) -> None:
    """The first look at a new database is an answer too."""
    daemon = client.get(DAEMON, headers=AS_ADMIN).json()["daemon"]
    assert ("stopped", None, 0, 0.0, True, True, "nobody") == tuple(
        daemon[name]
        for name in (
            "status",
            "lastRun",
            "instancesBilled",
            "totalAmount",
            "isStale",
            "warningThresholdExceeded",
            "biller",
        )
    )
    assert "errorMessage" not in daemon


@pytest.mark.parametrize(
    ("age", "stale"), [(timedelta(minutes=89, seconds=59), False), (timedelta(minutes=90), True)]
)
def test_stale_is_ninety_minutes(client: TestClient, fleet: Fleet, age: timedelta, stale: bool) -> None:
    """The warning of the page, and the rule of built-in billing, are one rule."""
    heartbeat(fleet, age)
    daemon = client.get(DAEMON, headers=AS_ADMIN).json()["daemon"]
    assert (stale, stale, age.total_seconds()) == (
        daemon["isStale"],
        daemon["warningThresholdExceeded"],
        daemon["heartbeatAgeSeconds"],
    )


def test_a_long_interval_is_no_warning(fleet: Fleet) -> None:
    """Every three hours, and 100 minutes ago; the metrics give alerts the limits."""
    heartbeat(fleet, timedelta(minutes=1))
    fleet.conn.execute("update billing_daemon_status set last_run_at = heartbeat_at - interval '99 minutes'")
    for interval, late, seconds in (("60", True, 5400.0), ("180", False, 21600.0)):
        with client_of(fleet.conninfo, billing_interval_minutes=interval) as client:
            daemon = client.get(DAEMON, headers=AS_ADMIN).json()["daemon"]
            metrics = sample(client.get("/metrics").text)
        assert (late, seconds) == (daemon["warningThresholdExceeded"], metrics["late_after_seconds"])
        assert 300.0 == metrics["silent_after_seconds"]


@pytest.mark.parametrize("poison", ["'infinity'", "'-infinity'", "'294000-01-01'", "'0044-03-15 BC'"])
def test_a_status_row_of_nonsense_is_shown_as_far_as_it_makes_sense(
    client: TestClient, fleet: Fleet, poison: str
) -> None:
    """One row that no calendar holds must not blind the page."""
    fleet.conn.execute(
        "insert into billing_daemon_status (daemon_instance_id, status, last_run_at, started_at, heartbeat_at, total_amount,"
        f" total_hours, metadata) values ('<b>', 'running', {poison}, {poison}, {poison}, 'NaN', 'NaN',"
        ' \'{"next_run_at": "<script>"}\')'
    )
    answer = client.get(DAEMON, headers=AS_ADMIN)
    assert (200, 0.0) == (answer.status_code, answer.json()["daemon"]["totalAmount"])
    assert 200 == client.get("/metrics").status_code


def test_runs_are_listed_newest_first_and_page_by_page(client: TestClient, fleet: Fleet) -> None:
    """Money is a decimal string, exact."""
    hourly_fleet(fleet)
    for _ in range(3):
        fleet.hours(1)
        fleet.bill(trigger="daemon")
    first = client.get("/api/billing/runs?limit=2", headers=AS_ADMIN).json()
    second = client.get(f"/api/billing/runs?limit=2&before={first['nextBefore']}", headers=AS_ADMIN).json()

    shown = [
        (run["runId"], run["trigger"], run["outcome"], run["amount"])
        for run in first["runs"] + second["runs"]
    ]
    assert [
        (3, "daemon", "completed", "0.01"),
        (2, "daemon", "completed", "0.01"),
        (1, "daemon", "completed", "0.03"),
    ] == shown
    assert (2, None) == (first["nextBefore"], second["nextBefore"])


def test_the_summary_adds_up_the_runs_of_a_while(client: TestClient, fleet: Fleet) -> None:
    """A day, a week, thirty days; and what could not be billed."""
    hourly_fleet(fleet)
    fleet.bill()
    fleet.hours(48)
    fleet.instance(fleet.rows("select id from organizations")[0].id, "no such plan")
    fleet.hours(2)
    fleet.bill()
    summary = client.get("/api/billing/summary", headers=AS_ADMIN).json()

    assert (
        {"runs": 1, "hours": "50.00", "amount": "0.50"},
        {"runs": 2, "hours": "52.00", "amount": "0.52"},
    ) == (
        summary["day"],
        summary["week"],
    )
    assert (1, 0, {"no plan": 1}) == (
        summary["quarantinedInstances"],
        summary["heldInstances"],
        summary["setAside"],
    )


def sample(text: str) -> dict[str, float]:
    lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name.removeprefix("containerstacks_billing_"): float(value) for name, _, value in lines}


def test_metrics_are_right_when_the_daemon_is_dead(client: TestClient, fleet: Fleet) -> None:
    """They come from the tables; the time is the database's."""
    hourly_fleet(fleet)
    fleet.bill(trigger="built-in")
    heartbeat(fleet, timedelta(minutes=100))
    fleet.hours(0.5)
    answer = client.get("/metrics")
    metrics = sample(answer.text)

    ended = (fleet.now - timedelta(hours=0.5)).timestamp()
    expected = {
        "database_up": 1,
        "schema_ok": 1,
        "heartbeat_age_seconds": 7800,
        "daemon_active": 0,
        "built_in_active": 1,
        'biller{biller="built-in"}': 1,
        'daemon_status{status="running"}': 1,
        "last_run_timestamp_seconds": ended,
        "last_successful_run_timestamp_seconds": ended,
        'last_run_outcome{outcome="completed"}': 1,
        "last_run_instances": 1,
        "last_run_usage_seconds": 7200,
        "last_run_amount": 0.02,
        "past_due_instances": 0,
        "quarantined_instances": 0,
        "held_instances": 0,
        "lease_held": 0,
        "run_in_progress": 0,
        "events_pending": 0,
        "events_dead": 0,
    }
    assert expected == {name: metrics.get(name) for name in expected}
    assert metrics["clock_difference_seconds"] < 0
    assert "Organization" not in answer.text


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/api/health"])
def test_probes_need_no_token(client: TestClient, path: str) -> None:
    """They say a word and nothing more."""
    assert 200 == client.get(path).status_code


def test_a_schema_of_another_version_is_not_ready(client: TestClient, fleet: Fleet) -> None:
    """A load balancer that routes by readiness sends no request here."""
    fleet.conn.execute("delete from schema_migrations where version = 1")
    answer = client.get("/readyz")
    assert (503, "application/problem+json") == (answer.status_code, answer.headers["content-type"])
    assert "schema_ok 0.0" in client.get("/metrics").text


def test_errors_are_problems_and_repeat_nothing(client: TestClient) -> None:
    """Every error is an RFC 9457 document and does not echo the request."""
    asked = {
        "/nowhere": 404,
        "/docs/..%2f..%2fapplication.py": 404,
        "/docs/nothing": 404,
        "/api/billing/runs?limit=<script>": 422,
        "/api/billing/runs?limit=0": 422,
        f"/api/billing/runs?before={2**63}": 422,
    }
    for path, status in asked.items():
        answer = client.get(path, headers=AS_ADMIN)
        body = answer.json()
        assert (status, status, "application/problem+json") == (
            answer.status_code,
            body["status"],
            answer.headers["content-type"],
        )
        assert "script" not in answer.text
    assert b"" == client.head("/nowhere").content
    refused = client.post("/api/billing/runs")
    assert (405, "GET, HEAD", 405) == (
        refused.status_code,
        refused.headers["allow"],
        refused.json()["status"],
    )


@pytest.mark.parametrize(
    "path", ["/healthz", "/docs", "/docs/swagger-ui.css", "/openapi.json", "/metrics", "/nowhere", DAEMON]
)
def test_every_answer_tells_the_browser_to_be_strict(client: TestClient, path: str) -> None:
    """Nothing from another host, no script inside a page, no frame around it, no guessing of types."""
    headers = client.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    assert ("nosniff", "no-referrer") == (headers["x-content-type-options"], headers["referrer-policy"])


def test_the_documentation_names_no_other_host(client: TestClient) -> None:
    """It works where nothing but this host is reachable; its parts are there."""
    page = client.get("/docs").text
    assert "http" not in page.replace("<!doctype html>", "")
    for name in ("swagger-ui-bundle.js", "swagger-ui.css", "dark.css", "start.js"):
        assert f"docs/{name}" in page
        assert 200 == client.get(f"/docs/{name}").status_code


def test_the_documentation_speaks_of_what_a_path_is_for(client: TestClient) -> None:
    """A summary is words for people, and not the name of a function."""
    paths = client.get("/openapi.json").json()["paths"]
    summaries = {path: one["summary"] for path, operations in paths.items() for one in operations.values()}
    assert "Whether the process is alive" == summaries["/healthz"]
    assert [] == [path for path, text in summaries.items() if text.istitle()]


def test_the_address_alone_leads_to_the_page(client: TestClient) -> None:
    """Relative, so that it holds where the application is mounted."""
    answer = client.get("/", follow_redirects=False)
    assert (307, "status") == (answer.status_code, answer.headers["location"])
    assert 200 == client.get("/").status_code


def get_at_once(client: TestClient, paths: Iterable[str], headers: dict[str, str]) -> list[Any]:
    """Ask for all of them at the same time: without a database each takes as long as a connection is waited for."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda path: client.get(path, headers=headers), paths))


def test_secrets_are_in_no_answer_and_no_log(fleet: Fleet, capfd: pytest.CaptureFixture[str]) -> None:
    """Not the tokens, not the password of the database; not in errors either."""
    from containerstacks_billing import logs

    secret, password = "a-configured-secret-of-30-chars", "pass-word-of-the-database"
    conninfo = f"host=127.0.0.1 port=1 dbname=x user=y password={password}"
    logs.configure("debug", secrets=(secret, password))
    texts = []
    for database in (fleet.conninfo, conninfo):
        with client_of(database, admin_token=secret) as client:
            paths = (
                "/metrics",
                DAEMON,
                "/api/health",
                "/readyz",
                "/api/billing/runs",
                "/openapi.json",
                "/nowhere",
            )
            answers = get_at_once(client, paths, bearer(secret))
            texts += [answer.text + str(answer.headers) for answer in answers]
    captured = capfd.readouterr()
    for text in (*texts, captured.out, captured.err):
        assert secret not in text
        assert password not in text


def test_without_the_database_the_api_lives_and_says_so(tmp_path: Path) -> None:
    """503 as a problem with Retry-After, quickly; probes and documentation answer as ever."""
    with client_of(f"host={tmp_path} dbname=x") as client:
        paths = ("/healthz", "/docs", "/metrics", "/readyz", "/api/health", DAEMON, "/api/billing/summary")
        answers = dict(zip(paths, get_at_once(client, paths, AS_ADMIN), strict=True))
        refused = client.get(DAEMON, headers=bearer("csb_" + "A" * 43))
    assert [200, 200, 200, 503, 503, 503, 503] == [answer.status_code for answer in answers.values()]
    assert "database_up 0.0" in answers["/metrics"].text
    assert (503, "5", "The database does not answer.") == (
        refused.status_code,
        refused.headers["retry-after"],
        refused.json()["detail"],
    )


def test_the_committed_openapi_document_is_the_one_that_is_served(client: TestClient) -> None:
    """A change of the API changes docs/openapi.json; CONTRIBUTING.md has the command."""
    assert json.loads(OPENAPI.read_text()) == client.get("/openapi.json").json()
