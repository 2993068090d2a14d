"""What the page says first, from what the tables say."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from containerstacks_billing.status.failover import Reading
from containerstacks_billing.status.model import Biller, DaemonRow, Health, Lease, Limits, RunRecord
from containerstacks_billing.status.verdict import (
    Tone,
    is_running,
    judge,
    next_run,
    successor,
    without_heartbeat,
)

NOW = datetime(2026, 3, 1, 12, 20, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
NINETY = timedelta(minutes=90)
LIMITS = Limits(NINETY, 5 * MINUTE, NINETY, 60 * MINUTE)


def run(outcome: str | None = "completed") -> RunRecord:
    at = NOW - 20 * MINUTE
    ended = at if outcome else None
    return RunRecord(
        1, outcome, "daemon", "h", None, at, at, ended, 1, 1, 1, Decimal(1), Decimal(1), 0, 0, 0, 1, 1.0, None
    )


def health(heartbeat: timedelta | None = MINUTE, ran: timedelta = 20 * MINUTE, **facts: object) -> Health:
    """A daemon that was heard of a while ago and ran a while ago."""
    beat = NOW - heartbeat if heartbeat is not None else None
    row = DaemonRow("d", "running", None, NOW - ran, True, 1, Decimal(1), Decimal(1), NOW, beat, None)
    known = {"last_finished": run(), "last_successful": run(), **facts}
    return Health(Reading(NOW, beat), row, **known)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seen", "tone", "headline", "notices"),
    [
        (Health(Reading(NOW)), Tone.QUIET, "Waiting for the first run", []),
        (health(), Tone.GOOD, "The billing daemon is on duty", []),
        (
            health(in_progress=run(None), lease=Lease("h", 20.0)),
            Tone.BUSY,
            "The billing daemon is billing now",
            [],
        ),
        (
            health(in_progress=run(None)),
            Tone.WARNING,
            "The billing daemon needs attention",
            ["A run was left open"],
        ),
        (
            health(last_finished=run("failed")),
            Tone.BAD,
            "The billing daemon needs attention",
            ["The last run failed"],
        ),
        (
            health(last_finished=run("held")),
            Tone.BAD,
            "The billing daemon needs attention",
            ["The last run was held"],
        ),
        (
            health(ran=NINETY),
            Tone.WARNING,
            "The billing daemon needs attention",
            ["The daemon hasn’t run in 90+ minutes"],
        ),
        (
            health(NINETY, NINETY),
            Tone.BAD,
            "Nobody is billing",
            ["The daemon hasn’t run in 90+ minutes"],
        ),
        (
            health(80 * MINUTE, 85 * MINUTE),
            Tone.WARNING,
            "The billing daemon is silent",
            ["No heartbeat for 5+ minutes"],
        ),
        (
            health(80 * MINUTE, NINETY),
            Tone.WARNING,
            "The billing daemon is silent",
            ["No heartbeat for 5+ minutes", "The daemon hasn’t run in 90+ minutes"],
        ),
    ],
    ids=[
        "first",
        "well",
        "busy",
        "left open",
        "failed",
        "held",
        "late",
        "nobody",
        "silent",
        "silent and late",
    ],
)
def test_the_headline_says_who_bills_and_the_notices_what_is_the_matter(
    seen: Health, tone: Tone, headline: str, notices: list[str]
) -> None:
    """One headline, one tone, and nothing is the matter without a notice."""
    said = judge(seen, LIMITS)
    assert (tone, headline) == (said.tone, said.headline)
    assert notices == [notice.title for notice in said.notices]


@pytest.mark.parametrize(
    "seen",
    [
        replace(health(None), last_finished=None),
        Health(Reading(NOW), last_finished=run()),
        Health(Reading(NOW), in_progress=run(None)),
    ],
    ids=["a daemon reported", "a run ended", "a run began"],
)
def test_billing_that_ever_began_is_not_waiting_for_its_first_run(seen: Health) -> None:
    """Each trace of it is enough to call silence an alarm."""
    said = judge(seen, LIMITS)
    assert (Tone.BAD, "Nobody is billing") == (said.tone, said.headline)


def test_a_host_that_bills_by_itself_is_said_before_the_first_run() -> None:
    """Right after the installation it is the host that bills, and nobody should think that nothing happens."""
    said = judge(Health(Reading(NOW, host_debit_at=NOW)), LIMITS)
    assert (Tone.WARNING, "The host application bills by itself") == (said.tone, said.headline)
    assert () == said.notices


def with_status(seen: Health, status: str) -> Health:
    assert seen.daemon is not None
    return replace(seen, daemon=replace(seen.daemon, status=status))


def test_a_daemon_that_somebody_stopped_is_not_on_duty_and_not_silent() -> None:
    """Its heartbeat is minutes old, and nobody bills."""
    for age in (MINUTE, 80 * MINUTE):
        said = judge(with_status(health(age), "stopped"), LIMITS)
        assert (Tone.WARNING, "The billing daemon is stopped") == (said.tone, said.headline)
        assert () == said.notices


def test_a_run_of_somebody_else_is_not_the_daemons() -> None:
    """Whoever runs billing by hand beside a daemon that is stopped makes it bill no more than before."""
    seen = health(in_progress=replace(run(None), trigger="command"), lease=Lease("h", 20.0))
    assert "A run is under way" == judge(with_status(seen, "stopped"), LIMITS).headline


def test_a_daemon_that_never_was_did_not_fail() -> None:
    """Built-in billing has taken over from nobody, and nobody waits for ninety minutes."""
    seen = Health(Reading(NOW, last_run_at=NOW - MINUTE), last_finished=run(), last_successful=run())
    said = judge(seen, LIMITS)
    assert (Tone.GOOD, "Built-in billing is on duty", ()) == (said.tone, said.headline, said.notices)
    failed = judge(replace(seen, last_finished=run("failed")), LIMITS)
    assert (Tone.BAD, ["The last run failed"]) == (failed.tone, [one.title for one in failed.notices])
    hosted = Health(Reading(NOW, host_debit_at=NOW))
    assert "bills until one comes" in without_heartbeat(seen, Biller.BUILT_IN, "auto")
    assert "takes over at once" in without_heartbeat(Health(Reading(NOW)), Biller.NOBODY, "auto")
    assert "goes on until one comes" in without_heartbeat(hosted, Biller.HOST, "auto")
    assert "takes over at once" in without_heartbeat(hosted, Biller.HOST, "on")
    assert "Nobody takes over" in without_heartbeat(hosted, Biller.HOST, "off")


def with_error(seen: Health) -> Health:
    return with_status(seen, "error")


@pytest.mark.parametrize(
    ("seen", "notices"),
    [
        (with_error(health()), ["The daemon reports an error"]),
        (with_error(health(last_finished=None)), ["The daemon reports an error"]),
        (with_error(health(last_finished=run("interrupted"))), ["The daemon reports an error"]),
        (with_error(health(last_finished=run("failed"))), ["The last run failed"]),
        (with_error(health(last_finished=run("held"))), ["The last run was held"]),
        (health(last_finished=None), []),
        (Health(Reading(NOW), last_finished=run()), []),
        (
            health(last_finished=run("held"), in_progress=run(None)),
            ["The last run was held", "A run was left open"],
        ),
    ],
    ids=["error", "error first", "error later", "failed", "held", "no run yet", "no daemon", "worst first"],
)
def test_one_trouble_is_one_notice_and_the_worst_is_the_first(seen: Health, notices: list[str]) -> None:
    """A daemon that reports an error because its run was held or failed says nothing twice."""
    assert notices == [notice.title for notice in judge(seen, LIMITS).notices]


def test_a_run_is_under_way_while_it_is_open_and_somebody_holds_the_lease() -> None:
    """A lease alone is a biller that waits; an open run alone is one whose process ended."""
    held = Lease("h", 20.0)
    assert is_running(health(in_progress=run(None), lease=held))
    assert not is_running(health(lease=held))
    assert not is_running(health(in_progress=run(None)))


def test_built_in_billing_that_has_taken_over_is_a_warning_and_no_alarm() -> None:
    """No hour is lost, so nobody has to be woken."""
    seen = health(100 * MINUTE, 110 * MINUTE)
    seen = replace(seen, failover=replace(seen.failover, last_run_at=NOW - 9 * MINUTE))
    said = judge(seen, LIMITS)
    assert (Tone.WARNING, "Built-in billing has taken over") == (said.tone, said.headline)
    assert ["Built-in billing provides automatic failover." in notice.text for notice in said.notices] == [
        True
    ]


def test_the_next_run_is_the_billers() -> None:
    """What the daemon announced, else an hour after its last; the built-in's own hour; nobody's never."""
    hour = timedelta(hours=1)
    seen = health()
    assert seen.daemon is not None
    announced = replace(seen, daemon=replace(seen.daemon, next_run_at="2026-03-01T13:00:00+00:00"))
    nonsense = replace(seen, daemon=replace(seen.daemon, next_run_at="tomorrow"))
    taken = replace(seen, failover=replace(seen.failover, last_run_at=NOW - 9 * MINUTE))
    assert NOW + 40 * MINUTE == next_run(announced, Biller.DAEMON, hour)
    assert NOW + 40 * MINUTE == next_run(nonsense, Biller.DAEMON, hour)
    assert NOW + 51 * MINUTE == next_run(taken, Biller.BUILT_IN, hour)
    assert next_run(announced, Biller.NOBODY, hour) is None
    assert next_run(taken, Biller.NOBODY, hour) is None
    assert next_run(seen, Biller.BUILT_IN, hour) is None
    assert next_run(replace(seen, daemon=None), Biller.DAEMON, hour) is None


def test_the_next_run_is_what_a_living_daemon_announced() -> None:
    """Told with its zone it is believed, without one it might be any hour; a daemon that stopped comes no more."""
    hour = timedelta(hours=1)
    row = health().daemon
    assert row is not None
    known = Reading(NOW, NOW, last_run_at=NOW - 9 * MINUTE)

    def told(**facts: object) -> datetime | None:
        return next_run(Health(known, replace(row, **facts)), Biller.DAEMON, hour)  # type: ignore[arg-type]

    assert NOW + 5 * MINUTE == told(next_run_at="2026-03-01T12:25:00+00:00")
    assert NOW + 40 * MINUTE == told(next_run_at="2026-03-01T12:25:00")
    assert told(next_run_at="2026-03-01T12:25:00+00:00", status="stopped") is None
    assert told(last_run_at=None) is None


def test_who_takes_over_depends_on_the_setting_and_the_host() -> None:
    """The page promises no failover that would not happen."""
    hosted = replace(health(), failover=Reading(NOW, NOW, host_debit_at=NOW))
    assert "Built-in billing takes over" == successor(health(), "auto")
    assert "The host’s own billing takes over" == successor(hosted, "auto")
    assert "Built-in billing takes over" == successor(hosted, "on")
    assert "nobody takes over" in successor(health(), "off")
