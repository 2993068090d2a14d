"""`run`: one billing run now, or a dry run of it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import click

from containerstacks_billing.cli.arguments import (
    Number,
    json_option,
    organization_option,
    require_organization,
)
from containerstacks_billing.cli.main import app, configured
from containerstacks_billing.identity import process_name

if TYPE_CHECKING:
    from containerstacks_billing.charging.run import RunOrder
    from containerstacks_billing.cli.run_report import Finished
    from containerstacks_billing.settings import Settings

_SECONDS_FOR_EVENTS = 3.0
_EXAMPLES = """
\b
Examples:
  containerstacks-billing run --dry-run          who would be charged what
  containerstacks-billing run                    charge what is due, once
  containerstacks-billing run --dry-run --diff   compared with the last run
  containerstacks-billing run --dry-run --price "Small VPS=6.00+1.00"
  containerstacks-billing run --organization ID  of one organization alone
  containerstacks-billing run --json | jq -r .amount

\b
Ctrl-C finishes the batches under way, says what was done and exits 130.
"""


@app.command(epilog=_EXAMPLES)
@click.option("--dry-run", is_flag=True, help="Do everything and roll it back; show what a run would do.")
@click.option(
    "--all", "every", is_flag=True, help="With --dry-run: list every organization, not the largest ones."
)
@click.option(
    "--diff",
    is_flag=False,
    flag_value="last",
    metavar="[RUN]",
    help="With --dry-run: compare with a run, the last one if none is named.",
)
@click.option(
    "--price",
    "prices",
    multiple=True,
    metavar="PLAN=BASE+MARKUP",
    help="With --dry-run: as if this were the price; may be given several times.",
)
@organization_option("Only this organization.")
@click.option(
    "--wait",
    type=Number(0),
    metavar="SECONDS",
    default=90,
    help="How long to wait for another biller to finish.",
)
@json_option
@click.pass_context
def run(
    ctx: click.Context,
    dry_run: bool,
    every: bool,
    diff: str | None,
    prices: tuple[str, ...],
    organization: UUID | None,
    wait: float,
    as_json: bool,
) -> None:
    """Charge what is due: once, whichever other process bills.

    A dry run can be compared with the last run, and suppose other prices: a month and the runway of each
    customer now and then, and the instances that one of both charges and the other does not.

    Exits 0 also with past-due or quarantined instances, 1 when the run failed or is held, 75 when
    another biller keeps the right to bill.
    """
    if every and not dry_run:
        raise click.BadParameter("--all goes with --dry-run.")
    if (diff is not None or prices) and not dry_run:
        raise click.BadParameter("--diff and --price go with --dry-run.")
    from containerstacks_billing.charging.run import RunOrder, terms_of
    from containerstacks_billing.config.target import target

    settings = configured(ctx).settings
    order = RunOrder(
        conninfo=target(settings).conninfo,
        terms=terms_of(settings),
        trigger="manual",
        holder=process_name(),
        workers=settings.billing_workers,
        batch_size=settings.billing_batch_size,
        organization=organization,
        wait_seconds=wait,
    )
    if organization is not None:
        _see_that_it_exists(order.conninfo, organization)
    if dry_run:
        from containerstacks_billing.cli import dry_run_report

        _warn_of_statuses_left_out(order.conninfo, settings)
        if diff is not None or prices:
            from containerstacks_billing.cli.what_if import compare_and_show

            ctx.exit(compare_and_show(order, diff or "last", prices, every=every, as_json=as_json))
        ctx.exit(dry_run_report.dry_run_and_show(order, every=every, as_json=as_json))
    finished, code = _bill_and_signal(order, settings)
    from containerstacks_billing.cli import render
    from containerstacks_billing.cli import run_report as summary

    if as_json:
        from containerstacks_billing.charging.schemas import FinishedRun

        render.emit_json(FinishedRun.of(finished.result, finished.debited))
    else:
        summary.show(render.stdout(), finished)
    _deliver_events(order.conninfo, settings)
    ctx.exit(code)


def _warn_of_statuses_left_out(conninfo: str, settings: Settings) -> None:
    """Say before a dry run what the host bills and this would not; the run itself refuses until that is decided."""
    from containerstacks_billing.cli import render
    from containerstacks_billing.errors import ConfigurationError
    from containerstacks_billing.hosts.adopted import require_statuses
    from containerstacks_billing.schema.diagnose import diagnosed

    try:
        with diagnosed(conninfo):
            require_statuses(conninfo, settings)
    except ConfigurationError as undecided:
        render.stderr().print(f"{render.printable(str(undecided))}\n{undecided.hint}", style="yellow")


def _bill_and_signal(order: RunOrder, settings: Settings) -> tuple[Finished, int]:
    """Bill, with the signals to HEARTBEAT_URL around a run of the whole fleet; each takes ten seconds at most."""
    from containerstacks_billing.charging.model import Outcome
    from containerstacks_billing.errors import BillingError, LeaseNotObtained
    from containerstacks_billing.hosts.adopted import require_statuses
    from containerstacks_billing.notifications.run_signal import Step, signal_run
    from containerstacks_billing.schema.diagnose import diagnosed

    def signal(step: Step) -> None:
        thread = signal_run(settings, step) if order.organization is None else None
        if thread is not None:
            thread.join()

    signal("start")
    try:
        with diagnosed(order.conninfo):
            require_statuses(order.conninfo, settings)
        finished, code = bill_and_watch(order)
    except LeaseNotObtained:
        raise
    except BillingError:
        signal("fail")
        raise
    signal("completed" if finished.result.outcome is Outcome.COMPLETED else "fail")
    return finished, code


def _deliver_events(conninfo: str, settings: Settings) -> None:
    """Deliver due webhook events for a few seconds; the daemon or the next run delivers the rest."""
    from containerstacks_billing import logs
    from containerstacks_billing.errors import BillingError
    from containerstacks_billing.notifications.delivery import deliver_due

    if settings.webhook_url is None:
        return
    try:
        deliver_due(conninfo, settings, deadline=_SECONDS_FOR_EVENTS)
    except BillingError as away:
        logs.logger().warning("Events could not be sent; they stay where they are", reason=str(away))


def bill_and_watch(order: RunOrder) -> tuple[Finished, int]:
    """Run billing with a progress display; return the finished run and the exit code."""
    from dataclasses import replace

    from containerstacks_billing.charging.run import run_billing
    from containerstacks_billing.cli import render
    from containerstacks_billing.cli import run_report as summary
    from containerstacks_billing.cli.progress import RunDisplay
    from containerstacks_billing.daemon.signals import interruptible
    from containerstacks_billing.errors import LeaseNotObtained

    remarks = render.stderr()
    with interruptible(lambda: remarks.print("Stopping after the batches under way.")) as asked:
        with RunDisplay(remarks, order.terms.currency, asked.stopping) as display:
            watched = replace(
                order, stopping=asked.stopping, waiting=display.waiting, progressed=display.progressed
            )
            try:
                result = run_billing(watched)
            except LeaseNotObtained:
                if asked.exit_code is None:
                    raise
                remarks.print("Stopped while waiting for the other biller; nothing was charged.")
                raise click.exceptions.Exit(asked.exit_code) from None
        finished = _with_circumstances(order, summary.Finished(result, order.holder, order.terms.currency))
    return finished, summary.exit_code(result.outcome, asked.exit_code)


def _with_circumstances(order: RunOrder, finished: Finished) -> Finished:
    """Return the run with its debited amount, the reasons of quarantined instances and the number of billable ones."""
    from dataclasses import replace

    from containerstacks_billing.charging.run_record import billable_instances, debited_by_run
    from containerstacks_billing.database.connection import connect
    from containerstacks_billing.schema.diagnose import diagnosed
    from containerstacks_billing.status.read import quarantine_reasons

    with diagnosed(order.conninfo), connect(order.conninfo, purpose="reading") as connection:
        result = finished.result
        waiting = result.past_due_instances + result.quarantined_instances + result.held_instances
        return replace(
            finished,
            debited=debited_by_run(connection, result.run_id),
            reasons=quarantine_reasons(connection, order.organization),
            billable=billable_instances(connection, order.terms, order.organization, waiting + 1),
        )


def _see_that_it_exists(conninfo: str, organization: UUID) -> None:
    from containerstacks_billing.database.connection import connect
    from containerstacks_billing.schema.diagnose import diagnosed

    with diagnosed(conninfo), connect(conninfo, purpose="reading") as connection:
        require_organization(connection, organization)
