"""Logs: one line per event, in the reader's form, without secrets."""

import io
import json
import logging
from decimal import Decimal

import psycopg
import pytest

from containerstacks_billing import logs
from containerstacks_billing.database.connection import connect, read_pipeline

SECRET = "canary-5d1c6a"
JOURNAL = {"JOURNAL_STREAM": "8:1"}


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Pretend."""
        return True


def lines(stream: io.StringIO) -> list[str]:
    return stream.getvalue().splitlines()


def test_logfmt_keeps_the_sentence_and_names_the_facts() -> None:
    """Operators search for the sentence, programs for the facts."""
    stream = io.StringIO()
    logs.configure(stream=stream, environment=JOURNAL)
    with logs.bound(run=7, token=3):
        logs.logger().info("Billing daemon is active, skipping built-in billing", age_seconds=12, ok=True)
    assert lines(stream) == [
        '<6>level=info event="Billing daemon is active, skipping built-in billing" run=7 token=3 '
        "age_seconds=12 ok=true"
    ]


@pytest.mark.parametrize("form", ["logfmt", "json", "terminal"])
def test_facts_keep_their_order_and_what_is_no_fact_is_left_out(form: logs.Form) -> None:
    """The run and its token first, then as the program gives them; an amount has two digits like the hours beside it."""
    stream = io.StringIO()
    logs.configure(form=form, stream=stream, environment={})
    facts = {"hours": Decimal("0.00"), "amount": Decimal(0), "held": None, "batches": None}
    logs.logger().info("Billing run completed", instances=5, **facts, token=3, run=7)
    (line,) = lines(stream)
    assert "held" not in line
    places = [line.index(word) for word in ("run", "token", "instances", "hours", "amount")]
    assert sorted(places[1:]) == places[1:]
    assert 2 == line.count("0.00")


@pytest.mark.parametrize("form", ["logfmt", "json", "terminal"])
def test_every_line_carries_its_priority_for_the_journal(form: logs.Form) -> None:
    """`journalctl -p err` shows exactly the errors, those of libraries included."""
    stream = io.StringIO()
    logs.configure("debug", form, stream=stream, environment=JOURNAL)
    logs.logger().debug("one")
    logs.logger().info("two")
    logs.logger().warning("three")
    logs.logger().error("four\n<0>forged")
    logging.getLogger("psycopg.pool").error("five")
    assert [line[:3] for line in lines(stream)] == ["<7>", "<6>", "<4>", "<3>", "<3>"]


def test_an_exception_is_one_line() -> None:
    """A traceback over many lines would be many events; it comes with debug, escaped."""
    stream = io.StringIO()
    logs.configure(stream=stream, environment=JOURNAL)
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        logs.logger().exception("Heartbeat failed")
    assert lines(stream) == [r'<3>level=error event="Heartbeat failed" error="ValueError: first\nsecond"']
    logs.configure("debug", stream=stream, environment=JOURNAL)
    try:
        raise ValueError("third")
    except ValueError:
        logs.logger().exception("Heartbeat failed")
    assert len(lines(stream)) == 2
    assert "Traceback" in lines(stream)[1]


def test_json_is_one_document_per_line() -> None:
    """Nothing but JSON where a collector reads, with UTC times."""
    stream = io.StringIO()
    logs.configure(form="json", stream=stream, environment={})
    logs.logger().info("Billing run completed", label="a\nb", nested={"password": 1, "x": [SECRET]})
    document = json.loads(stream.getvalue())
    assert document["event"] == "Billing run completed"
    assert document["label"] == "a\nb"
    assert document["time"].endswith("Z")


@pytest.mark.parametrize(
    ("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_a_terminal_is_readable_and_coloured_only_where_wanted(
    environment: dict[str, str], coloured: bool
) -> None:
    """NO_COLOR and dumb terminals are honoured."""
    stream = Terminal()
    logs.configure(stream=stream, environment=environment)
    logs.logger().info("Billing run completed", instances=5)
    (line,) = lines(stream)
    assert "Billing run completed" in line
    assert ("\x1b[" in line) is coloured


def test_a_label_can_neither_colour_nor_forge_a_line() -> None:
    """Control characters are escaped in every value."""
    stream = Terminal()
    logs.configure(stream=stream, environment={"NO_COLOR": "1"})
    logs.logger().info("Instance quarantined", label="x\x1b[31m\n12:00:00 [info] forged")
    assert len(lines(stream)) == 1
    assert "\x1b" not in stream.getvalue()


@pytest.mark.parametrize("form", ["logfmt", "json", "terminal"])
def test_no_secret_is_ever_logged(form: logs.Form) -> None:
    """By shape, by known value, by key, in lists, in exceptions, in lines of libraries."""
    stream = io.StringIO()
    logs.configure("debug", form, [f'a"{SECRET}'], stream, {})
    log = logs.logger()
    log.info(f'using a"{SECRET}', items=[f'a"{SECRET}'], where={"x": f'a"{SECRET}'})
    log.info("shapes", url=f"postgresql://u:{SECRET}@h/d", header=f"Bearer {SECRET}", password=SECRET)
    logging.getLogger("uvicorn").warning("connecting to %s", f"postgresql://u:{SECRET}@h/d")
    try:
        raise ValueError(f"postgres://u:{SECRET}/x@h")
    except ValueError:
        log.exception("failed")
    assert len(lines(stream)) == 4
    assert SECRET not in stream.getvalue()


def test_the_level_is_the_least_severe_event_that_is_logged() -> None:
    """For our events and for those of libraries alike."""
    stream = io.StringIO()
    logs.configure("warning", stream=stream, environment=JOURNAL)
    logs.logger().info("one")
    logging.getLogger("library").info("two")
    logs.logger().warning("three")
    assert lines(stream) == ["<4>level=warning event=three"]


def test_the_driver_does_not_warn_beside_our_own_error(database: str) -> None:
    """A statement that is refused ends those behind it; psycopg would log that, and the refusal alone is reported."""
    stream = io.StringIO()
    logs.configure(stream=stream, environment=JOURNAL)
    with connect(database, purpose="reading") as connection, pytest.raises(psycopg.errors.DivisionByZero):
        with read_pipeline(connection):
            refused = connection.execute("select 1/0")
            connection.execute("select 2")
            refused.fetchone()
    assert "" == stream.getvalue()
