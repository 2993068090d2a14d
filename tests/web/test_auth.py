"""Who gets in: every kind of bearer, every way of being wrong, and how often."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import jwt
import psycopg
import pytest
from starlette.testclient import TestClient
from tests.web.client import ADMIN_TOKEN, DAEMON, JWT_SECRET, bearer, client_of, make_token

from containerstacks_billing import logs
from containerstacks_billing.tokens.model import PREFIX
from containerstacks_billing.web.rate_limit import ATTEMPTS, LINES, WINDOW_SECONDS, FailedAttempts, FailureLog


@pytest.fixture
def client(database: str) -> Iterator[TestClient]:
    with client_of(database) as client:
        yield client


def user(conn: psycopg.Connection[Any], role: str | None = "admin") -> str:
    row = conn.execute(
        "insert into users (email, password_hash, name, role) values (%s, 'x', 'Ada', %s) returning id",
        (f"{uuid4()}@example.org", role),
    ).fetchone()
    assert row is not None
    return str(row[0])


def signed(claims: dict[str, Any], secret: str = JWT_SECRET, algorithm: str = "HS256") -> str:
    """Sign claims as the host does, for a minute unless they say otherwise; None leaves the expiry out."""
    lasting = {
        name: value for name, value in {"exp": time.time() + 60, **claims}.items() if value is not None
    }
    return jwt.encode(lasting, secret, algorithm=algorithm)


def encoded(document: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=").decode()


def test_every_kind_of_admin_gets_in(client: TestClient, conn: psycopg.Connection[Any]) -> None:
    """A token of ours, the configured one, the host's JWT."""
    ada = user(conn)
    bearers = [
        make_token(conn),
        ADMIN_TOKEN,
        signed({"userId": ada, "exp": time.time() + 60, "iat": time.time(), "aud": "host", "sub": 7}),
    ]
    assert [200] * 3 == [client.get(DAEMON, headers=bearer(text)).status_code for text in bearers]
    assert 1 == len(conn.execute("select from billing_tokens where last_used_at is not null").fetchall())


