"""What counts as progress, what counts as a step, and how often a trouble is mentioned. The clock is the test's."""

from __future__ import annotations

import io
import os
import socket
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from containerstacks_billing import logs
from containerstacks_billing.charging.model import Outcome, Progress, RunResult
from containerstacks_billing.clock import Clock
from containerstacks_billing.daemon.model import DaemonStatus, describe, judge, problem_of
from containerstacks_billing.daemon.progress import LoopProgress
from containerstacks_billing.daemon.systemd_notify import notify, watchdog_seconds
from containerstacks_billing.daemon.watchdog import should_feed
from containerstacks_billing.errors import DatabaseUnavailable, LoginRefused
from containerstacks_billing.throttled_log import RecurringError

AS_OF = datetime(2026, 3, 1, 5, tzinfo=UTC)


class Hand(Clock):
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.at = 1000.0

    def monotonic(self) -> float:
        """Return where the hand stands."""
        return self.at


def result(outcome: Outcome = Outcome.COMPLETED, message: str | None = None) -> RunResult:
    return RunResult(7, outcome, "daemon", AS_OF, 3, Decimal(15), Decimal("0.15"), 0, 0, 0, 1, 2.0, message)


def batch(number: int) -> Progress:
    return Progress(number * 10, 100, number, 10, Decimal(number))


def test_waiting_for_a_tick_is_progress_until_it_is_due() -> None:
    """An hour of waiting is no silence; an hour after the tick without a run is one."""
    clock = Hand()
    progress = LoopProgress(clock)
    progress.waiting(clock.at + 3600)
    clock.at += 3600
    assert 0 == progress.silent_seconds()
    clock.at += 5400
    assert (5400, 5400) == (progress.silent_seconds(), progress.stalled_seconds())


def test_a_run_makes_progress_with_each_batch() -> None:
    """Planning it is a step; the first batch that is committed is progress."""
    clock = Hand()
    progress = LoopProgress(clock)
    progress.started()
    clock.at += 100
    progress.progressed(7, batch(0))
    assert (100, 0) == (progress.silent_seconds(), progress.stalled_seconds())
    progress.progressed(7, batch(1))
    assert 0 == progress.silent_seconds()
    clock.at += 60
    assert (60, 60) == (progress.silent_seconds(), progress.stalled_seconds())


def test_failed_attempts_are_steps_and_no_progress() -> None:
    """A database that is away for two hours makes the daemon silent, and is no reason to restart it."""
    clock = Hand()
    progress = LoopProgress(clock)
    for _ in range(120):
        progress.started()
        progress.failed("away")
        progress.retrying(clock.at + 60)
        clock.at += 60
    assert (7200, 0) == (progress.silent_seconds(), progress.stalled_seconds())
    beat = progress.beat("me", 5400, {}, stopped=False)
    assert (DaemonStatus.ERROR, 7200, False) == (beat.status, beat.silent_seconds, beat.last_run_success)
    assert "billing has made no progress for 120 minutes; away" == beat.error_message


@pytest.mark.parametrize("outcome", [Outcome.HELD, Outcome.FAILED, Outcome.INTERRUPTED])
def test_a_run_that_ended_is_progress_however_it_ended(outcome: Outcome) -> None:
    """The loop works; what is wrong stands in the message until a run succeeds."""
    clock = Hand()
    progress = LoopProgress(clock)
    clock.at += 9000
    progress.started()
    progress.ended(result(outcome, "a price rose"))
    beat = progress.beat("me", 5400, {}, stopped=False)
    assert (DaemonStatus.ERROR, 0, False) == (beat.status, beat.silent_seconds, beat.last_run_success)

    progress.ended(result())
    beat = progress.beat("me", 5400, {}, stopped=False)
    assert (DaemonStatus.RUNNING, True, None) == (beat.status, beat.last_run_success, beat.error_message)


def test_waiting_for_another_biller_is_no_problem() -> None:
    """Its message is not kept, and what was wrong before stays."""
    progress = LoopProgress(Hand())
    progress.failed(None)
    assert progress.beat("me", 5400, {}, stopped=False).error_message is None
    progress.failed("broken")
    progress.failed(None)
    assert "broken" == progress.beat("me", 5400, {}, stopped=False).error_message


