"""`status`: current biller, last runs, and instances that need a decision."""

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
    from containerstacks_billing.status.verdict import Verdict

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
    """Show who bills, the last run, and what needs a decision.

    Only reads, with any role that may read. A warning does not change the exit code; Ctrl-C ends --watch
    with 0.
    """
    if watch and as_json:
        raise click.BadParameter("--watch and --json exclude each other.")
    from containerstacks_billing.cli import render
    from containerstacks_billing.config.target import target
    from containerstacks_billing.database.connection import connect
    from containerstacks_billing.hosts.adopted import host_of
    from containerstacks_billing.schema.diagnose import diagnosed
    from containerstacks_billing.status.read import read_status

    settings = configured(ctx).settings
    conninfo = target(settings).conninfo
    if watch:
        _watch(conninfo, settings)
        return
    with diagnosed(conninfo), connect(conninfo, purpose="reading") as connection:
        found, host = read_status(connection), host_of(connection)
    if as_json:
        from containerstacks_billing.status.schemas import StatusDocument

        document = StatusDocument.of(found, settings).model_dump(mode="json", by_alias=True)
        render.emit_json({**document, "host": host.value})
    else:
        render.stdout().print(_shown(found, settings))
        if host.document:
            render.stdout().print(f"Host application: {host.value} ({host.document})")


def _watch(conninfo: str, settings: Settings) -> None:
    """Refresh the status until a signal; a database that is unreachable is reported and tried again."""
    from rich.live import Live

    from containerstacks_billing.cli import render
    from containerstacks_billing.daemon.signals import interruptible
    from containerstacks_billing.database.connection import connect
    from containerstacks_billing.errors import DatabaseUnavailable
    from containerstacks_billing.schema.diagnose import diagnosed
    from containerstacks_billing.status.read import read_status

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
    from containerstacks_billing.status.sentences import sentence_of
    from containerstacks_billing.status.verdict import verdict_of

    verdict = verdict_of(found.health, settings)
    lines: list[object] = [Text(sentence_of(verdict), style="bold")]
    if verdict.success_is_late:
        lines.append(Text(_late(found, settings), style="yellow"))
    lines.append(render.facts(_facts(found, verdict, settings)))
    return Group(*lines)  # type: ignore[arg-type]


def _late(found: Status, settings: Settings) -> str:
    from containerstacks_billing.text import span

    success = found.health.last_successful
    since = (
        f"The last successful run was {span(found.now - success.as_of)} ago"
        if success
        else "There was no successful run yet"
    )
    return f"warning: {since}; there should be one every {settings.billing_interval_minutes} min."


def _facts(found: Status, verdict: Verdict, settings: Settings) -> list[tuple[str, object]]:
    """Name what is worth knowing, each in one line."""
    from containerstacks_billing.status.sentences import next_due_of
    from containerstacks_billing.text import counted

    facts: list[tuple[str, object]] = []
    health, success = found.health, found.health.last_successful
    if health.in_progress:
        facts.append(("Now", _progress(health.in_progress, in_progress=verdict.run_in_progress)))
    elif health.lease.holder:
        facts.append(("Now", f"{health.lease.holder} holds the lease"))
    if found.last_run:
        facts.append(("Last run", _ended(found.last_run, found.now, settings.currency)))
    if success and found.last_run and success.run_id != found.last_run.run_id:
        facts.append(("Last success", f"run {_ended(success, found.now, settings.currency)}"))
    facts.append(("Next due", next_due_of(verdict)))
    if found.past_due_instances:
        instances = counted(found.past_due_instances, "instance")
        facts.append(("Past due", f"{instances}, which stay due until a top-up"))
    for name, count in (("Quarantined", health.quarantined_instances), ("Held", health.held_instances)):
        if count:
            facts.append((name, _quarantine(found, name, count)))
    if found.runways:
        facts.append(("Runways", _runways(found.runways)))
    if health.daemon and health.daemon.error_message:
        facts.append(("Error", health.daemon.error_message))
    return facts


def _progress(run: RunRecord, *, in_progress: bool) -> str:
    done = run.batches / run.batches_planned if run.batches_planned else 0.0
    cells = min(round(done * _BAR_CELLS), _BAR_CELLS)
    if not in_progress:
        return f"run {run.run_id} was left open by {run.holder}; the next run closes it"
    return (
        f"run {run.run_id} by {run.holder} {'█' * cells}{'░' * (_BAR_CELLS - cells)} {done:.0%},"
        f" {run.instances_billed:,} of {run.instances_planned:,} instances"
    )


def _ended(run: RunRecord, now: datetime, currency: str) -> str:
    from containerstacks_billing.money import display
    from containerstacks_billing.text import counted, hours, span

    names = {"built-in": "built-in billing", "manual": "hand", "top-up": "the daemon after a top-up"}
    by = names.get(run.trigger, "the daemon" if run.trigger == "daemon" else run.trigger)
    billed = counted(run.instances_billed, "instance")
    text = f"{run.run_id} by {by}, {run.outcome} {span(now - (run.finished_at or run.as_of))} ago: "
    text += f"{billed}, {hours(run.hours)}, {display(run.amount, currency)}"
    return f"{text} ({run.error_message})" if run.error_message else text


def _quarantine(found: Status, name: str, count: int) -> str:
    from containerstacks_billing.text import counted

    instances = counted(count, "instance")
    if name == "Held":
        return f"{instances}, decide with containerstacks-billing release"
    reasons = ", ".join(
        f"{reason} ({number:,})" for reason, number in found.health.quarantine.items() if reason != "held"
    )
    return f"{instances}: {reasons}"


def _runways(runways: Mapping[int, int]) -> str:
    wallets = (f"{count:,} within {level} h" for level, count in sorted(runways.items()))
    return f"wallets empty: {', '.join(wallets)}"
