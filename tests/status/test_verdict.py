"""The verdict: who bills, who takes over and when, and what is wrong, from what the tables say."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from containerstacks_billing.settings import settings_from
from containerstacks_billing.status.failover import ApplicationSide, Reading
from containerstacks_billing.status.model import DaemonRow, Health, Lease, RunRecord
from containerstacks_billing.status.sentences import headline_of, next_due_of, sentence_of, takeover_of
from containerstacks_billing.status.verdict import Biller, Condition, Tone, Verdict, verdict_of

NOW = datetime(2026, 3, 1, 12, 20, tzinfo=UTC)
INSTANT = timedelta(microseconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
NINETY = timedelta(minutes=90)
SETTINGS = settings_from({})
OURS = (ApplicationSide("built-in host-1-7", "auto", NINETY, NOW),)


def judged(health: Health) -> Verdict:
    return verdict_of(health, SETTINGS)


def run(outcome: str | None = "completed", trigger: str = "daemon") -> RunRecord:
    at = NOW - 20 * MINUTE
    ended = at if outcome else None
    return RunRecord(
        1, outcome, trigger, "h", None, at, at, ended, 1, 1, 1, Decimal(1), Decimal(1), 0, 0, 0, 1, 1.0, None
    )


def health(
    heartbeat: timedelta | None = MINUTE, ran: timedelta = 20 * MINUTE, status: str = "running", **facts: Any
) -> Health:
    """A daemon whose heartbeat and last run are that old; facts of the reading, or of the health."""
    beat = NOW - heartbeat if heartbeat is not None else None
    row = DaemonRow("d", status, None, NOW - ran, True, 1, Decimal(1), Decimal(1), NOW - 9 * HOUR, beat, None)
    of_reading = {key: facts.pop(key) for key in list(facts) if key in Reading.__dataclass_fields__}
    known = {"daemon": row, "last_finished": run(), "last_successful": run(), **facts}
    return Health(Reading(NOW, beat, **of_reading), **known)


def without_daemon(**facts: Any) -> Health:
    return health(None, daemon=None, **facts)


@pytest.mark.parametrize(
    ("seen", "biller", "condition"),
    [
        (without_daemon(), Biller.NOBODY, Condition.ABSENT),
        (health(5 * MINUTE - INSTANT), Biller.DAEMON, Condition.RUNNING),
        (health(MINUTE, status="error"), Biller.DAEMON, Condition.ERROR),
        (health(5 * MINUTE), Biller.NOBODY, Condition.SILENT),
        (health(89 * MINUTE, built_in_run_at=NOW), Biller.NOBODY, Condition.SILENT),
        (health(NINETY - INSTANT, host_debit_at=NOW), Biller.NOBODY, Condition.SILENT),
        (health(MINUTE, status="stopped"), Biller.NOBODY, Condition.STOPPED),
        (health(NINETY, status="stopped", built_in_run_at=NOW), Biller.BUILT_IN, Condition.STOPPED),
        (health(NINETY), Biller.NOBODY, Condition.GONE),
        (health(None), Biller.NOBODY, Condition.GONE),
        (health(NINETY, built_in_run_at=NOW - 2 * HOUR + INSTANT), Biller.BUILT_IN, Condition.GONE),
        (health(NINETY, built_in_run_at=NOW - 2 * HOUR), Biller.NOBODY, Condition.GONE),
        (health(NINETY, built_in_run_at=NOW + 25 * HOUR), Biller.NOBODY, Condition.GONE),
        (health(NINETY, built_in_run_at=NOW - 2 * HOUR, host_debit_at=NOW), Biller.HOST, Condition.GONE),
        (without_daemon(host_debit_at=NOW), Biller.HOST, Condition.ABSENT),
        (without_daemon(built_in_run_at=NOW, host_debit_at=NOW), Biller.BUILT_IN, Condition.ABSENT),
    ],
)
def test_the_biller_is_what_bills_and_not_what_is_expected_to(
    seen: Health, biller: Biller, condition: Condition
) -> None:
    """A daemon that is stopped or silent does not bill, though nothing takes over for another while."""
    verdict = judged(seen)
    assert (biller, condition) == (verdict.biller, verdict.condition)


@pytest.mark.parametrize(
    ("trigger", "lease", "biller", "in_progress"),
    [
        ("daemon", Lease("h", 20.0), Biller.DAEMON, True),
        ("built-in", Lease("h", 20.0), Biller.BUILT_IN, True),
        ("manual", Lease("h", 20.0), Biller.NOBODY, True),
        ("daemon", Lease("another", 20.0), Biller.NOBODY, False),
        ("daemon", Lease(), Biller.NOBODY, False),
    ],
)
def test_a_run_is_in_progress_while_its_own_holder_has_the_lease(
    trigger: str, lease: Lease, biller: Biller, in_progress: bool
) -> None:
    """An open run without the lease is one whose process ended; a run by hand makes nothing a biller."""
    verdict = judged(health(80 * MINUTE, in_progress=run(None, trigger), lease=lease))
    assert (biller, in_progress) == (verdict.biller, verdict.run_in_progress)


@pytest.mark.parametrize(
    ("seen", "who", "at", "words"),
    [
        (health(80 * MINUTE), "nobody", None, "Nothing takes over: no application side has looked within 5 minutes"),
        (health(80 * MINUTE, application_sides=OURS), "built-in", NOW + 10 * MINUTE, "Built-in billing takes over in 10 min 0 s."),
        (health(NINETY, application_sides=OURS), "built-in", NOW, "Built-in billing takes over at once."),
        (health(80 * MINUTE, host_debit_at=NOW), "host", NOW + 10 * MINUTE, "The host’s own scheduler takes over in 10 min 0 s."),
        (without_daemon(application_sides=OURS), "built-in", None, "Built-in billing takes over at once."),
    ],
)  # fmt: skip
def test_a_takeover_has_a_time_only_where_something_takes_over(
    seen: Health, who: str, at: datetime | None, words: str
) -> None:
    """Without an application side, and without a scheduler of the host, no face promises one."""
    verdict = judged(seen)
    assert (who, at) == (verdict.failover.who, verdict.takeover_at)
    assert takeover_of(verdict, timed=True).startswith(words)


@pytest.mark.parametrize(
    ("seen", "since"),
    [
        (health(), NOW - 9 * HOUR),
        (health(80 * MINUTE), NOW - 80 * MINUTE),
        (health(100 * MINUTE, built_in_run_at=NOW, application_sides=OURS), NOW - 10 * MINUTE),
        (without_daemon(), None),
    ],
)
def test_since_when_is_known(seen: Health, since: datetime | None) -> None:
    """A daemon since its start, built-in billing since its takeover, nothing since the last heartbeat."""
    assert since == judged(seen).since


@pytest.mark.parametrize(
    ("ran", "started", "late"),
    [
        (NINETY - INSTANT, HOUR, False),
        (NINETY, HOUR, True),
        (None, HOUR, False),
        (None, NINETY, True),
        (None, None, True),
    ],
)
def test_a_run_is_late_from_ninety_minutes_after_the_last_one(
    ran: timedelta | None, started: timedelta | None, late: bool
) -> None:
    """To the microsecond; a daemon that never ran has as long from its start, and without a start no time."""
    at, began = (NOW - one if one is not None else None for one in (ran, started))
    row = DaemonRow("d", "running", None, at, True, 1, Decimal(1), Decimal(1), began, NOW, None)
    assert late == judged(health(daemon=row)).run_is_late


@pytest.mark.parametrize(
    ("seen", "tone", "headline", "problems"),
    [
        (Health(Reading(NOW)), Tone.QUIET, "Waiting for the first run", []),
        (health(), Tone.GOOD, "The billing daemon is on duty", []),
        (health(in_progress=run(None), lease=Lease("h", 20.0)), Tone.BUSY, "The billing daemon is billing now", []),
        (health(in_progress=run(None)), Tone.WARNING, "The billing daemon needs attention", ["A run was left open"]),
        (health(last_finished=run("failed")), Tone.BAD, "The billing daemon needs attention", ["The last run failed"]),
        (health(last_finished=run("held")), Tone.BAD, "The billing daemon needs attention", ["The last run was held"]),
        (health(ran=NINETY), Tone.WARNING, "The billing daemon needs attention", ["The daemon hasn’t run in 90+ minutes"]),
        (health(NINETY, NINETY), Tone.BAD, "Nobody is billing", ["The daemon hasn’t run in 90+ minutes"]),
        (health(80 * MINUTE, 85 * MINUTE), Tone.WARNING, "The billing daemon is silent", ["No heartbeat for 5+ minutes"]),
        (health(80 * MINUTE, NINETY), Tone.WARNING, "The billing daemon is silent",
         ["No heartbeat for 5+ minutes", "The daemon hasn’t run in 90+ minutes"]),
        (health(MINUTE, status="stopped"), Tone.WARNING, "The billing daemon is stopped", []),
        (health(80 * MINUTE, status="stopped"), Tone.WARNING, "The billing daemon is stopped", []),
        (health(NINETY, status="stopped"), Tone.BAD, "Nobody is billing", []),
        (health(status="error"), Tone.BAD, "The billing daemon needs attention", ["The daemon reports an error"]),
        (health(status="error", last_finished=run("failed")), Tone.BAD, "The billing daemon needs attention",
         ["The last run failed"]),
        (health(last_finished=run("held"), in_progress=run(None)), Tone.BAD, "The billing daemon needs attention",
         ["The last run was held", "A run was left open"]),
        (health(host_debit_at=NOW), Tone.WARNING, "The billing daemon needs attention", ["The host application bills too"]),
        (health(host_debit_at=NOW - 2 * HOUR), Tone.GOOD, "The billing daemon is on duty", []),
        (health(100 * MINUTE, built_in_run_at=NOW - 9 * MINUTE), Tone.WARNING, "Built-in billing has taken over", []),
        (health(None, last_finished=None), Tone.BAD, "Nobody is billing", []),
        (without_daemon(), Tone.BAD, "Nobody is billing", []),
        (without_daemon(built_in_run_at=NOW), Tone.GOOD, "Built-in billing is on duty", []),
        (without_daemon(built_in_run_at=NOW, last_finished=run("failed")), Tone.BAD, "Built-in billing is on duty",
         ["The last run failed"]),
        (Health(Reading(NOW, host_debit_at=NOW)), Tone.WARNING, "The host application bills by itself", []),
        (health(status="stopped", in_progress=run(None, "manual"), lease=Lease("h", 20.0)), Tone.BUSY,
         "A run is in progress", []),
    ],
)  # fmt: skip
def test_the_headline_says_who_bills_and_the_problems_what_is_wrong(
    seen: Health, tone: Tone, headline: str, problems: list[str]
) -> None:
    """One headline, one tone, each problem once and the worst first."""
    verdict = judged(seen)
    assert (tone, headline) == headline_of(verdict)[:2]
    assert problems == [problem.title for problem in verdict.problems]


@pytest.mark.parametrize(
    ("seen", "sentence"),
    [
        (health(), "The billing daemon d bills; its last heartbeat was 1 min 0 s ago."),
        (health(status="error"), "The billing daemon d reports an error; its last heartbeat was 1 min 0 s ago."),
        (health(80 * MINUTE, application_sides=OURS),
         "Nothing bills at present: the daemon d is silent, its last heartbeat was 1 h 20 min ago. "
         "Built-in billing takes over in 10 min 0 s."),
        (health(None), "Nothing bills at present: the daemon d is silent, its last heartbeat is unknown. Nothing takes over: "
         "no application side has looked within 5 minutes, and the host debited no wallet within 7 days."),
        (without_daemon(built_in_run_at=NOW), "Built-in billing bills. No billing daemon has ever run on this database."),
    ],
)  # fmt: skip
def test_one_line_says_who_bills_and_what_follows(seen: Health, sentence: str) -> None:
    """The line of `status`; the time of the takeover belongs to it, and where nothing takes over, the reason."""
    assert sentence == sentence_of(judged(seen))


def test_a_daemon_that_is_alive_and_late_is_not_said_to_have_failed() -> None:
    """Each condition has its own explanation."""

    def text(seen: Health) -> str:
        return judged(seen).problems[-1].text

    assert "It is alive, but no run of it has ended; its log names the reason." == text(health(ran=NINETY))
    assert "It has probably failed: its heartbeat is missing as well." == text(health(80 * MINUTE, NINETY))
    assert "It is stopped." == text(health(80 * MINUTE, NINETY, status="stopped"))
    assert "It has probably failed. Built-in billing provides automatic failover." == text(
        health(100 * MINUTE, 110 * MINUTE, built_in_run_at=NOW)
    )


def test_the_next_run_is_the_billers() -> None:
    """The instant that the daemon announced, else an hour after its last run; the built-in's own hour; else none."""

    def next_run(seen: Health, announced: str | None = None) -> datetime | None:
        assert seen.daemon is not None
        return judged(replace(seen, daemon=replace(seen.daemon, next_run_at=announced))).next_run

    assert NOW + 40 * MINUTE == next_run(health(), "2026-03-01T13:00:00+00:00")
    assert NOW + 40 * MINUTE == next_run(health(), "tomorrow")
    assert NOW + 5 * MINUTE == next_run(health(), "2026-03-01T12:25:00+00:00")
    assert NOW + 40 * MINUTE == next_run(health(), "2026-03-01T12:25:00")
    assert NOW + 5 * MINUTE == next_run(health(80 * MINUTE), "2026-03-01T12:25:00+00:00")
    assert NOW + 51 * MINUTE == next_run(health(NINETY, built_in_run_at=NOW - 9 * MINUTE))
    assert next_run(health(status="stopped"), "2026-03-01T12:25:00+00:00") is None
    assert next_run(health(NINETY), "2026-03-01T13:00:00+00:00") is None
    assert judged(without_daemon()).next_run is None


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (health(), "in 40 min 0 s"),
        (health(ran=70 * MINUTE), "now"),
        (health(80 * MINUTE, 80 * MINUTE), "overdue for 20 min 0 s"),
        (health(status="stopped"), "when the daemon starts"),
        (without_daemon(), "when a daemon or built-in billing is started"),
        (without_daemon(host_debit_at=NOW), "by the host application"),
    ],
)
def test_when_the_next_run_is_due(seen: Health, words: str) -> None:
    """A daemon that is silent is overdue; one that is alive runs now."""
    assert words == next_due_of(judged(seen))
