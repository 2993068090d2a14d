"""`admission`: whether a customer may create an instance, and the minimum balances for that."""

from __future__ import annotations

from decimal import Decimal
from uuid import UUID

import click

from containerstacks_billing.cli.arguments import AMOUNT, ORGANIZATION_ID, Number, json_option
from containerstacks_billing.cli.main import app, configured
from containerstacks_billing.errors import EXIT_FAILED

_EXAMPLES = """
\b
Examples:
  containerstacks-billing admission check ID g6-nanode-1 --hours 72
  containerstacks-billing admission minimum 5.00 --reason "one day at least"
  containerstacks-billing admission minimum 20.00 --plan gpu-1 --reason fraud
  containerstacks-billing admission minimum --remove --plan gpu-1
  containerstacks-billing admission minimum            what is set
"""


_CHECK_EXAMPLES = """
\b
Examples:
  containerstacks-billing admission check ID g6-nanode-1
  containerstacks-billing admission check ID g6-nanode-1 --hours 72 --json
"""
_MINIMUM_EXAMPLES = """
\b
Examples:
  containerstacks-billing admission minimum            what is set
  containerstacks-billing admission minimum 5.00 --reason "one day at least"
  containerstacks-billing admission minimum 20.00 --plan gpu-1 --reason fraud
  containerstacks-billing admission minimum --remove --plan gpu-1
"""


@app.group("admission", epilog=_EXAMPLES)
def admission() -> None:
    """Say whether a customer may start a server; set minimums.

    A host calls the same in SQL, billing_may_create(organization, plan, hours), or
    over HTTP, GET /api/billing/organizations/ID/admission.
    """


@admission.command(epilog=_CHECK_EXAMPLES)
@click.argument("organization", type=ORGANIZATION_ID, metavar="ORG")
@click.argument("plan", metavar="PLAN")
@click.option(
    "--hours", type=Number(0, 876_000), default=24, metavar="N", help="How long the balance has to last."
)
@json_option
@click.pass_context
def check(ctx: click.Context, organization: UUID, plan: str, hours: float, as_json: bool) -> None:
    """Say whether ORG may start a PLAN server.

    Exits 1 if not.
    """
    from containerstacks_billing.admission.admission import may_create
    from containerstacks_billing.cli import render
    from containerstacks_billing.config.target import target
    from containerstacks_billing.database.connection import connect
    from containerstacks_billing.schema.diagnose import diagnosed

    settings = configured(ctx).settings
    conninfo = target(settings).conninfo
    with diagnosed(conninfo), connect(conninfo, purpose="reading") as connection:
        answer = may_create(
            connection, organization, plan, hours=Decimal(str(hours)), currency=settings.currency
        )
    if as_json:
        render.emit_json(answer)
    else:
        render.stdout().print(f"{'Yes' if answer.allowed else 'No'}. {answer.reason}")
    if not answer.allowed:
        ctx.exit(EXIT_FAILED)


@admission.command(epilog=_MINIMUM_EXAMPLES)
@click.argument("amount", type=AMOUNT, required=False)
@click.option("--plan", metavar="PLAN", help="Only for this plan: id, provider_plan_id or name.")
@click.option("--remove", is_flag=True, help="Remove the minimum.")
@click.option("--reason", metavar="TEXT", help="Why; it is kept.")
@json_option
@click.pass_context
def minimum(
    ctx: click.Context,
    amount: Decimal | None,
    plan: str | None,
    remove: bool,
    reason: str | None,
    as_json: bool,
) -> None:
    """Set, remove or list minimum balances.

    A minimum is what has to be available before a server may be started.
    """
    from containerstacks_billing.admission import admission as minimums
    from containerstacks_billing.admission.schemas import Minimums
    from containerstacks_billing.cli import render
    from containerstacks_billing.config.target import target
    from containerstacks_billing.database.connection import connect
    from containerstacks_billing.errors import WorkFailed
    from containerstacks_billing.identity import operator_name
    from containerstacks_billing.pricing.versions import find_plans
    from containerstacks_billing.schema.diagnose import diagnosed
    from containerstacks_billing.text import minute

    if amount is not None and (remove or not (reason or "").strip()):
        raise click.UsageError("A minimum is set with --reason and without --remove.")
    if amount is not None and not (0 <= amount <= 100_000_000 and amount == round(amount, 2)):
        raise click.BadParameter("it has to be between 0 and 100000000, in whole cents.", param_hint="AMOUNT")
    conninfo = target(configured(ctx).settings).conninfo
    with (
        diagnosed(conninfo),
        connect(conninfo, purpose="billing" if amount is not None or remove else "reading") as connection,
    ):
        plan_id = None
        if plan is not None:
            found = find_plans(connection, plan)
            if len(found) != 1:
                raise WorkFailed(
                    f"{'several plans are' if found else 'no plan is'} called {plan!r}",
                    "give its id: containerstacks-billing prices list",
                )
            plan_id = found[0].plan_id
        if amount is not None:
            minimums.set_minimum(
                connection, plan_id, amount, by=operator_name(), reason=(reason or "").strip()
            )
        elif remove and not minimums.remove_minimum(connection, plan_id):
            raise WorkFailed("no such minimum is set", "see: containerstacks-billing admission minimum")
        rows = minimums.minimums(connection)
    if as_json:
        render.emit_json(Minimums.model_validate({"minimums": rows}))
        return
    console = render.stdout()
    if not rows:
        console.print("No minimum is set: a balance has to last for the hours that are asked for.")
        return
    cells = [
        (
            render.shortened(row["plan"] or "every other plan"),
            row["amount"],
            row["set_by"],
            minute(row["set_at"]),
            row["reason"],
        )
        for row in rows
    ]
    console.print(
        render.table(("Plan", "Minimum", "Set by", "At (UTC)", "Reason"), cells, right=("Minimum",))
    )
