"""`status`: who bills, what the last runs did, what waits for somebody."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

import click

from containerstacks_billing.cli.arguments import json_option
from containerstacks_billing.cli.main import app, configured

if TYPE_CHECKING:
    from rich.console import Group

    from containerstacks_billing.settings import Settings
    from containerstacks_billing.status.model import RunRecord, Status

_REFRESH_SECONDS = 2.0
_BAR_CELLS = 30

_EXAMPLES = """
\b
Examples:
  containerstacks-billing status
  containerstacks-billing status --watch
  containerstacks-billing status --json | jq .late
"""


@app.command(epilog=_EXAMPLES)
@click.option("--watch", is_flag=True, help="Show it again every 2 s, until Ctrl-C.")
@json_option
@click.pass_context
def status(ctx: click.Context, watch: bool, as_json: bool) -> None:
    """Show who bills, the last run, and what waits for somebody.

    Only reads, with any role that may read. A warning does not change the exit code; Ctrl-C ends --watch
    with 0.
    """
    if watch and as_json:
        raise click.BadParameter("--watch and --json exclude each other.")
    from containerstacks_billing.cli import render
    from containerstacks_billing.config.target import target
    from containerstacks_billing.database.connection import connect
    from containerstacks_billing.schema.diagnose import diagnosed
    from containerstacks_billing.status.read_overview import read_status

    settings = configured(ctx).settings
    conninfo = target(settings).conninfo
    if watch:
        _watch(conninfo, settings)
        return
    with diagnosed(conninfo), connect(conninfo, purpose="reading") as connection:
        found = read_status(connection)
    if as_json:
        render.emit_json(as_document(found, settings))
    else:
        render.stdout().print(_shown(found, settings))


def _watch(conninfo: str, settings: Settings) -> None:
    """Show the status until somebody asks to stop; a database that is away is said and tried again."""
    from rich.live import Live

    from containerstacks_billing.cli import render
    from containerstacks_billing.daemon.interruption import interruptible
    from containerstacks_billing.database.connection import connect
    from containerstacks_billing.errors import DatabaseUnavailable
    from containerstacks_billing.schema.diagnose import diagnosed
    from containerstacks_billing.status.read_overview import read_status

    console = render.stdout()
    with interruptible() as asked, Live(console=console, auto_refresh=False, transient=False) as live:
        while not asked.stopping.is_set():
            try:
                with diagnosed(conninfo), connect(conninfo, purpose="reading") as connection:
                    shown = _shown(read_status(connection), settings)
                live.update(shown, refresh=True)
            except DatabaseUnavailable as away:
                live.update(f"{away} Trying again.", refresh=True)
            asked.stopping.wait(_REFRESH_SECONDS)


def _shown(found: Status, settings: Settings) -> Group:
    """Arrange the status for people."""
    from rich.console import Group
    from rich.text import Text

    from containerstacks_billing.cli import render
    from containerstacks_billing.cli.who import who_bills
    from containerstacks_billing.status.model import limits_of

    limits = limits_of(settings)
    lines: list[object] = [Text(who_bills(found.health, settings), style="bold")]
    if found.is_late(limits.late_after):
        lines.append(Text(_late(found, settings), style="yellow"))
    lines.append(render.facts(_facts(found, settings)))
    return Group(*lines)  # type: ignore[arg-type]


def _late(found: Status, settings: Settings) -> str:
    from containerstacks_billing.cli.who import span

    since = (
        f"The last successful run was {span(found.now - found.last_success.as_of)} ago"
        if found.last_success
        else "There was no successful run yet"
    )
    return f"warning: {since}; there should be one every {settings.billing_interval_minutes} min."


def _facts(found: Status, settings: Settings) -> list[tuple[str, object]]:
    """Name what is worth knowing, each in one line."""
    from containerstacks_billing.cli.who import next_due
    from containerstacks_billing.status.model import limits_of

    facts: list[tuple[str, object]] = []
    health = found.health
    if health.in_progress:
        facts.append(("Now", _progress(health.in_progress, health.lease.holder)))
    elif health.lease.holder:
        facts.append(("Now", f"{health.lease.holder} holds the lease"))
    if found.last_run:
        facts.append(("Last run", _ended(found.last_run, found.now, settings.currency)))
    if found.last_success and found.last_run and found.last_success.run_id != found.last_run.run_id:
        facts.append(("Last success", _ended(found.last_success, found.now, settings.currency)))
    facts.append(("Next due", next_due(health, limits_of(settings))))
    if found.past_due_instances:
        facts.append(("Past due", f"{_instances(found.past_due_instances)}, which stay due until a top-up"))
    for name, count in (("Quarantined", health.quarantined_instances), ("Held", health.held_instances)):
        if count:
            facts.append((name, _set_aside(found, name, count)))
    if found.runways:
        facts.append(("Runways", _runways(found.runways)))
    if health.daemon and health.daemon.error_message:
        facts.append(("Error", health.daemon.error_message))
    return facts


def _progress(run: RunRecord, holder: str | None) -> str:
    done = run.batches / run.batches_planned if run.batches_planned else 0.0
    cells = min(round(done * _BAR_CELLS), _BAR_CELLS)
    if holder is None:
        return f"run {run.run_id} was left open by {run.holder}; the next run closes it"
    return (
        f"run {run.run_id} by {run.holder} {'█' * cells}{'░' * (_BAR_CELLS - cells)} {done:.0%},"
        f" {run.instances_billed:,} of {run.instances_planned:,} instances"
    )


def _ended(run: RunRecord, now: datetime, currency: str) -> str:
    from containerstacks_billing.cli.run_report import hours
    from containerstacks_billing.cli.who import span
    from containerstacks_billing.money import display

    by = {"daemon": "the daemon", "built-in": "built-in billing", "manual": "hand"}.get(
        run.trigger, run.trigger
    )
    text = f"run {run.run_id} by {by}, {run.outcome} {span(now - (run.finished_at or run.as_of))} ago: "
    text += f"{_instances(run.instances_billed)}, {hours(run.hours)}, {display(run.amount, currency)}"
    return f"{text} ({run.error_message})" if run.error_message else text


def _set_aside(found: Status, name: str, count: int) -> str:
    if name == "Held":
        return f"{_instances(count)}, decide with containerstacks-billing release"
    reasons = ", ".join(
        f"{reason} ({number:,})" for reason, number in found.reasons.items() if reason != "held"
    )
    return f"{_instances(count)}: {reasons}"


def _runways(runways: Mapping[int, int]) -> str:
    wallets = (f"{count:,} within {level} h" for level, count in sorted(runways.items()))
    return f"wallets empty: {', '.join(wallets)}"


def _instances(count: int) -> str:
    return "1 instance" if count == 1 else f"{count:,} instances"


def as_document(found: Status, settings: Settings) -> dict[str, object]:
    """Return the status as one document."""
    from containerstacks_billing.cli.runs import as_document as run_document
    from containerstacks_billing.status.model import Biller, biller, limits_of, silent_for
    from containerstacks_billing.status.verdict import next_run

    health, limits = found.health, limits_of(settings)
    daemon, who = health.daemon, biller(health, limits.failover_after)
    silent = silent_for(health, limits) is not None
    return {
        "now": found.now,
        "late": found.is_late(limits.late_after),
        "biller": who,
        "daemon": daemon
        and {
            "instanceId": daemon.daemon_instance_id,
            "status": daemon.status,
            "active": daemon.status == "running" and who is Biller.DAEMON,
            "silent": silent or who is not Biller.DAEMON,
            "heartbeatAt": daemon.heartbeat_at,
            "startedAt": daemon.started_at,
            "lastRunAt": daemon.last_run_at,
            "lastRunSuccess": daemon.last_run_success,
            "errorMessage": daemon.error_message,
        },
        "leaseHolder": health.lease.holder,
        "openRun": health.in_progress and run_document(health.in_progress),
        "lastRun": found.last_run and run_document(found.last_run),
        "lastSuccess": found.last_success and run_document(found.last_success),
        "nextDue": next_run(health, who, limits.interval),
        "pastDueInstances": found.past_due_instances,
        "quarantinedInstances": health.quarantined_instances,
        "heldInstances": health.held_instances,
        "reasons": found.reasons,
        "runways": found.runways,
    }