def test_the_watchdog_is_fed_only_while_both_loops_take_their_steps() -> None:
    """A stalled thread is named and stops the watchdog; an unreachable database does not."""
    hand = Hand()
    progress = LoopProgress(hand)
    late = {"billing": progress.stalled_seconds, "heartbeat": lambda: 0.0}
    for _ in range(100):
        # Failed attempts with their pauses, for hours.
        progress.started()
        progress.failed("The database refuses connections.")
        hand.at += 60
        progress.retrying(hand.at)
    assert (True, None) == should_feed(late, 300)
    hand.at += 301
    fed, said = should_feed(late, 300)
    assert (False, True) == (fed, "billing takes no step" in str(said))

    progress.started()
    fed, said = should_feed({**late, "heartbeat": lambda: 301.0}, 300)
    assert (False, True) == (fed, "heartbeat takes no step" in str(said))


def test_stopped_is_what_a_stopped_daemon_says() -> None:
    """However long it has been silent, and with its facts."""
    clock = Hand()
    progress = LoopProgress(clock)
    progress.ended(result())
    clock.at += 9000
    beat = progress.beat("me", 5400, {}, stopped=True)
    assert (DaemonStatus.STOPPED, 0, True, 3) == (
        beat.status,
        beat.silent_seconds,
        beat.last_run_success,
        beat.last_run.instances_billed,
    )
    assert "stopped; last run 2026-03-01 05:00 UTC completed, 3 instances, 0.15" == describe(beat)


def test_the_line_of_systemctl_status_is_a_sentence_each() -> None:
    """A problem without a second full stop, and a run that is due within the minute in seconds."""
    progress = LoopProgress(clock := Hand())
    progress.failed("no PostgreSQL is listening there.")
    progress.waiting(clock.at + 30)
    beat = progress.beat("me", 5400, {}, stopped=False)
    assert "error: no PostgreSQL is listening there; no run yet; next run in 30 s" == describe(beat)
    unwritten = describe(beat, "The database is away.")
    assert "error: the heartbeat cannot be written: The database is away; no run yet" == unwritten


def test_the_heartbeat_is_kept_until_readers_would_have_given_up() -> None:
    """A daemon that is silent for 89 minutes may still be in the middle of something."""
    assert (DaemonStatus.RUNNING, None, 0.0) == judge(None, 5399, 5400)
    assert (DaemonStatus.ERROR, "billing has made no progress for 90 minutes", 5400) == judge(
        None, 5400, 5400
    )


def test_a_hold_is_named_once() -> None:
    """A run that an earlier hold stops reports that hold."""
    assert "run 7 was held: a price rose" == problem_of(result(Outcome.HELD, "a price rose"))
    assert "run 5 was held: a price rose" == problem_of(result(Outcome.HELD, "run 5 was held: a price rose"))


def test_a_lasting_trouble_is_said_at_once_and_then_ever_more_rarely() -> None:
    """Two hours of failures every ten seconds: 8 lines and the end, and a new kind of trouble speaks at once."""
    stream = io.StringIO()
    logs.configure("info", "logfmt", stream=stream, environment={})
    clock = Hand()
    complaint = RecurringError(clock, "It is broken", "It works")
    for _ in range(720):
        complaint.report(DatabaseUnavailable("away"))
        clock.at += 10
    assert 7 == stream.getvalue().count("It is broken")
    complaint.report(LoginRefused("who are you", "look at the password"))
    assert 'hint="look at the password" for_minutes=120' in stream.getvalue()
    assert (True, False) == (complaint.resolved(), complaint.resolved())
    assert 1 == stream.getvalue().count("It works")


@pytest.mark.parametrize("abstract", [True, False])
def test_systemd_hears_us_on_both_kinds_of_socket(tmp_path: Path, abstract: bool) -> None:
    """A path in the file system, or a name that begins with @; a line break cannot add an assignment."""
    name = f"containerstacks-notify-{os.getpid()}"
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(f"\0{name}" if abstract else path)
        systemd.settimeout(180)
        sent = notify(
            "READY=1", "STATUS=a\nERRNO=1", environment={"NOTIFY_SOCKET": f"@{name}" if abstract else path}
        )
        assert (True, b"READY=1\nSTATUS=a ERRNO=1") == (sent, systemd.recv(100))


def test_without_systemd_nothing_happens(tmp_path: Path) -> None:
    """No socket, one that is gone, and a watchdog that is meant for another process."""
    assert not notify("READY=1", environment={})
    assert not notify("READY=1", environment={"NOTIFY_SOCKET": str(tmp_path / "gone")})
    assert watchdog_seconds({}) is None
    assert watchdog_seconds({"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}) is None
    assert 30 == watchdog_seconds({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())})
