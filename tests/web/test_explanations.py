"""Explanations over HTTP: the same documents as `why --json`, for admins, and a clear answer where there is nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from starlette.testclient import TestClient
from tests.fleet import Fleet
from tests.web.client import ADMIN_TOKEN, bearer, client_of

AS_ADMIN = bearer(ADMIN_TOKEN)
SPAN = "from=2026-03-01T00:00:00Z&until=2026-03-01T04:00:00Z"


@pytest.fixture
def fleet(conn: psycopg.Connection[Any]) -> Fleet:
    return Fleet(conn)


@pytest.fixture
def client(fleet: Fleet) -> Iterator[TestClient]:
    with client_of(fleet.conninfo) as client:
        yield client


def test_an_entry_its_charge_and_the_hours_of_the_instance(client: TestClient, fleet: Fleet) -> None:
    """Each leads to the others, and money is a decimal string."""
    acme = fleet.organization("10.00", name="Acme")
    web = fleet.instance(acme, fleet.plan("6.00", "5.00"), label="web")
    fleet.hours(2)
    fleet.bill()
    fleet.set(web, status="stopped")
    fleet.hours(2)
    [row] = fleet.rows("select id, payment_transaction_id as entry from vps_billing_cycles")

    entry = client.get(f"/api/billing/entries/{row.entry}", headers=AS_ADMIN).json()
    assert ("Acme", "-0.03", "0.00", "0.03013698", "0.00013698", True, []) == (
        entry["organization"], entry["amount"], entry["carryBefore"], entry["exactAmount"], entry["carryAfter"],
        entry["addsUp"], entry["findings"],
    )  # fmt: skip
    charge = client.get(f"/api/billing/charges/{row.id}", headers=AS_ADMIN).json()
    assert (str(row.id), "web", "2", "0.01506849", str(row.entry)) == (
        charge["chargeId"], charge["label"], charge["hours"], charge["hourlyRate"], charge["entry"]["entryId"]
    )  # fmt: skip
    assert [charge["chargeId"]] == [one["chargeId"] for one in entry["charges"]]
    hours = client.get(f"/api/billing/instances/{web}/hours?{SPAN}", headers=AS_ADMIN).json()
    assert [
        ("2026-03-01T00:00:00Z", "2026-03-01T02:00:00Z", "billed", "0.03013698"),
        ("2026-03-01T02:00:00Z", "2026-03-01T04:00:00Z", "not billable", None),
    ] == [(one["startsAt"], one["endsAt"], one["state"], one["amount"]) for one in hours["stretches"]]


def test_an_id_that_no_table_knows_is_not_found(client: TestClient) -> None:
    """Without a token no explanation is served."""
    paths = [f"/api/billing/{kind}/{uuid4()}" for kind in ("charges", "entries")]
    paths.append(f"/api/billing/instances/{uuid4()}/hours?{SPAN}")

    assert [404, 404, 404] == [client.get(path, headers=AS_ADMIN).status_code for path in paths]
    assert [401, 401, 401] == [client.get(path).status_code for path in paths]


@pytest.mark.parametrize(
    "span",
    [
        "from=2026-03-01T00:00:00Z",
        "from=2026-03-01T00:00:00&until=2026-03-01T04:00:00",
        "from=2026-03-01T00:00:00Z&until=2026-03-01T00:00:00Z",
        "from=2026-03-01T00:00:00Z&until=2026-06-01T00:00:00Z",
        "from=0001-01-01T00:00:00Z&until=0001-01-02T00:00:00Z",
    ],
)
def test_a_span_that_cannot_be_answered_is_refused(client: TestClient, span: str) -> None:
    """It has a beginning and an end with a time zone, and is bounded."""
    assert 422 == client.get(f"/api/billing/instances/{uuid4()}/hours?{span}", headers=AS_ADMIN).status_code
