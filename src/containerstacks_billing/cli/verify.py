"""`verify`: proof of the books, or their discrepancies."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import click

from containerstacks_billing.cli.arguments import json_option, organization_option
from containerstacks_billing.cli.main import app, configured
from containerstacks_billing.errors import EXIT_FAILED

if TYPE_CHECKING:
    from rich.console import Console

    from containerstacks_billing.verification.model import Verification

_EXAMPLES = """
\b
Examples:
  containerstacks-billing verify                     all the books
  containerstacks-billing verify --organization ID   those of one customer
  containerstacks-billing verify --json | jq '.discrepancies[]'
  containerstacks-billing verify --ping https://checks.example.org/a1b2c3
"""


def _web_address(_ctx: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """Refuse what cannot be sent to, without repeating it: the path of such an address is a secret."""
    if value is None or value.startswith(("http://", "https://")):
        return value
    raise click.BadParameter("an http:// or https:// address is needed.")


@app.command(epilog=_EXAMPLES)
@organization_option("Only this organization.")
@click.option(
    "--ping",
    "signal_address",
    metavar="URL",
    callback=_web_address,
    help="Send a GET to URL when nothing is wrong.",
)
@json_option
@click.pass_context
def verify(ctx: click.Context, organization: UUID | None, signal_address: str | None, as_json: bool) -> None:
    """Prove that every hour was charged once, to the cent.

    It starts from the rows alone, reads one snapshot and changes nothing of them; billing may go on
    meanwhile, and a role that may only read is enough. Where it may write, the result is kept for pages and
    alerts. What the host application billed by itself is counted separately.
    Exits 1 when anything of ours is not as it has to be; --ping is then not sent, so its receiver
    raises the alarm.
    """
    from containerstacks_billing.cli import render
    from containerstacks_billing.cli.progress import current_step
    from containerstacks_billing.config.target import target
    from containerstacks_billing.identity import operator_name
    from containerstacks_billing.verification.results import record
    from containerstacks_billing.verification.schemas import VerificationDocument
    from containerstacks_billing.verification.verify import verify as compare

    conninfo = target(configured(ctx).settings).conninfo
    with current_step(render.stderr()) as progressed:
        verification = compare(conninfo, organization=organization, progressed=progressed)
    if organization is not None and not any(
        check.examined for check in verification.checks if check.name in ("charged-once", "gaps", "carries")
    ):
        raise click.BadParameter(f"the books know nothing of an organization {organization}.")
    document = VerificationDocument.of(verification)
    if organization is None:
        record(conninfo, document, operator_name())
    if as_json:
        render.emit_json(document)
    else:
        _show(render.stdout(), verification)
    if not verification.ok:
        ctx.exit(EXIT_FAILED)
    if signal_address is not None:
        _send(signal_address)


def _send(address: str) -> None:
    """Send the signal that the books are right; a receiver that is not reached is a warning, and alarms itself."""
    from containerstacks_billing.cli import render
    from containerstacks_billing.notifications.run_signal import send

    if problem := send(address):
        message = f"The address of --ping was not reached: {render.printable(problem)}"
        render.stderr().print(message, style="yellow")


def _show(console: Console, verification: Verification) -> None:
    from containerstacks_billing.cli.render import printable

    for check in verification.checks:
        console.print("OK   " if check.ok else "FAIL ", style="green" if check.ok else "red", end="")
        count = _counted(check.examined, check.unit) if check.ok else f"{check.found:,} found"
        console.print(f"{check.name:<13}{check.description:<45}{count:>17}", soft_wrap=True)
    for check in verification.checks:
        if not check.ok:
            console.print()
        for discrepancy in verification.discrepancies:
            if discrepancy.check == check.name:
                console.print(printable(discrepancy), soft_wrap=True)
        if check.shown < check.found:
            console.print(f"{check.name}: … and {check.found - check.shown:,} more, not shown")
        if check.remedy:
            console.print(f"hint: {check.remedy}", soft_wrap=True)
    console.print()
    for line in _remarks(verification):
        console.print(line)
    console.print(_summary(verification))


def _counted(number: int, unit: str) -> str:
    """Write a number of things: 1 policy, 2,000 charges."""
    if number == 1:
        unit = f"{unit.removesuffix('ies')}y" if unit.endswith("ies") else unit.removesuffix("s")
    return f"{number:,} {unit}"


def _remarks(verification: Verification) -> list[str]:
    """Say what is no discrepancy and still worth knowing, in sentences; nothing where there is nothing."""
    from containerstacks_billing.money import plain
    from containerstacks_billing.text import hours

    items, host = verification.open_items, verification.host
    remarks = []
    if items.quarantined_instances or items.held_instances:
        remarks.append(
            f"Not billed: {items.quarantined_instances:,} quarantined, {items.held_instances:,} held."
        )
    if items.past_due_instances:
        instances = _counted(items.past_due_instances, "instances")
        remarks.append(f"Past due: {instances}, {plain(items.past_due_amount)}.")
    if items.unposted_adjustments:
        charges = _counted(items.unposted_adjustments, "charges")
        remarks.append(f"Price corrections not posted yet, for want of money: {charges}.")
    if items.hours_passed_by_host:
        remarks.append(
            f"The host moved watermarks over {items.hours_passed_by_host.normalize():f} hours worth"
            f" {plain(items.amount_passed_by_host)}, which are not charged: fees that it took itself, or hours that it"
            " gave away. They stand in billing_usage_segments with the reason watermark."
        )
    if items.charges_without_organization:
        remarks.append(
            f"Not comparable: {_counted(items.charges_without_organization, 'charges')} of deleted organizations,"
            " whose wallets are gone."
        )
    if host.cycles:
        remarks.append(
            f"Billed by the host application itself: {_counted(host.cycles, 'periods')},"
            f" {host.doubled:,} of them doubled, {host.overlapped:,} overlapping."
        )
    if host.charged_by_both:
        remarks.append(
            f"The host application bills beside us: it charged {hours(host.hours_charged_by_both)} that are charged"
            f" here too, {plain(host.amount_charged_by_both)} in all, and made"
            f" {_counted(host.unkeyed_debits, 'hourly debits')} since our first run. Switch its billing off."
        )
    elif host.unkeyed_debits:
        remarks.append(
            f"The host application made {_counted(host.unkeyed_debits, 'hourly debits')} since our first run;"
            " no hour is charged by both. Two billers at a time will: switch its billing off."
        )
    remarks.extend(
        f"Settled by decision: {_counted(one.decisions, 'discrepancies')} of {one.check} {_PAST[one.decision]},"
        f" {plain(one.amount)} in all, last by {one.decided_by} on {one.decided_at:%Y-%m-%d %H:%M}."
        for one in verification.settled
    )
    return remarks


_PAST = {"accept": "accepted", "restore": "restored"}


def _summary(verification: Verification) -> str:
    failed = sum(not check.ok for check in verification.checks)
    at = f"{verification.read_at:%Y-%m-%d %H:%M:%S %Z}"
    if not failed:
        return f"The books are right, as of {at}."
    differences = _counted(verification.found, "discrepancies")
    return f"{failed} of {len(verification.checks)} checks failed, {differences}, as of {at}."
