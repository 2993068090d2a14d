"""`release`: release a held run, or decide about held hours: charge, cap or waive."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import click

from containerstacks_billing.cli.arguments import (
    INSTANCE_ID,
    WholeNumber,
    json_option,
    organization_option,
    require_organization,
)
from containerstacks_billing.cli.confirm import require_confirmation
from containerstacks_billing.cli.main import app, configured
from containerstacks_billing.identity import operator_name, process_name

if TYPE_CHECKING:
    from containerstacks_billing.charging.forecast import DryRunResult
    from containerstacks_billing.holds.model import ReleaseDecision
    from containerstacks_billing.settings import Settings

_EXAMPLES = """
\b
Examples:
  containerstacks-billing release                         let a held run go on
  containerstacks-billing release --all --charge --dry-run
  containerstacks-billing release --organization ID --cap 24 --reason "outage"
  containerstacks-billing release --instance ID --waive --by anna
  containerstacks-billing release --passed-over --all --waive --reason old

\b
Instances with more than MAX_CATCH_UP_HOURS due are held until one of these:
  --charge   all hours that are due until now
  --cap N    the N most recent hours; older ones are waived for good
  --waive    nothing; everything that is due is waived for good

\b
With --passed-over it decides about hours that the host could not collect
before adoption. Without a decision the next run charges those since the
watermark, and those before it are never charged.

\b
It shows what it means and asks. Without a terminal, as in a script, and with
--json it takes --yes.
"""


@app.command(epilog=_EXAMPLES)
@click.option("--charge", is_flag=True, help="Approve all hours due.")
@click.option("--cap", type=WholeNumber(0), metavar="N", help="Approve the N most recent hours.")
@click.option("--waive", is_flag=True, help="Waive all hours due.")
@click.option("--instance", type=INSTANCE_ID, metavar="ID", help="This held instance.")
@organization_option("Its held instances.")
@click.option("--all", "every", is_flag=True, help="All held instances.")
@click.option("--passed-over", is_flag=True, help="Hours that the host could not collect.")
@click.option("--reason", metavar="TEXT", help="Why; it is kept.")
@click.option("--by", metavar="NAME", help="Who. [default: user@host]")
@click.option("--dry-run", is_flag=True, help="Show what it means; change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@click.pass_context
def release(
    ctx: click.Context,
    charge: bool,
    cap: int | None,
    waive: bool,
    instance: UUID | None,
    organization: UUID | None,
    every: bool,
    passed_over: bool,
    reason: str | None,
    by: str | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Let a held run go on, or decide about held instances.

    Who decided, when and why is kept. The next run charges what was released.
    """
    decisions = [charge, cap is not None, waive]
    targets = [instance is not None, organization is not None, every]
    if sum(decisions) > 1 or sum(targets) > 1:
        raise click.BadParameter("Give one of --charge, --cap, --waive, and one target.")
    if any(decisions) != any(targets):
        missing = (
            "which: --instance ID, --organization ID or --all"
            if any(decisions)
            else "what: --charge, --cap N or --waive"
        )
        raise click.BadParameter(f"Say {missing}.")
    if passed_over and not (charge or waive):
        raise click.BadParameter("--passed-over goes with --charge or --waive.")
    settings = configured(ctx).settings
    decided_by, why = (by or operator_name())[:255], (reason or "no reason was given")[:1000]
    if not any(decisions):
        _release_brake(settings, decided_by, why, dry_run=dry_run, yes=yes, as_json=as_json)
        return
    from containerstacks_billing.holds.model import EVERY_HOUR, Decision, ReleaseDecision

    order = ReleaseDecision(
        Decision.CHARGE if charge else Decision.WAIVE if waive else Decision.CAP,
        decided_by,
        why,
        EVERY_HOUR if charge else cap or 0,
        organization,
        instance,
        dry_run,
        passed_over,
    )
    _release_instances(settings, order, yes=yes, as_json=as_json)


