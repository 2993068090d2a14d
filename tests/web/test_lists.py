"""Lists of the API: pages in their order, filters, scopes, and representations."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from starlette.testclient import TestClient
from tests.fleet import Fleet
from tests.web.client import ADMIN_TOKEN, bearer, client_of

from containerstacks_billing.tokens import store as tokens
from containerstacks_billing.tokens.model import PREFIX, hash_of
from containerstacks_billing.verification.results import record
from containerstacks_billing.verification.schemas import VerificationDocument
from containerstacks_billing.verification.verify import verify

AS_ADMIN = bearer(ADMIN_TOKEN)


@pytest.fixture
def fleet(conn: psycopg.Connection[Any]) -> Fleet:
    return Fleet(conn)


@pytest.fixture
def client(fleet: Fleet) -> Iterator[TestClient]:
    with client_of(fleet.conninfo) as client:
        yield client


def every(client: TestClient, path: str) -> list[dict[str, Any]]:
    """All rows of a list, two at a time."""
    rows: list[dict[str, Any]] = []
    cursor = ""
    for _ in range(50):
        answer = client.get(f"/api/v1/{path}{'&' if '?' in path else '?'}limit=2{cursor}", headers=AS_ADMIN)
        assert 200 == answer.status_code, answer.text
        page = answer.json()
        rows += page["data"]
        assert page["hasMore"] == (page["nextCursor"] is not None)
        if not page["hasMore"]:
            return rows
        cursor = f"&cursor={page['nextCursor']}"
    raise AssertionError("the list has no end")


def test_pages_hold_every_row_once_and_in_order(client: TestClient, fleet: Fleet) -> None:
    """Five organizations with names of all kinds, three instances of one, three hours of it."""
    names = ["acme", "Acme", "Äther", "100 % pure_", "Zebra"]
    ids = [str(fleet.organization("50.00", name=name)) for name in names]
    plan = fleet.plan("6.00")
    web = [str(fleet.instance(UUID(ids[0]), plan, label=f"web-{number}")) for number in range(3)]
    for _ in range(3):
        fleet.hours(1)
        fleet.bill()

    organizations = every(client, "organizations")
    assert ["100 % pure_", "Zebra", "Äther"] == [
        one["name"] for one in organizations if one["name"].lower() != "acme"
    ]
    assert sorted(ids) == sorted(one["organizationId"] for one in organizations)
    assert ("49.93", "USD", "0.02465754") == tuple(
        {one["organizationId"]: one for one in organizations}[ids[0]][name]
        for name in ("balance", "currency", "burnPerHour")
    )
    assert sorted(web) == [one["instanceId"] for one in every(client, f"instances?organization={ids[0]}")]
    charges = every(client, f"charges?organization={ids[0]}")
    assert [("2026-03-01T02:00:00Z", one) for one in sorted(web, reverse=True)] == [
        (one["startsAt"], one["instanceId"]) for one in charges[:3]
    ]
    assert 9 == len({one["chargeId"] for one in charges}) == len(charges)
    assert {"billed"} == {one["status"] for one in charges}
    entries = every(client, f"entries?organization={ids[0]}")
    assert ["-0.03", "-0.02", "-0.02"] == [one["amount"] for one in entries]
    assert [3, 2, 1] == [one["runId"] for one in every(client, "runs")]
    assert [ids[0]] == [one["organizationId"] for one in every(client, "runways")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("ac", ["Acme"]), ("100 %25 p", ["100 % pure_"]), ("100 %25%25", []), ("%25", []), ("_", []), ("x", [])],
)
def test_organizations_are_found_by_the_beginning_of_their_name(
    client: TestClient, fleet: Fleet, text: str, expected: list[str]
) -> None:
    """Letters of any case; a percent sign is a percent sign."""
    for name in ("Acme", "100 % pure_"):
        fleet.organization(name=name)
    assert expected == [one["name"] for one in every(client, f"organizations?q={text}")]


def test_one_of_each_leads_to_the_next(client: TestClient, fleet: Fleet) -> None:
    """An organization by its id, an instance, a run, and 404 where there is none."""
    acme = fleet.organization(name="Acme")
    web = fleet.instance(acme, fleet.plan("6.00"), label="web")
    fleet.hours(1)
    fleet.bill()
    assert "Acme" == client.get(f"/api/v1/organizations/{acme}", headers=AS_ADMIN).json()["name"]
    assert [str(acme)] == [one["organizationId"] for one in every(client, f"organizations?q={acme}")]
    assert ("web", "2026-03-01T01:00:00Z") == tuple(
        client.get(f"/api/v1/instances/{web}", headers=AS_ADMIN).json()[name]
        for name in ("label", "billedUntil")
    )
    run = client.get("/api/v1/runs/1", headers=AS_ADMIN).json()
    assert (1, "completed", 1, None) == (
        run["runId"],
        run["outcome"],
        run["fleetInstances"],
        run["releasedBy"],
    )
    assert [404] * 4 == [
        client.get(f"/api/v1/{path}", headers=AS_ADMIN).status_code
        for path in (f"organizations/{uuid4()}", f"instances/{uuid4()}", "runs/9", "verification")
    ]


def test_what_waits_for_a_decision_is_listed(client: TestClient, fleet: Fleet) -> None:
    """An instance with too many hours is held, one without a plan quarantined; both announce it."""
    acme = fleet.organization(name="Acme")
    held = fleet.instance(acme, fleet.plan("6.00"), label="old")
    fleet.instance(acme, "no-such-plan", label="lost")
    fleet.hours(100)
    fleet.bill()
    holds = client.get("/api/v1/holds", headers=AS_ADMIN).json()
    assert (None, [str(held)]) == (holds["run"], [one["instanceId"] for one in holds["data"]])
    assert ["lost", "old"] == sorted(one["label"] for one in every(client, "quarantine"))
    assert ["old"] == [one["label"] for one in every(client, f"quarantine?reason=held&organization={acme}")]
    assert ["instance_held", "instance_quarantined"] == sorted(one["kind"] for one in every(client, "events"))
    assert ["instance_held"] == [
        one["kind"] for one in every(client, "events?kind=instance_held&state=waiting")
    ]
    assert [] == every(client, "events?state=dead")
    assert [] == every(client, "decisions")
    assert 1 == len(client.get("/api/v1/prices?plan=plan 2", headers=AS_ADMIN).json()["plans"])


def test_runs_are_filtered_by_outcome_trigger_and_time(client: TestClient, fleet: Fleet) -> None:
    """Three hourly runs, the second of which failed."""
    for _ in range(3):
        fleet.hours(1)
        fleet.bill()
    fleet.conn.execute("update billing_runs set outcome = 'failed' where id = 2")
    trigger = every(client, "runs")[0]["trigger"]
    for query, expected in (
        ("outcome=failed", [2]),
        ("outcome=open", []),
        (f"trigger={trigger}&outcome=completed", [3, 1]),
        ("trigger=nothing", []),
        ("from=2026-03-01T02:00:00Z", [3, 2]),
        ("from=2026-03-01T01:00:00Z&until=2026-03-01T02:00:00Z", [1]),
    ):
        assert expected == [one["runId"] for one in every(client, f"runs?{query}")], query


def test_the_last_result_of_verify_is_served(client: TestClient, fleet: Fleet) -> None:
    """With the document that verify --json prints."""
    assert record(fleet.conninfo, VerificationDocument.of(verify(fleet.conninfo)), "ada@host")
    answer = client.get("/api/v1/verification", headers=AS_ADMIN).json()
    assert ("ada@host", 0, True) == (answer["verifiedBy"], answer["discrepancies"], answer["document"]["ok"])


@pytest.mark.parametrize(
    "query",
    [
        "runs?outcom=failed", "runs?outcome=lost", "runs?cursor=x", "runs?cursor=W10", "runs?cursor=WyJhIl0",
        "runs?from=2026-03-01", "runs?from=2026-03-02T00:00:00Z&until=2026-03-01T00:00:00Z", "charges",
        "organizations?cursor=WyJcdWQ4MDAiLCJhIl0", "organizations?q=%00", "runways?below=nan", "events?kind=lost",
        "runs/1?verbose=1", "instances?limit=201",
    ],
)  # fmt: skip
def test_what_cannot_be_understood_is_refused(client: TestClient, query: str) -> None:
    """With 422 and a problem; without a token it is 401 all the same."""
    answer = client.get(f"/api/v1/{query}", headers=AS_ADMIN)
    assert (422, "application/problem+json") == (answer.status_code, answer.headers["content-type"]), (
        answer.text
    )
    assert 401 == client.get(f"/api/v1/{query}").status_code


@pytest.mark.parametrize(
    ("scopes", "expected"),
    [(["read"], (200, 403)), (["read", "finance"], (200, 200)), (["read", "decide"], (200, 403))],
)
def test_a_token_opens_what_its_scopes_say(
    client: TestClient, fleet: Fleet, scopes: list[str], expected: tuple[int, int]
) -> None:
    """Runs need read, customers finance."""
    text = PREFIX + "B" * 43
    tokens.create(fleet.conn, "scoped", hash_of(text), "test", 1, scopes)
    assert expected == tuple(
        client.get(f"/api/v1/{path}", headers=bearer(text)).status_code for path in ("runs", "organizations")
    )


def test_a_document_is_tagged_compressed_and_not_sent_twice(client: TestClient, fleet: Fleet) -> None:
    """The tag is the same for the plain and the compressed form; HEAD has it too."""
    for number in range(20):
        fleet.organization(name=f"Organization {number}")
    path = "/api/v1/organizations"
    with client.stream("GET", path, headers=AS_ADMIN) as answer:
        raw = b"".join(answer.iter_raw())
    assert "gzip" == answer.headers["content-encoding"]
    plain = client.get(path, headers={**AS_ADMIN, "Accept-Encoding": "gzip;q=0"})
    assert plain.content == gzip.decompress(raw)
    assert len(raw) < len(plain.content)
    assert answer.headers["etag"] == plain.headers["etag"]
    again = client.get(path, headers={**AS_ADMIN, "If-None-Match": f'"x", {plain.headers["etag"]}'})
    assert (304, b"", "private, no-cache") == (
        again.status_code, again.content, again.headers["cache-control"]
    )  # fmt: skip
    head = client.head(path, headers=AS_ADMIN)
    assert (200, b"", plain.headers["etag"]) == (head.status_code, head.content, head.headers["etag"])


def test_requests_have_ids_and_allow_says_head(client: TestClient) -> None:
    """The id of a proxy is kept where it is one; every answer has one, refusals too."""
    assert "abc-1" == client.get("/healthz", headers={"X-Request-ID": "abc-1"}).headers["x-request-id"]
    refused = client.get("/api/v1/runs", headers={"X-Request-ID": "a b"})
    assert (401, 32) == (refused.status_code, len(refused.headers["x-request-id"]))
    answer = client.delete("/api/v1/runs", headers=AS_ADMIN)
    assert (405, "GET, HEAD") == (answer.status_code, answer.headers["allow"])
