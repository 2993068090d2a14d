"""`why`: where an amount comes from, or why there is none."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from containerstacks_billing.cli.arguments import INSTANT, json_option
from containerstacks_billing.cli.main import app, configured
from containerstacks_billing.errors import EXIT_FAILED

if TYPE_CHECKING:
    from containerstacks_billing.database.connection import Connection

_EXAMPLES = """
\b
Examples:
  containerstacks-billing why ENTRY              a line on a balance
  containerstacks-billing why ENTRY --customer   three sentences to send
  containerstacks-billing why CHARGE --json      hours, rate and price
  containerstacks-billing why INSTANCE --at 2026-11-14T03:00Z
"""
_SPAN = timedelta(days=7)


class _AnyId(click.ParamType[UUID]):
    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> UUID:
        try:
            return UUID(value)
        except ValueError:
            self.fail(f"{value!r} is no id of an entry, charge, instance or organization.", param, ctx)


@app.command(epilog=_EXAMPLES)
@click.argument("identifier", metavar="ENTRY|CHARGE|INSTANCE|ORGANIZATION", type=_AnyId())
@click.option("--at", type=INSTANT, metavar="T", help="What held at this instant; UTC without an offset.")
@click.option("--customer", is_flag=True, help="Three sentences that can be sent to a customer.")
@json_option
@click.pass_context
def why(ctx: click.Context, identifier: UUID, at: datetime | None, customer: bool, as_json: bool) -> None:
    """Explain an amount, or why an hour was not billed.

    A ledger entry or a charge is followed down to hours, rate, price, run and adjustments; an instance
    and an organization as they are, or at an instant. Reads one snapshot with a role that may only read.
    Exits 1 when the numbers do not add up, and says by how much.
    """
    from containerstacks_billing.cli import render
    from containerstacks_billing.config.target import target
    from containerstacks_billing.explain.snapshot import snapshot

    if customer and as_json:
        raise click.UsageError("--customer writes sentences; leave out --json.")
    with snapshot(target(configured(ctx).settings).conninfo) as connection:
        kind, explanation = _explain(connection, identifier, at)
    findings = explanation.findings()
    if customer:
        if findings:
            raise click.ClickException(f"the numbers do not add up, so nothing is said: {findings[0]}")
        for sentence in _sentences(kind, explanation):
            print(sentence)
        return
    if as_json:
        render.emit_json(_document(kind, explanation))
    else:
        _show(kind, explanation)
    if findings:
        if not as_json:
            _complain(findings)
        ctx.exit(EXIT_FAILED)


def _explain(connection: Connection, identifier: UUID, at: datetime | None) -> tuple[str, Any]:
    """Return what the id names, and its explanation; a usage error where no table knows it."""
    from containerstacks_billing.explain import why as explain

    kind = explain.find(connection, identifier).kind
    explanation: Any = None
    if kind == "entry":
        explanation = explain.explain_entry(connection, identifier)
    elif kind == "charge":
        explanation = explain.explain_charge(connection, identifier)
    elif kind == "instance":
        explanation = explain.explain_instance(connection, identifier, at, _SPAN)
    elif kind == "organization":
        explanation = explain.explain_organization(connection, identifier, at)
    if kind is None or explanation is None:
        raise click.BadParameter(
            f"the books know no entry, charge, instance or organization {identifier}.",
            param_hint="ENTRY|CHARGE|INSTANCE|ORGANIZATION",
        )
    if at is not None and kind in ("entry", "charge"):
        raise click.BadParameter(f"this is the id of one {kind}; --at is for an instance or an organization.")
    return kind, explanation


def _document(kind: str, explanation: Any) -> object:
    from containerstacks_billing.explain.charge_schemas import EntryDocument, ExplainedCharge
    from containerstacks_billing.explain.schemas import InstanceDocument, OrganizationDocument

    write: Any = {
        "entry": EntryDocument.of,
        "charge": ExplainedCharge.with_entry,
        "instance": InstanceDocument.of,
        "organization": OrganizationDocument.of,
    }[kind]
    return write(explanation).as_json()


def _sentences(kind: str, explanation: Any) -> list[str]:
    from containerstacks_billing.explain import customer

    write: Any = {
        "entry": customer.entry_sentences,
        "charge": customer.charge_sentences,
        "instance": customer.instance_sentences,
        "organization": customer.organization_sentences,
    }[kind]
    sentences: list[str] = write(explanation)
    return sentences


def _show(kind: str, explanation: Any) -> None:
    from containerstacks_billing.cli import render, why_report

    show: Any = {
        "entry": why_report.show_entry,
        "charge": why_report.show_charge,
        "instance": why_report.show_instance,
        "organization": why_report.show_organization,
    }[kind]
    show(render.stdout(), explanation)


def _complain(findings: list[str]) -> None:
    from containerstacks_billing.cli import render

    console = render.stdout()
    console.print()
    console.print("It does not add up:", style="red")
    for finding in findings:
        console.print(render.indented(finding, 2))