def test_secrets_are_compared_by_hashes_of_one_length_in_constant_time(
    client: TestClient, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """How long a refusal takes tells neither how long a secret is nor how much of it was right."""
    compared: list[tuple[int, int]] = []
    compare = hmac.compare_digest

    def seen(first: bytes, second: bytes) -> bool:
        compared.append((len(first), len(second)))
        return compare(first, second)

    monkeypatch.setattr(hmac, "compare_digest", seen)
    bearers = [make_token(conn), ADMIN_TOKEN, ADMIN_TOKEN[:-1], "x"]
    codes = [client.get(DAEMON, headers=bearer(text)).status_code for text in bearers]
    assert [200, 200, 401, 401] == codes
    assert [(32, 32)] * 5 == compared


def test_no_bearer_is_asked_for_one_and_counts_as_no_attempt(client: TestClient) -> None:
    """401 with WWW-Authenticate, as often as one likes."""
    answers = [client.get(DAEMON) for _ in range(20)]
    answers += [
        client.get(DAEMON, headers={"Authorization": value}) for value in ("Basic YTpi", "Bearer", "nonsense")
    ]
    assert {401} == {answer.status_code for answer in answers}
    assert {'Bearer realm="containerstacks-billing"'} == {
        answer.headers["www-authenticate"] for answer in answers
    }


def wrong_bearers(conn: psycopg.Connection[Any]) -> dict[str, str]:
    ada = user(conn)
    expired = make_token(conn, "expired", PREFIX + "E" * 43, days=-1)
    revoked = make_token(conn, "revoked", PREFIX + "R" * 43)
    conn.execute("update billing_tokens set revoked_at = now() where name = 'revoked'")
    right = signed({"userId": ada})
    head, body, signature = right.split(".")
    unsigned = f"{encoded({'alg': 'none', 'typ': 'JWT'})}.{body}."
    public_key_as_secret = hmac.new(
        b"-----BEGIN PUBLIC KEY-----", f"{head}.{body}".encode(), hashlib.sha256
    ).digest()
    return {
        "unknown token": PREFIX + "U" * 43,
        "expired token": expired,
        "revoked token": revoked,
        "token cut short": PREFIX + "A" * 42,
        "part of the configured token": ADMIN_TOKEN[:-1],
        "configured token and more": ADMIN_TOKEN + "x",
        "JWT of another secret": signed({"userId": ada}, "another-secret-altogether-of-the-host"),
        "JWT without algorithm": unsigned,
        "JWT with alg None": f"{encoded({'alg': 'None'})}.{body}.",
        "JWT of another algorithm": signed({"userId": ada}, algorithm="HS512"),
        "JWT that claims RS256": f"{encoded({'alg': 'RS256'})}.{body}.{signature}",
        "JWT signed with a public key": f"{head}.{body}.{base64.urlsafe_b64encode(public_key_as_secret).decode()}",
        "JWT that never expires": signed({"userId": ada, "exp": None}),
        "JWT that has expired": signed({"userId": ada, "exp": time.time() - 60}),
        "JWT of tomorrow": signed({"userId": ada, "nbf": time.time() + 3600}),
        "JWT without user": signed({"id": ada}),
        "JWT of nobody": signed({"userId": str(uuid4())}),
        "JWT whose user is markup": signed({"userId": "' or true --"}),
        "JWT whose user is a list": signed({"userId": [ada]}),
        "JWT without content": f"{head}.{encoded([])}.{signature}",
        "three dots": "a.b.c",
        "far too long": "x" * 8000,
        "JWT that is too deep": f"{head}.{base64.urlsafe_b64encode(b'[' * 2000).decode()}.{signature}",
    }


def test_every_wrong_bearer_gets_the_same_401(database: str, conn: psycopg.Connection[Any]) -> None:
    """An answer never says which kind was tried, what was wrong with it, or anything of it."""
    answers = {}
    for what, text in wrong_bearers(conn).items():
        with client_of(database) as client:
            answer = client.get(DAEMON, headers=bearer(text))
        answers[what] = (answer.status_code, answer.headers["www-authenticate"], answer.json()["detail"])
    expected = (
        401,
        'Bearer realm="containerstacks-billing", error="invalid_token"',
        "The token is not valid.",
    )
    assert dict.fromkeys(answers, expected) == answers


def test_a_user_of_the_host_who_is_no_admin_gets_403(
    client: TestClient, conn: psycopg.Connection[Any]
) -> None:
    """The role is looked up now: a demotion takes effect at once."""
    ada, bob, nobody = user(conn), user(conn, "user"), user(conn, None)
    token = signed({"userId": ada})
    before = client.get(DAEMON, headers=bearer(token)).status_code
    conn.execute("update users set role = 'user' where id = %s", (ada,))
    after = [
        client.get(DAEMON, headers=bearer(signed({"userId": who}))).status_code for who in (ada, bob, nobody)
    ]
    assert (200, [403, 403, 403]) == (before, after)


def test_without_the_secrets_nothing_opens_by_them(database: str, conn: psycopg.Connection[Any]) -> None:
    """A secret that is not set is not a secret of no letters."""
    token = signed({"userId": user(conn)})
    with client_of(database, jwt_secret=None, admin_token=None) as client:
        for text in (token, ADMIN_TOKEN, "None"):
            assert 401 == client.get(DAEMON, headers=bearer(text)).status_code


def test_a_short_secret_of_the_host_works_as_it_does_there(
    database: str, conn: psycopg.Connection[Any]
) -> None:
    """How long its secret is is the host's decision."""
    claims = {"userId": user(conn), "exp": int(time.time()) + 60}
    message = f"{encoded({'alg': 'HS256'})}.{encoded(claims)}"
    signature = base64.urlsafe_b64encode(
        hmac.new(b"short", message.encode(), hashlib.sha256).digest()
    ).decode()
    with client_of(database, jwt_secret="short") as client:
        assert 200 == client.get(DAEMON, headers=bearer(f"{message}.{signature.rstrip('=')}")).status_code


def test_after_ten_failures_an_address_waits_and_a_right_token_gets_in(
    database: str, conn: psycopg.Connection[Any]
) -> None:
    """The eleventh failure is 429; a right token passes, since behind one proxy everybody has this address."""
    token = make_token(conn)
    with client_of(database, "203.0.113.7") as client:
        failures = [client.get(DAEMON, headers=bearer("wrong")).status_code for _ in range(11)]
        refused = client.get(DAEMON, headers=bearer("wrong again"))
        assert [401] * ATTEMPTS + [429] == failures
        assert (429, True) == (refused.status_code, 0 < int(refused.headers["retry-after"]) <= 61)
        assert "application/problem+json" == refused.headers["content-type"]
        assert 200 == client.get(DAEMON, headers=bearer(token)).status_code
        assert 200 == client.get(DAEMON, headers=bearer(ADMIN_TOKEN)).status_code
        client._transport.client = ("203.0.113.8", 50000)  # type: ignore[attr-defined]
        assert 200 == client.get(DAEMON, headers=bearer(token)).status_code


def test_failures_are_forgotten_after_a_minute_and_kept_in_bounded_memory() -> None:
    """A window of a minute; ten thousand addresses at most; a /64 of IPv6 is one customer."""
    now = [0.0]
    attempts = FailedAttempts(lambda: now[0], addresses=100)
    for second in range(10):
        now[0] = float(second)
        attempts.note(f"2001:db8::{second}")
    waiting = attempts.retry_after_seconds("2001:db8::ffff")
    now[0] = 60.0
    over = attempts.retry_after_seconds("2001:db8::1")
    for number in range(1000):
        attempts.note(f"198.51.{number % 250}.{number // 250}")
    assert (51.0, 0.0, 100) == (waiting, over, len(attempts))
    assert 0.0 == attempts.retry_after_seconds("2001:db8::1")


@pytest.mark.parametrize(
    ("address", "status"),
    [("127.0.0.1", 200), ("::1", 200), ("::ffff:127.0.0.1", 200), ("192.0.2.1", 401), ("testclient", 401)],
)
def test_metrics_want_a_token_off_loopback(database: str, address: str, status: int) -> None:
    """From this machine without; from elsewhere with one; a wrong one is wrong everywhere."""
    with client_of(database, address) as client:
        assert status == client.get("/metrics").status_code
        assert 401 == client.get("/metrics", headers=bearer("wrong")).status_code
        assert 200 == client.get("/metrics", headers=bearer(ADMIN_TOKEN)).status_code


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200),
        ("localhost", 200),
        ("[::1]:8000", 200),
        ("evil.example", 401),
        ("127.0.0.1.evil.example", 401),
    ],
)
def test_metrics_want_a_token_under_another_name(client: TestClient, host: str, status: int) -> None:
    """A page elsewhere whose name leads to this machine reads nothing through the browser of its visitor."""
    assert status == client.get("/metrics", headers={"Host": host}).status_code


