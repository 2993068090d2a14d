"""The sentences of a verdict, alike on every face: headline, biller, takeover, next run.

None of them but `sentence_of` names a process, and none a customer or a figure of money, so the public page may show
them.
"""

from __future__ import annotations

from containerstacks_billing.status.verdict import Biller, Condition, Tone, Verdict
from containerstacks_billing.text import span

_LOST = "No hour is lost: the next run charges every hour that is due."


def sentence_of(verdict: Verdict) -> str:
    """Return who bills, the condition of the daemon, and who takes over, for one line of a terminal."""
    daemon, beat = verdict.daemon_id, verdict.heartbeat_at
    heard = (
        f"its last heartbeat was {span(verdict.now - beat)} ago" if beat else "its last heartbeat is unknown"
    )
    if verdict.condition is Condition.RUNNING:
        return f"The billing daemon {daemon} bills; {heard}."
    if verdict.condition is Condition.ERROR:
        return f"The billing daemon {daemon} reports an error; {heard}."
    bills = {
        Biller.DAEMON: "The billing daemon bills",
        Biller.BUILT_IN: "Built-in billing bills",
        Biller.HOST: "The host application bills by itself",
        Biller.NOBODY: "Nothing bills at present",
    }[verdict.biller]
    if verdict.condition is Condition.ABSENT:
        found = f"{bills}. No billing daemon has ever run on this database."
    else:
        state = "is stopped" if verdict.condition is Condition.STOPPED else "is silent"
        found = f"{bills}: the daemon {daemon} {state}, {heard}."
    return f"{found} {takeover_of(verdict, timed=True)}" if verdict.biller is Biller.NOBODY else found


def present_of(verdict: Verdict) -> str:
    """Return the biller in words."""
    return {
        Biller.DAEMON: "the daemon",
        Biller.BUILT_IN: "built-in billing",
        Biller.HOST: "the host application",
        Biller.NOBODY: "nothing",
    }[verdict.biller]


def takeover_of(verdict: Verdict, *, timed: bool = False) -> str:
    """Return what takes over when the daemon is silent, with the time until then where `timed`."""
    target, at = verdict.failover, verdict.takeover_at
    if target.who == "nobody":
        return f"{target.sentence}: {target.reason}."
    if not timed:
        return target.sentence
    if at is None or at <= verdict.now:
        return f"{target.sentence} at once."
    return f"{target.sentence} in {span(at - verdict.now)}."


def next_due_of(verdict: Verdict) -> str:
    """Return when the next run is due, as `in 22 min 0 s`, or what has to happen first."""
    due = verdict.next_run
    if due is None:
        if verdict.biller is Biller.HOST:
            return "by the host application"
        if verdict.biller is Biller.DAEMON and verdict.condition is not Condition.STOPPED:
            return "now"
        if verdict.condition is Condition.ABSENT:
            return "when a daemon or built-in billing is started"
        return "when the daemon starts"
    if due > verdict.now:
        return f"in {span(due - verdict.now)}"
    silent = verdict.condition is Condition.SILENT
    return f"overdue for {span(verdict.now - due)}" if silent else "now"


def headline_of(verdict: Verdict) -> tuple[Tone, str, str]:
    """Return tone, headline and explanation, as the page shows them first."""
    tone, headline, text = _headline(verdict)
    if verdict.problems and verdict.biller is Biller.DAEMON and tone is Tone.GOOD:
        headline, text = "The billing daemon needs attention", "It is alive. What is wrong is named below."
    if verdict.problems and (verdict.biller is Biller.DAEMON or tone is Tone.GOOD):
        tone = verdict.problems[0].tone
    return tone, headline, text


def _headline(verdict: Verdict) -> tuple[Tone, str, str]:
    if not verdict.has_history and verdict.biller is Biller.NOBODY:
        return (
            Tone.QUIET,
            "Waiting for the first run",
            "No billing daemon has reported yet, and nothing has been billed. Start the daemon; it bills at once.",
        )
    if verdict.run_in_progress and not verdict.is_stale:
        if verdict.trigger == "daemon":
            return Tone.BUSY, "The billing daemon is billing now", "A run is in progress."
        return Tone.BUSY, "A run is in progress", "It was not started by the daemon."
    return {
        Condition.RUNNING: _on_duty,
        Condition.ERROR: _on_duty,
        Condition.STOPPED: _stopped,
        Condition.SILENT: _silent,
    }.get(verdict.condition, _without_daemon)(verdict)


def _on_duty(_verdict: Verdict) -> tuple[Tone, str, str]:
    return Tone.GOOD, "The billing daemon is on duty", "It is alive and bills on schedule."


def _stopped(verdict: Verdict) -> tuple[Tone, str, str]:
    if verdict.is_stale:
        return _without_daemon(verdict)
    return Tone.WARNING, "The billing daemon is stopped", f"It ended in order. {_meanwhile(verdict)}"


def _silent(verdict: Verdict) -> tuple[Tone, str, str]:
    return Tone.WARNING, "The billing daemon is silent", f"It has probably failed. {_meanwhile(verdict)}"


def _meanwhile(verdict: Verdict) -> str:
    if verdict.failover.who == "nobody":
        return f"Nothing bills until it returns, and nothing takes over. {_LOST}"
    return f"Nothing bills until it returns or is taken over from. {_LOST}"


def _without_daemon(verdict: Verdict) -> tuple[Tone, str, str]:
    absent = verdict.condition is Condition.ABSENT
    why = "No billing daemon has ever reported" if absent else "The daemon is silent"
    if verdict.condition is Condition.STOPPED:
        why = "The daemon is stopped"
    if verdict.biller is Biller.BUILT_IN:
        if absent:
            return (
                Tone.GOOD,
                "Built-in billing is on duty",
                "No billing daemon has ever reported, so the application bills every hour until one does.",
            )
        return (
            Tone.WARNING,
            "Built-in billing has taken over",
            f"{why}, so the application bills every hour until a heartbeat returns. No hour is lost.",
        )
    if verdict.biller is Biller.HOST:
        return (
            Tone.WARNING,
            "The host application bills by itself",
            f"{why}, and the host’s own scheduler debits wallets.",
        )
    return Tone.BAD, "Nobody is billing", f"{why}. {_takeover_text(verdict)} {_LOST}"


def _takeover_text(verdict: Verdict) -> str:
    said = takeover_of(verdict, timed=True)
    return said if verdict.failover.who == "nobody" else f"{said[:-1]}, within a minute."
