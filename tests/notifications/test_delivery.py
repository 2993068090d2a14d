"""Delivery to a real server on loopback: what arrives, and what happens when it does not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import shutil
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from pydantic import SecretStr
from tests.fleet import Fleet
from tests.receiver import Receiver, receiving

from containerstacks_billing.notifications import delivery as webhooks
from containerstacks_billing.notifications import outbox as events
from containerstacks_billing.notifications.delivery import Deliverer, Delivery, deliver_due
from containerstacks_billing.settings import Settings

KEY = b"canary-secret-7f3a-of-32-bytes-.."
SECRET = f"whsec_{base64.b64encode(KEY).decode()}"
_SELF_SIGNED = [
    "req",
    "-x509",
    "-newkey",
    "rsa:2048",
    "-nodes",
    "-days",
    "2",
    "-subj",
    "/CN=localhost",
    "-addext",
    "subjectAltName=DNS:localhost",
]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


@pytest.fixture
def fleet(conn: psycopg.Connection[Any]) -> Fleet:
    return Fleet(conn)


def settings(url: str | None, secret: str | None = SECRET) -> Settings:
    return Settings.model_validate({"webhook_url": url, "webhook_secret": secret})


def happened(fleet: Fleet, kind: str = "past_due", organization: UUID | None = None) -> int:
    """Write an event, as a run does."""
    return int(
        fleet._one(
            "insert into billing_events (kind, organization_id, occurred_at, payload)"
            ' values (%s, %s, %s, \'{"pastDue": "0.03"}\') returning id',
            kind,
            organization or uuid4(),
            fleet.now,
        )
    )


def state(fleet: Fleet, number: int) -> tuple[str, int, str | None]:
    row = fleet.rows("select * from billing_events where id = %s", number)[0]
    name = "delivered" if row.delivered_at else "dead" if row.dead_at else "waiting"
    return name, row.attempts, row.last_error


def test_an_event_arrives_once_and_signed(fleet: Fleet, database: str, receiver: Receiver) -> None:
    """The signature is checked the way the documents tell a host to check it."""
    number = happened(fleet)
    first = deliver_due(database, settings(receiver.url))
    second = deliver_due(database, settings(receiver.url))

    assert (Delivery(delivered=1), Delivery()) == (first, second)
    (request,) = receiver.requests
    document = json.loads(request.body)
    assert ("past_due", number, {"pastDue": "0.03"}) == (
        document["kind"],
        document["sequence"],
        document["data"],
    )
    assert "/hooks/billing?site=1" == request.path
    headers = {name.lower(): value for name, value in request.headers.items()}
    assert document["id"] == headers["idempotency-key"] == headers["webhook-id"]
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + request.body
    expected = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    assert f"v1,{expected}" == headers["webhook-signature"]
    assert ("delivered", 1, None) == state(fleet, number)


def test_a_failure_is_tried_again_later_with_the_same_key(
    fleet: Fleet, database: str, receiver: Receiver
) -> None:
    """503 now, accepted after the pause; not a second before it is due."""
    number = happened(fleet)
    receiver.answers = lambda _: 503
    assert Delivery(failed=1, waiting=1) == deliver_due(database, settings(receiver.url))
    assert ("waiting", 1, "the receiver answered 503") == state(fleet, number)

    receiver.answers = lambda _: 200
    assert Delivery(waiting=1) == deliver_due(database, settings(receiver.url))
    fleet.at(timedelta(seconds=49))
    assert Delivery(delivered=1) == deliver_due(database, settings(receiver.url))
    first, second = receiver.requests
    assert first.body == second.body
    assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"]
    assert ("1", "2") == (first.headers["X-Billing-Attempt"], second.headers["X-Billing-Attempt"])


def test_410_is_final(fleet: Fleet, database: str, receiver: Receiver) -> None:
    """A receiver that says it is gone is not tried again, until the event is revived by hand."""
    number = happened(fleet)
    receiver.answers = lambda _: 410
    assert Delivery(dead=1) == deliver_due(database, settings(receiver.url))
    assert ("dead", 1, "the receiver answered 410") == state(fleet, number)
    fleet.hours(100)
    assert Delivery() == deliver_due(database, settings(receiver.url))
    assert events.revive(fleet.conn, number)
    receiver.answers = lambda _: 200
    assert Delivery(delivered=1) == deliver_due(database, settings(receiver.url))


def test_after_twelve_attempts_an_event_is_dead(fleet: Fleet, database: str, receiver: Receiver) -> None:
    """It is listed, and revived with all others of its kind."""
    number = happened(fleet)
    receiver.answers = lambda _: 500
    for _ in range(15):
        deliver_due(database, settings(receiver.url))
        fleet.hours(12)
    assert ("dead", 12, "the receiver answered 500") == state(fleet, number)
    assert 12 == len(receiver.requests)
    assert [number] == [
        row["id"] for row in events.list_events(fleet.conn, dead=True, kind=None, organization=None, limit=10)
    ]
    assert 1 == events.revive_dead(fleet.conn)
    assert ("waiting", 0, "the receiver answered 500") == state(fleet, number)


def test_a_redirect_is_not_followed(fleet: Fleet, database: str, receiver: Receiver) -> None:
    """A redirect could lead the events, or a signed request, to an inner address."""
    number = happened(fleet)
    receiver.answers = lambda _: 307
    receiver.headers = {"Location": receiver.url + "&elsewhere"}
    deliver_due(database, settings(receiver.url))
    assert ("waiting", 1, "the receiver answered 307, and redirects are not followed") == state(fleet, number)
    assert 1 == len(receiver.requests)


@pytest.mark.parametrize("drips", [False, True])
def test_a_slow_receiver_is_left(
    fleet: Fleet, database: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, drips: bool
) -> None:
    """One that says nothing, and one that says a byte at a time for ever: the deadline is for all of it."""
    number = happened(fleet)
    monkeypatch.setattr(webhooks, "SEND_SECONDS", 0.5)
    receiver.drips = drips
    if not drips:
        receiver.open.clear()
    assert Delivery(failed=1, waiting=1) == deliver_due(database, settings(receiver.url))
    name, attempts, error = state(fleet, number)
    assert ("waiting", 1) == (name, attempts)
    assert str(error).startswith("the receiver did not answer within")


def test_what_is_wrong_is_said_without_address_secret_or_answer(fleet: Fleet, database: str) -> None:
    """An address may hold a token; it stays out of the table, where others read."""
    number = happened(fleet)
    nowhere = settings("http://user:canary-login@127.0.0.1:1/canary-path")
    assert "canary" not in repr(webhooks.endpoint_of(nowhere))
    deliver_due(database, nowhere)
    assert ("waiting", 1, "nothing is listening at the address of the receiver") == state(fleet, number)
    fleet.hours(1)
    # No configuration holds such a one any more; an application that embeds billing may make its settings by itself.
    unsendable = nowhere.model_copy(update={"webhook_url": SecretStr("http://[::1/canary-path")})
    deliver_due(database, unsendable)
    assert ("waiting", 2, "WEBHOOK_URL is no address that can be sent to") == state(fleet, number)


def test_an_unknown_certificate_is_refused(
    fleet: Fleet, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signed by itself it is refused; known to this host it is accepted."""
    openssl = shutil.which("openssl")
    assert openssl, "the test needs openssl"
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        [openssl, *_SELF_SIGNED, "-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    class Quiet(HTTPServer):
        def handle_error(self, *_: Any) -> None:
            pass

    server = Quiet(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        number = happened(fleet)
        url = f"https://localhost:{server.server_address[1]}/"
        deliver_due(database, settings(url))
        assert "the receiver's certificate is not accepted" in str(state(fleet, number)[2])
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        fleet.hours(1)
        assert Delivery(delivered=1) == deliver_due(database, settings(url))
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_an_organization_is_told_in_order(fleet: Fleet, database: str, receiver: Receiver) -> None:
    """A later event waits for an earlier one that fails, but not for ever; other organizations do not wait."""
    one, other = uuid4(), uuid4()
    first, second, third = (
        happened(fleet, "past_due", one),
        happened(fleet, "recovered", one),
        happened(fleet, "past_due", other),
    )
    receiver.answers = lambda request: 500 if json.loads(request.body)["sequence"] == first else 200
    deliver_due(database, settings(receiver.url))
    assert ["waiting", "waiting", "delivered"] == [state(fleet, one_)[0] for one_ in (first, second, third)]
    for _ in range(2):
        fleet.hours(1)
        deliver_due(database, settings(receiver.url))
    assert ["waiting", "delivered"] == [state(fleet, one_)[0] for one_ in (first, second)]

    receiver.requests.clear()
    fleet.hours(100)
    receiver.answers = lambda _: 200
    sequence = [happened(fleet, kind, one) for kind in ("runway_72h", "runway_24h", "runway_3h")]
    deliver_due(database, settings(receiver.url))
    arrived = [json.loads(request.body)["sequence"] for request in receiver.requests]
    assert sequence == [number for number in arrived if number != first]
    assert "delivered" == state(fleet, first)[0]


def test_two_deliverers_share_the_work(fleet: Fleet, database: str, receiver: Receiver) -> None:
    """While one waits for its answers the other takes what is left; nothing is sent twice."""
    numbers = [happened(fleet) for _ in range(30)]
    receiver.open.clear()
    results: list[Delivery] = []
    first = threading.Thread(
        target=lambda: results.append(deliver_due(database, settings(receiver.url), limit=20))
    )
    first.start()
    for _ in range(webhooks.CONCURRENT_SENDS):
        receiver.queue.get(timeout=180)
    second = threading.Thread(target=lambda: results.append(deliver_due(database, settings(receiver.url))))
    second.start()
    for _ in range(webhooks.CONCURRENT_SENDS):
        receiver.queue.get(timeout=180)
    receiver.open.set()
    first.join()
    second.join()

    assert [10, 20] == sorted(result.delivered for result in results)
    assert numbers == sorted(json.loads(request.body)["sequence"] for request in receiver.requests)


def test_no_transaction_is_open_while_a_receiver_takes_its_time(
    fleet: Fleet, database: str, receiver: Receiver
) -> None:
    """A receiver that hangs must not hold back what cleans the tables."""
    happened(fleet)
    receiver.open.clear()
    sender = threading.Thread(target=deliver_due, args=(database, settings(receiver.url)))
    sender.start()
    receiver.queue.get(timeout=180)
    states = fleet.rows(
        "select state from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
        " and backend_type = 'client backend'"
    )
    receiver.open.set()
    sender.join()
    assert {"idle"} == {row.state for row in states}


def test_a_crash_between_sending_and_recording_sends_again_with_the_same_key(
    fleet: Fleet, database: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At least once: the second attempt comes when the claim ends, and the receiver can tell that it is one."""
    number = happened(fleet)

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(events, "record_delivered", crash)
        with pytest.raises(KeyboardInterrupt):
            deliver_due(database, settings(receiver.url))
    assert ("waiting", 1, None) == state(fleet, number)
    assert Delivery(waiting=1) == deliver_due(database, settings(receiver.url))
    fleet.at(timedelta(seconds=webhooks.LEASE_SECONDS))
    assert Delivery(delivered=1) == deliver_due(database, settings(receiver.url))
    first, second = (request.headers["Idempotency-Key"] for request in receiver.requests)
    assert first == second


def test_what_there_was_no_time_for_is_given_back(
    fleet: Fleet, database: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight events, four at a time, and a receiver that uses up all the time: the other four count no attempt."""
    for _ in range(8):
        happened(fleet)
    receiver.open.clear()
    assert Delivery(failed=4, waiting=8) == deliver_due(database, settings(receiver.url), deadline=0.5)
    assert 4 == fleet.rows("select count(*) from billing_events where attempts = 0")[0].count


def test_without_an_address_events_stay_where_they_can_be_read(
    fleet: Fleet, database: str, receiver: Receiver
) -> None:
    """When one is configured, what is older than three days is not sent any more, but listed as given up."""
    old = happened(fleet)
    assert Delivery() == deliver_due(database, settings(None))
    fleet.hours(60)
    recent = happened(fleet)
    fleet.hours(12)
    assert Delivery(delivered=1, dead=1) == deliver_due(database, settings(receiver.url))
    assert ("dead", "delivered") == (state(fleet, old)[0], state(fleet, recent)[0])
    assert events.revive(fleet.conn, old)
    assert Delivery(delivered=1) == deliver_due(database, settings(receiver.url))


def test_nothing_is_sent_unsigned(fleet: Fleet, database: str, receiver: Receiver) -> None:
    """An address without a secret is said to be a problem, and the run that asked goes on."""
    happened(fleet)
    assert "WEBHOOK_SECRET is not" in str(deliver_due(database, settings(receiver.url, None)).problem)
    assert [] == receiver.requests


def test_a_deliverer_is_woken_by_what_a_run_announces(
    fleet: Fleet, database: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks at its start, sleeps, and is there when an event is committed; it ends when it is asked to."""
    monkeypatch.setattr(webhooks, "POLL_SECONDS", 3600)
    looked, stopping = threading.Semaphore(0), threading.Event()
    deliverer = Deliverer(database, settings(receiver.url), delivered=lambda _: looked.release())
    thread = threading.Thread(target=deliverer.run, args=(stopping,))
    thread.start()
    try:
        assert looked.acquire(timeout=180)
        fleet.instance(fleet.organization("0.50"), fleet.plan("7.30"))
        fleet.hours(1)
        fleet.bill()
        assert "runway_72h" == json.loads(receiver.queue.get(timeout=180).body)["kind"]
    finally:
        stopping.set()
        thread.join(180)
    assert not thread.is_alive()


def test_a_deliverer_finds_events_without_notifications(
    fleet: Fleet, database: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a pooler in transaction mode notifications do not come through; then it looks."""
    monkeypatch.setattr(webhooks, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(webhooks, "_NOTICE_SECONDS", 0.05)
    fleet.conn.execute("alter table billing_events disable trigger billing_notify_events")
    stopping = threading.Event()
    thread = threading.Thread(target=Deliverer(database, settings(receiver.url)).run, args=(stopping,))
    thread.start()
    try:
        happened(fleet)
        receiver.queue.get(timeout=180)
    finally:
        stopping.set()
        thread.join(180)


def test_a_deliverer_survives_a_lost_connection(fleet: Fleet, database: str, receiver: Receiver) -> None:
    """The server ends its connections; it comes back and delivers."""
    looked, stopping = threading.Semaphore(0), threading.Event()
    deliverer = Deliverer(database, settings(receiver.url), delivered=lambda _: looked.release())
    thread = threading.Thread(target=deliverer.run, args=(stopping,))
    thread.start()
    try:
        assert looked.acquire(timeout=180)
        fleet.conn.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()"
        )
        happened(fleet)
        receiver.queue.get(timeout=180)
    finally:
        stopping.set()
        thread.join(180)


def test_a_deliverer_without_an_address_ends_at_once(database: str) -> None:
    """There is nothing to do, and a thread that does nothing says nothing."""
    Deliverer(database, settings(None)).run(threading.Event())


Command = Callable[..., "subprocess.CompletedProcess[str]"]


def test_events_of_one_organization_are_counted_alone(command: Command, fleet: Fleet, database: str) -> None:
    """What waits for others is not counted, a quarantined instance is named as one, and a mistyped id is no empty list."""
    environment = {"DATABASE_URL": database}
    one, other = fleet.organization("0.20", name="One"), fleet.organization("9.00", name="Other")
    unheard = fleet.organization("9.00")
    plan = fleet.plan("7.30")
    fleet.instance(one, plan)
    fleet.instance(other, "no-such-plan")
    fleet.hours(1)
    fleet.bill()
    told = command("events", "--organization", str(other), environment=environment).stdout
    document = json.loads(
        command("events", "--organization", str(one), "--json", environment=environment).stdout
    )
    unknown = command("events", "--organization", str(uuid4()), environment=environment)
    quiet = command("events", "--organization", str(unheard), environment=environment)

    assert "Other: 1 instance quarantined or held" in told
    assert told.endswith("\n1 waits; without WEBHOOK_URL it can only be read.\n")
    assert (2, "One") == (document["waiting"], document["events"][0]["organization"])
    assert (2, "") == (unknown.returncode, unknown.stdout)
    assert "there is no organization" in unknown.stderr
    assert (0, "There are no such events.\n") == (quiet.returncode, quiet.stdout)


def test_the_verbs(command: Command, fleet: Fleet, database: str, receiver: Receiver) -> None:
    """List, test, deliver, retry and runways, as an operator calls them."""
    environment = {"DATABASE_URL": database, "WEBHOOK_URL": receiver.url, "WEBHOOK_SECRET": SECRET}
    organization = fleet.organization("0.20", name="A name that is much longer than any table has room for")
    fleet.instance(organization, fleet.plan("7.30"))
    fleet.hours(1)
    fleet.bill()

    listed = command("events", environment={"DATABASE_URL": database})
    assert ["runway_24h", "runway_72h"] == [line.split()[3] for line in listed.stdout.splitlines()[2:4]]
    assert "2 wait; without WEBHOOK_URL they can only be read." in listed.stdout
    assert "A name that is much l…: 19.0 h left" in listed.stdout

    tried = command("events", "test", "--json", environment={**environment, "DATABASE_URL": ""})
    assert (0, True) == (tried.returncode, json.loads(tried.stdout)["accepted"])
    assert "test" == json.loads(receiver.requests.pop().body)["kind"]

    sent = command("events", "deliver", "--json", environment=environment)
    assert {"delivered": 2, "failed": 0, "dead": 0, "waiting": 0} == json.loads(sent.stdout)
    document = json.loads(command("events", "--kind", "runway_24h", "--json", environment=environment).stdout)
    assert "delivered" == document["events"][0]["state"]
    number = str(document["events"][0]["sequence"])
    assert "1 event is due again.\n" == command("events", "retry", number, environment=environment).stdout
    assert 1 == command("events", "retry", "999", environment=environment).returncode
    assert 2 == command("events", "retry", environment=environment).returncode
    assert 2 == command("events", "--kind", "nonsense", environment=environment).returncode
    assert 78 == command("events", "deliver", environment={"DATABASE_URL": database}).returncode

    outcome = command("runways", environment=environment)
    shown = outcome.stdout
    assert "" == outcome.stderr
    assert "A name that is much l…" in shown
    assert max(len(line) for line in shown.splitlines()) <= 80
    runway = json.loads(command("runways", "--below", "24", "--json", environment=environment).stdout)[
        "runways"
    ][0]
    assert ("0.19", "0.01", "2026-03-01T20:00:00Z", 19.0, 24) == (
        runway["balance"],
        runway["burnPerHour"],
        runway["emptiesAt"],
        runway["hoursLeft"],
        runway["level"],
    )
    assert (
        []
        == json.loads(command("runways", "--below", "12", "--json", environment=environment).stdout)[
            "runways"
        ]
    )