def test_a_token_in_the_database_does_not_open_anything(
    client: TestClient, conn: psycopg.Connection[Any]
) -> None:
    """What is kept is a hash: who reads the table has nothing to send."""
    text = make_token(conn)
    row = conn.execute(
        "select encode(token_hash, 'hex'), billing_tokens::text from billing_tokens"
    ).fetchone()
    assert row is not None
    assert text not in row[1]
    assert 401 == client.get(DAEMON, headers=bearer(row[0])).status_code


def test_who_is_refused_is_logged_by_address_and_not_by_token(
    database: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Page and API alike, until the address waits; an admin leaves no such line."""
    logs.configure("info", form="logfmt")
    with client_of(database, "192.0.2.9") as client:
        client.post("/status/sign-in", data={"token": "a-token-that-nobody-knows"})
        client.get(DAEMON, headers=bearer(ADMIN_TOKEN))
        for _ in range(ATTEMPTS):
            client.get(DAEMON, headers=bearer("a-token-that-nobody-knows"))
    said = capfd.readouterr().err
    assert ATTEMPTS == said.count("Authentication failed")
    assert ATTEMPTS == said.count("address=192.0.2.9")
    assert "nobody-knows" not in said


def test_refusals_of_many_addresses_fill_no_disk(capfd: pytest.CaptureFixture[str]) -> None:
    """So many lines a minute; the first of the next says how many were left out."""
    logs.configure("info", form="logfmt")
    clock = [0.0]
    log = FailureLog(lambda: clock[0])
    for number in range(LINES + 70):
        log.note(f"192.0.2.{number}", "no admin")
    assert LINES == len(capfd.readouterr().err.splitlines())
    clock[0] = WINDOW_SECONDS
    for _ in range(2):
        log.note("192.0.2.9", "no admin")
    first, second = capfd.readouterr().err.splitlines()
    assert ("left_out_before=70" in first, "left_out" in second) == (True, False)