def _release_brake(
    settings: Settings, decided_by: str, reason: str, *, dry_run: bool, yes: bool, as_json: bool
) -> None:
    from containerstacks_billing.charging.fleet_reading import latest_hold, release_hold
    from containerstacks_billing.cli import render
    from containerstacks_billing.config.target import target
    from containerstacks_billing.database.connection import connect
    from containerstacks_billing.holds.schemas import ReleasedRun, WouldCharge
    from containerstacks_billing.money import display
    from containerstacks_billing.schema.diagnose import diagnosed
    from containerstacks_billing.text import counted, hours

    conninfo = target(settings).conninfo
    console = render.stdout()
    with diagnosed(conninfo), connect(conninfo, purpose="billing") as connection:
        hold = latest_hold(connection)
        if hold is None or hold.is_released:
            if as_json:
                render.emit_json(ReleasedRun(released=False, run_id=None, sentence=None, dry_run=dry_run))
            elif hold is None:
                console.print("No run is held; there is nothing to release.")
            else:
                console.print(f"Run {hold.run_id} is released already; the next run goes on.")
            return
        if not as_json:
            console.print(f"Run {hold.run_id} was held: {render.printable(hold.sentence)}")
        if not dry_run:
            require_confirmation(
                "Is that right, and shall billing go on?", "releasing a held run", yes=yes, as_json=as_json
            )
        released = not dry_run and release_hold(connection, hold, decided_by, reason)
    forecast = _next_run(settings, conninfo) if dry_run else None
    if as_json:
        document = ReleasedRun(
            released=released,
            run_id=hold.run_id,
            sentence=hold.sentence,
            held_at=hold.held_at,
            decided_by=decided_by,
            reason=reason,
            dry_run=dry_run,
            would_charge=WouldCharge.model_validate(forecast) if forecast else None,
        )
        render.emit_json(document)
    elif forecast:
        amount = display(forecast.amount, settings.currency)
        console.print(
            f"After a release the next run would charge {counted(forecast.instances_billed, 'instance')}"
            f" for {hours(forecast.hours)}: {amount}.",
            soft_wrap=True,
        )
        console.print("Nothing was changed.")
    else:
        console.print("Released. The next run goes on; containerstacks-billing run starts one now.")


def _next_run(settings: Settings, conninfo: str) -> DryRunResult:
    """Return what a run would charge now if none were held."""
    from containerstacks_billing.charging.dry_run import dry_run
    from containerstacks_billing.charging.forecast import Limits
    from containerstacks_billing.charging.run import RunOrder, terms_of

    order = RunOrder(
        conninfo=conninfo,
        terms=terms_of(settings),
        trigger="manual",
        holder=process_name(),
        workers=settings.billing_workers,
        batch_size=settings.billing_batch_size,
    )
    return dry_run(order, Limits(0, 0, 0))


def _release_instances(settings: Settings, order: ReleaseDecision, *, yes: bool, as_json: bool) -> None:
    from dataclasses import replace

    from containerstacks_billing.charging.run import terms_of
    from containerstacks_billing.cli import release_report as release_tables
    from containerstacks_billing.cli import render
    from containerstacks_billing.config.target import target
    from containerstacks_billing.holds.release import release as decide

    conninfo, terms = target(settings).conninfo, terms_of(settings)
    holder = f"release on {process_name()}"
    asking = not (yes or order.dry_run)
    released = decide(conninfo, terms, replace(order, dry_run=asking or order.dry_run), holder)
    if not released.instances:
        _see_that_it_is_known(conninfo, order)
    elif asking:
        if not as_json:
            release_tables.show(released, terms.currency, order)
        require_confirmation("\nDecide so?", "deciding", yes=yes, as_json=as_json)
        released = decide(conninfo, terms, order, holder)
    if as_json:
        from containerstacks_billing.holds.schemas import Released

        render.emit_json(Released.of(released, order))
    else:
        release_tables.show(released, terms.currency, order)
        release_tables.conclude(released, order)


def _see_that_it_is_known(conninfo: str, order: ReleaseDecision) -> None:
    """Raise a usage error for an unknown organization, which would otherwise look like one with nothing held."""
    from containerstacks_billing.database.connection import connect
    from containerstacks_billing.schema.diagnose import diagnosed

    if order.organization is not None:
        with diagnosed(conninfo), connect(conninfo, purpose="reading") as connection:
            require_organization(connection, order.organization)
