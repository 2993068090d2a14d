"""`migrate`: create or adopt the schema of this version, or show what that would do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from containerstacks_billing.cli.arguments import json_option
from containerstacks_billing.cli.main import app, configured
from containerstacks_billing.errors import EXIT_CONFIGURATION

if TYPE_CHECKING:
    from containerstacks_billing.hosts.model import Host
    from containerstacks_billing.schema.model import (
        Finding,
        MigrationReport,
        MigrationStatus,
        PlannedMigration,
    )
    from containerstacks_billing.settings import Settings
    from containerstacks_billing.status.failover import FailoverTarget

_EXAMPLES = """
\b
Examples:
  containerstacks-billing migrate --dry-run  what would change, lock and last
  containerstacks-billing migrate            do it; repeating it is harmless
  containerstacks-billing migrate --status   what was applied, and when
  containerstacks-billing migrate --fence-host-billing
"""


_ORDER = (
    "Afterwards a daemon of a former version completes its run and is refused the next ones: restart it with this\n"
    "version at once. Hours in between are charged by its first run."
)


@app.command(epilog=_EXAMPLES)
@click.option("--dry-run", is_flag=True, help="Show what would be done and locked; change nothing.")
@click.option("--status", is_flag=True, help="Show every migration and its state.")
@click.option(
    "--fence-host-billing",
    "fence",
    flag_value="up",
    help="Afterwards refuse hourly debits of the host's scheduler while a biller here is alive.",
)
@click.option(
    "--unfence-host-billing", "fence", flag_value="down", help="Let the host's scheduler debit again."
)
@json_option
@click.pass_context
def migrate(ctx: click.Context, dry_run: bool, status: bool, fence: str | None, as_json: bool) -> None:
    """Create the tables, or adopt the host application's in place.

    Needs a role that owns the tables. Reports what was found in the host's data, with the commands to look
    at it; a finding is no failure.
    """
    if dry_run and status:
        raise click.BadParameter("--dry-run and --status exclude each other.")
    if fence and status:
        raise click.BadParameter("--status goes without the fence.")
    from containerstacks_billing.cli import render
    from containerstacks_billing.config.target import target
    from containerstacks_billing.schema import migrator as migrations

    settings = configured(ctx).settings
    conninfo = target(settings).conninfo
    if status:
        _show_status(migrations.status(conninfo), as_json=as_json)
    elif dry_run:
        _show_plan(migrations.plan(conninfo), as_json=as_json)
        if fence:
            render.stderr().print("The fence would be changed as well; nothing was.")
    else:
        remarks = render.stderr()
        report = migrations.migrate(
            conninfo, settings, progress=lambda sentence: remarks.print(render.printable(sentence))
        )
        if fence:
            remarks.print(_change_fence(conninfo, settings, fence))
        host, undecided = _host(conninfo, settings)
        report = replace(report, findings=(*undecided, *report.findings))
        _show_report(report, _failover(conninfo, settings), host, as_json=as_json)


def _change_fence(conninfo: str, settings: Settings, fence: str) -> str:
    """Put the fence up or take it down; return what there is now."""
    from containerstacks_billing.schema.fence import fence_host_billing, unfence_host_billing

    if fence == "down":
        removed = unfence_host_billing(conninfo)
        return "The fence is removed: the host's scheduler can debit." if removed else "There is no fence."
    minutes = settings.failover_after_minutes
    fence_host_billing(conninfo, minutes)
    return (
        "The fence is up: hourly debits of the host's scheduler are refused while a biller here is alive."
        f" It opens by itself after {minutes} minutes without one."
    )


def _host(conninfo: str, settings: Settings) -> tuple[Host, tuple[Finding, ...]]:
    """Return which host application the tables are of, and what it bills that the configured statuses leave out."""
    from containerstacks_billing.database.connection import connect
    from containerstacks_billing.hosts.adopted import host_of, left_out
    from containerstacks_billing.hosts.model import describe
    from containerstacks_billing.schema.diagnose import diagnosed
    from containerstacks_billing.schema.model import Finding as Found

    with diagnosed(conninfo), connect(conninfo, purpose="reading") as connection:
        host, others = host_of(connection), left_out(connection, settings)
    if not others:
        return host, ()
    sentence = describe(others, settings.billable_statuses, settings.currency)
    cure = "Set BILLABLE_STATUSES; * charges every instance, as the host does. Nothing is charged until it is set."
    return host, (
        Found(
            "statuses_left_out",
            sum(one.instances for one in others),
            f"{sentence}. {cure}",
            "select status, count(*) from vps_instances group by status order by 2 desc;",
        ),
    )


def _failover(conninfo: str, settings: Settings) -> FailoverTarget:
    """Return what takes over on this database when the daemon falls silent."""
    from containerstacks_billing.status.failover import failover_target
    from containerstacks_billing.status.model import limits_of
    from containerstacks_billing.status.read import read_failover

    return failover_target(read_failover(conninfo), limits_of(settings).failover_after)


def _show_status(known: Iterable[MigrationStatus], *, as_json: bool) -> None:
    from containerstacks_billing.cli import render
    from containerstacks_billing.schema.model import MigrationState

    known = list(known)
    if as_json:
        from containerstacks_billing.schema.schemas import MigrationDocument

        render.emit_json({"migrations": [MigrationDocument.model_validate(one) for one in known]})
    else:
        rows = [
            (
                f"{one.version:03}" if one.version else "",
                one.name,
                one.state.value,
                f"{one.applied_at:%Y-%m-%d %H:%M}" if one.applied_at else "",
                "" if one.duration_ms is None else f"{one.duration_ms} ms",
            )
            for one in known
        ]
        headings = ("No.", "Migration", "State", "Applied", "Took")
        render.stdout().print(render.table(headings, rows, right=("Took",)))
    if any(one.state in {MigrationState.CHANGED, MigrationState.UNKNOWN} for one in known):
        raise click.exceptions.Exit(EXIT_CONFIGURATION)


def _show_plan(pending: Iterable[PlannedMigration], *, as_json: bool) -> None:
    from containerstacks_billing.cli import render
    from containerstacks_billing.text import counted

    pending = list(pending)
    if as_json:
        from containerstacks_billing.schema.schemas import PlannedDocument

        render.emit_json({"pending": [PlannedDocument.model_validate(one) for one in pending]})
        return
    console = render.stdout()
    for one in pending:
        console.print(one.label)
        for effect in one.effects:
            console.print(f"  - {render.printable(effect)}")
        console.print(f"  Beside a running daemon: {one.beside_daemon}.")
    if pending:
        console.print(f"\n{counted(len(pending), 'migration')} would be applied. Nothing was changed.")
        console.print(_ORDER)
    else:
        console.print("Nothing to do: every migration has been applied.")


def _show_report(report: MigrationReport, built_in: FailoverTarget, host: Host, *, as_json: bool) -> None:
    from containerstacks_billing.cli import render
    from containerstacks_billing.text import counted

    if as_json:
        from containerstacks_billing.schema.schemas import FindingDocument, MigrationDocument

        applied = [MigrationDocument.model_validate(one) for one in report.applied]
        # As in `status --json` and over HTTP; with what would change it.
        shown = {
            "by": built_in.who,
            "sentence": built_in.sentence,
            "reason": built_in.reason,
            "advice": built_in.advice,
        }
        findings = [FindingDocument.model_validate(one) for one in report.findings]
        document = {"applied": applied, "findings": findings, "takeover": shown}
        repaired = [one.sentence for one in report.findings if one.kind == "repaired"]
        render.emit_json({**document, "repaired": repaired, "host": host.value})
        return
    console = render.stdout()
    if report.applied:
        console.print(f"Applied {counted(len(report.applied), 'migration')}.")
    elif not any(finding.kind == "repaired" for finding in report.findings):
        console.print("Nothing to do: every migration has been applied.")
    for finding in report.findings:
        console.print(f"\n{render.printable(finding.sentence)}")
        if finding.command:
            # Not broken into lines: it is there to be copied.
            console.print(f"  {render.printable(finding.command)}", soft_wrap=True)
    if host.document:
        console.print(f"\nHost application: {host.value} ({host.document}). {host.switch_off}.")
    console.print(f"\nWhen the daemon is silent: {built_in.explained}.\n{built_in.advice}")
