"""The application side inside a host's own application, as the documentation says."""

from __future__ import annotations

import re
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from tests.clock import heartbeat, hourly_fleet, settings_of
from tests.daemons import eventually
from tests.fleet import Fleet
from tests.web.client import ADMIN_TOKEN, DAEMON, bearer

from containerstacks_billing.web.embed import BuiltInBilling, embed

DOCUMENT = Path(__file__).parents[2] / "docs" / "embedding.md"


@pytest.fixture
def fleet(conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fleet:
    fleet = Fleet(conn, at=conn.execute("select date_trunc('hour', now()) - interval '1 day'").fetchone()[0])  # type: ignore[index]
    hourly_fleet(fleet)
    # What the host's process is given: an environment, and a directory of its own.
    monkeypatch.setenv("DATABASE_URL", fleet.conninfo)
    monkeypatch.setenv("ADMIN_TOKEN", ADMIN_TOKEN)
    monkeypatch.chdir(tmp_path)
    return fleet


def snippets() -> dict[str, str]:
    """The Python of the document, by the heading that it stands under."""
    found = re.findall(
        r"^## (.+?)$(?:(?!^## ).)*?^```python\n(.*?)^```", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL
    )
    return dict(found)


def wait_for_a_run(fleet: Fleet) -> str:
    rows = eventually(
        lambda: fleet.rows("select trigger, outcome from billing_runs where outcome is not null")
    )
    return f"{rows[0].trigger} {rows[0].outcome}"


def test_the_snippet_for_asgi_bills_and_answers(fleet: Fleet) -> None:
    """Three lines: the host's pages stay, health is mounted, and built-in billing starts and stops with the host."""
    names: dict[str, Any] = {}
    exec(snippets()["FastAPI and Starlette"], names)
    app = names["app"]

    @app.get("/")
    def root() -> str:
        return "the host's own page"

    with TestClient(app) as client:
        assert "built-in completed" == wait_for_a_run(fleet)
        assert "the host's own page" == client.get("/").json()
        answer = client.get(f"/billing{DAEMON}", headers=bearer(ADMIN_TOKEN))
        assert (200, "built-in", True) == (
            answer.status_code,
            answer.json()["daemon"]["biller"],
            answer.json()["daemon"]["builtIn"]["running"],
        )
        assert 200 == client.get("/billing/docs").status_code
        assert 200 == client.get("/billing/docs/swagger-ui.css").status_code
        assert 401 == client.get(f"/billing{DAEMON}").status_code
    assert "built-in-billing" not in {thread.name for thread in threading.enumerate()}


def test_it_stands_at_the_root_of_a_starlette_application(fleet: Fleet) -> None:
    """After the host's own routes, which keep their paths; it bills, and health and the page answer."""
    own = Route("/", lambda _request: PlainTextResponse("the host's own page"))
    host = Starlette(routes=[own])
    embed(host, "/")
    with TestClient(host) as client:
        assert "built-in completed" == wait_for_a_run(fleet)
        assert "the host's own page" == client.get("/").text
        answer = client.get(DAEMON, headers=bearer(ADMIN_TOKEN))
        assert (200, "built-in") == (answer.status_code, answer.json()["daemon"]["biller"])
        assert "Built-in billing" in client.get("/status").text


def test_the_snippet_for_other_processes_bills(fleet: Fleet) -> None:
    """Start and stop by any owner of the process."""
    names: dict[str, Any] = {}
    exec(snippets()["Any other Python process"], names)
    assert "built-in completed" == wait_for_a_run(fleet)
    names["built_in"].stop()
    assert not names["built_in"].is_alive


def test_the_lifespan_of_the_host_stays(fleet: Fleet) -> None:
    """What the host starts and ends is started and ended, inside ours; what it keeps for its requests is kept."""
    heartbeat(fleet)
    told: list[str] = []

    @asynccontextmanager
    async def own(_app: Starlette) -> AsyncIterator[dict[str, str]]:
        told.append("host begins")
        yield {"kept": "yes"}
        told.append("host ends")

    host = Starlette(lifespan=own)
    built_in = embed(host, settings=settings_of(fleet.conninfo))
    with TestClient(host) as client:
        assert built_in.is_alive
        assert {"kept": "yes"} == client.app_state
    assert ["host begins", "host ends"] == told
    assert not built_in.is_alive


def test_without_a_database_the_host_starts_all_the_same(tmp_path: Path) -> None:
    """Billing must not be the reason why a host's application does not come up."""
    host = FastAPI()
    built_in = embed(host, settings=settings_of(f"host={tmp_path} dbname=x"))
    with TestClient(host) as client:
        assert 200 == client.get("/billing/healthz").status_code
        assert 503 == client.get("/billing/readyz").status_code
    assert not built_in.is_alive


def test_wrong_settings_are_refused_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A host without DATABASE_URL hears of it at once."""
    from containerstacks_billing.errors import ConfigurationError

    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="DATABASE_URL"):
        BuiltInBilling.from_environment()
