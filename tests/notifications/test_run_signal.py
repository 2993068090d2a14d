"""The signal to HEARTBEAT_URL: sent after runs that completed, by whichever process billed, and never shown."""

from __future__ import annotations

import json
from collections.abc import Iterator

import psycopg
import pytest
from tests.command import Command
from tests.fleet import Fleet
from tests.receiver import Receiver, receiving

from containerstacks_billing.notifications.run_signal import send

PATH = "canary-path-5d1c"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


def address(receiver: Receiver) -> str:
    return f"http://127.0.0.1:{receiver.port}/{PATH}/"


def paths(receiver: Receiver) -> list[tuple[str, str]]:
    return [(one.method, one.path) for one in receiver.requests]


@pytest.fixture
def fleet(conn: psycopg.Connection[object]) -> Fleet:
    fleet = Fleet(conn)
    fleet.instance(fleet.organization("10.00"), fleet.plan("7.30"))
    fleet.hours(1)
    return fleet


@pytest.mark.parametrize(
    ("steps", "expected"),
    [("off", [("GET", f"/{PATH}/")]), ("on", [("GET", f"/{PATH}/start"), ("GET", f"/{PATH}/")])],
)
def test_a_run_sends_a_signal_when_it_completed(
    fleet: Fleet, command: Command, receiver: Receiver, steps: str, expected: list[tuple[str, str]]
) -> None:
    """A GET without a body; and one as it begins, where that is wanted."""
    environment = {
        "DATABASE_URL": fleet.conninfo,
        "HEARTBEAT_URL": address(receiver),
        "HEARTBEAT_STEPS": steps,
    }
    assert command("run", "--json", environment=environment).returncode == 0
    assert expected == paths(receiver)


def test_a_held_run_sends_none_and_one_that_failed_says_so_only_where_that_is_wanted(
    fleet: Fleet, command: Command, receiver: Receiver
) -> None:
    """Silence is the alarm: a run that charged nothing must not look like one that did."""
    fleet.bill()
    (plan,) = fleet.rows("select id from vps_plans")
    fleet.reprice(plan.id, "73.00")
    fleet.hours(1)
    environment = {"DATABASE_URL": fleet.conninfo, "HEARTBEAT_URL": address(receiver)}
    held = command("run", "--json", environment=environment)
    first = paths(receiver)
    missing = fleet.conninfo.replace("dbname=", "dbname=no_such_")
    wanted = {**environment, "DATABASE_URL": missing, "HEARTBEAT_STEPS": "on"}
    failed = command("run", environment=wanted)

    assert ("held", []) == (json.loads(held.stdout)["outcome"], first)
    assert failed.returncode != 0
    assert [("GET", f"/{PATH}/start"), ("GET", f"/{PATH}/fail")] == paths(receiver)


@pytest.mark.parametrize(("status", "headers"), [(302, {"Location": "/elsewhere"}), (500, {})])
def test_a_refusal_is_a_warning_without_the_address(
    fleet: Fleet, command: Command, receiver: Receiver, status: int, headers: dict[str, str]
) -> None:
    """The run is good whatever its receiver answers; a redirect would carry the path elsewhere and is not followed."""
    receiver.answers, receiver.headers = lambda _: status, headers
    done = command("run", environment={"DATABASE_URL": fleet.conninfo, "HEARTBEAT_URL": address(receiver)})

    assert done.returncode == 0
    assert [("GET", f"/{PATH}/")] == paths(receiver)
    assert f"the receiver answered {status}" in done.stderr
    assert PATH not in done.stderr + done.stdout


def test_doctor_and_verify_send_one_on_request(fleet: Fleet, command: Command, receiver: Receiver) -> None:
    """`doctor --ping` tries the address, `verify --ping` reports that the books are right, and nothing when not."""
    environment = {"DATABASE_URL": fleet.conninfo, "HEARTBEAT_URL": address(receiver)}
    examined = command("doctor", "--ping", "--json", environment=environment)
    lines = {one["check"]: one["level"] for one in json.loads(examined.stdout)["findings"]}
    right = command("verify", "--ping", address(receiver), environment=environment)
    fleet.bill()
    fleet.conn.execute("update vps_billing_cycles set total_amount = total_amount + 1")
    wrong = command("verify", "--ping", address(receiver), environment=environment)

    assert "OK" == lines["heartbeat URL"]
    assert (0, 1) == (right.returncode, wrong.returncode), right.stderr + wrong.stderr
    assert [("GET", f"/{PATH}/")] * 2 == paths(receiver)


def test_an_address_that_nothing_answers_at_is_named_without_its_path(receiver: Receiver) -> None:
    """The reason alone: what stands in a log must not let others send the signal."""
    problem = send(f"http://127.0.0.1:1/{PATH}")

    assert problem is not None
    assert PATH not in problem


@pytest.mark.parametrize("verb", ["run", "doctor", "config"])
def test_the_address_is_shown_nowhere(command: Command, verb: str) -> None:
    """Not in errors about it either."""
    environment = {"HEARTBEAT_URL": f"ftp://checks.example.org/{PATH}"}
    done = command(*(("config", "show") if verb == "config" else (verb,)), environment=environment)

    assert "HEARTBEAT_URL" in done.stdout + done.stderr
    assert PATH not in done.stdout + done.stderr
