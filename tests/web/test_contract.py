"""Generated requests, by the thousand, from the OpenAPI document."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis import Case
from starlette.testclient import TestClient
from tests.web.client import ADMIN_TOKEN, bearer, client_of

from containerstacks_billing.settings import Settings
from containerstacks_billing.web.app import create_application

EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "15"))
OPEN = {"/healthz", "/readyz", "/api/health"}

schema: Any = schemathesis.openapi.from_dict(
    create_application(Settings.model_validate({}), "dbname=none").openapi()
)
few = settings(
    max_examples=EXAMPLES,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
# Seven paths, twice: over five thousand requests.
thousands = settings(few, max_examples=max(EXAMPLES, 400), derandomize=False, print_blob=True)


@pytest.fixture
def client(database: str) -> Iterator[TestClient]:
    # From elsewhere, so that nothing is open because it came from this machine.
    with client_of(database, "192.0.2.9") as client:
        yield client


def sent(client: TestClient, case: Case, headers: dict[str, str]) -> Any:
    parts = case.as_transport_kwargs(base_url="http://testserver")
    kept = {
        name: value
        for name, value in dict(parts.get("headers") or {}).items()
        if name.lower() != "authorization"
    }
    return client.request(
        parts["method"],
        parts["url"],
        params=parts.get("params"),
        content=parts.get("data"),
        **({"json": parts["json"]} if "json" in parts else {}),
        headers={**kept, **headers},
    )


def asked_as_an_admin(case: Case, client: TestClient) -> None:
    answer = sent(client, case, bearer(ADMIN_TOKEN))
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        assert "application/problem+json" == answer.headers["content-type"]


def asked_without_a_token(case: Case, client: TestClient) -> None:
    answer = sent(client, case, {})
    allowed = {200, 405} if case.operation.path in OPEN else {401, 405}
    assert answer.status_code in allowed
    for word in ("runId", "holder", "amount", "heartbeat", "daemon_instance"):
        assert word not in answer.text


@schema.parametrize()
@few
def test_no_request_of_an_admin_makes_it_fail(case: Case, client: TestClient) -> None:
    """For any request: no 5xx, and a response that conforms to the document."""
    asked_as_an_admin(case, client)


@schema.parametrize()
@few
def test_nothing_is_told_without_a_token(case: Case, client: TestClient) -> None:
    """Every path but the probes refuses, before it looks at what is asked."""
    asked_without_a_token(case, client)


@pytest.mark.slow
@schema.parametrize()
@thousands
def test_no_request_among_thousands_makes_it_fail(case: Case, client: TestClient) -> None:
    """The same, thousands of times."""
    asked_as_an_admin(case, client)


@pytest.mark.slow
@schema.parametrize()
@thousands
def test_nothing_is_told_to_thousands_without_a_token(case: Case, client: TestClient) -> None:
    """The same, thousands of times."""
    asked_without_a_token(case, client)
