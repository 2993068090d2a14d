"""`events`: list, deliver and retry webhook events for the host application."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from containerstacks_billing.cli.arguments import (
    WholeNumber,
    json_option,
    organization_option,
    require_organization,
)
from containerstacks_billing.cli.main import app, configured

if TYPE_CHECKING:
    from containerstacks_billing.notifications.http_post import Endpoint

_EXAMPLES = """
\b
Examples:
  containerstacks-billing events
  containerstacks-billing events --kind past_due --json
  containerstacks-billing events --dead
  containerstacks-billing events test           is the receiver ready?
  containerstacks-billing events deliver
  containerstacks-billing events retry 4711
  containerstacks-billing events retry --dead
"""
_DELIVER_EXAMPLES = """
\b
Examples:
  containerstacks-billing events deliver
  containerstacks-billing events deliver --json | jq .waiting
"""
_RETRY_EXAMPLES = """
\b
Examples:
  containerstacks-billing events retry 4711
  containerstacks-billing events retry --dead    all that were given up
"""
_TEST_EXAMPLES = """
\b
Examples:
  containerstacks-billing events test            is the receiver ready?
  containerstacks-billing events test --json | jq .milliseconds
"""


@app.group("events", invoke_without_command=True, epilog=_EXAMPLES)
@click.option("--dead", is_flag=True, help="Only those that were given up.")
@click.option("--kind", metavar="KIND", help="Only of this kind.")
@organization_option("Only of this organization.")
@click.option("--limit", type=WholeNumber(1, 10_000), metavar="N", default=50, help="At most so many.")
@json_option
@click.pass_context
def verbs(
    ctx: click.Context, dead: bool, kind: str | None, organization: UUID | None, limit: int, as_json: bool
) -> None:
    """List the events for the host, newest first, and send them."""
    if ctx.invoked_subcommand is not None:
        return
    from containerstacks_billing.cli import render
    from containerstacks_billing.config.target import target
    from containerstacks_billing.database.connection import connect
    from containerstacks_billing.notifications import outbox as events
    from containerstacks_billing.notifications.model import Kind
    from containerstacks_billing.schema.diagnose import diagnosed
    from containerstacks_billing.text import minute

    known = [one.value for one in Kind if one is not Kind.TEST]
    if kind is not None and kind not in known:
        raise click.BadParameter(f"there is no kind of event called that; there are {', '.join(known)}.")
    settings = configured(ctx).settings
    conninfo = target(settings).conninfo
    with diagnosed(conninfo), connect(conninfo, purpose="reading") as connection:
        rows = events.list_events(connection, dead=dead, kind=kind, organization=organization, limit=limit)
        if organization is not None and not rows:
            # Events outlive their organization, so one that has some is known.
            require_organization(connection, organization)
        waiting, due_at = events.waiting(connection, organization)
    if as_json:
        from containerstacks_billing.notifications.schemas import EventDocument, Events

        found = [EventDocument.of(row) for row in rows]
        render.emit_json(Events(events=found, waiting=waiting, next_attempt_at=due_at))
        return
    headings = ("No.", "When (UTC)", "Event", "About", "State")
    cells = [(row["id"], minute(row["occurred_at"]), row["kind"], _about(row), _state(row)) for row in rows]
    console = render.stdout()
    if rows:
        console.print(render.table(headings, cells, right=("No.",)))
    else:
        console.print("There are no such events.")
    if waiting and settings.webhook_url is None:
        they = (
            "1 waits; without WEBHOOK_URL it"
            if waiting == 1
            else f"{waiting:,} wait; without WEBHOOK_URL they"
        )
        console.print(f"\n{they} can only be read.")


@verbs.command(epilog=_DELIVER_EXAMPLES)
@json_option
@click.pass_context
def deliver(ctx: click.Context, as_json: bool) -> None:
    """Send what is due now.

    Exits 1 when an event could not be delivered.
    """
    from containerstacks_billing.cli import render
    from containerstacks_billing.config.target import target
    from containerstacks_billing.notifications.delivery import deliver_due

    settings = configured(ctx).settings
    _endpoint(ctx)
    came_of_it = deliver_due(target(settings).conninfo, settings, limit=100_000, deadline=3600)
    if as_json:
        names = ("delivered", "failed", "dead", "waiting")
        render.emit_json({name: getattr(came_of_it, name) for name in names})
    else:
        render.stdout().print(
            f"{came_of_it.delivered} delivered, {came_of_it.failed} to be tried again,"
            f" {came_of_it.dead} given up, {came_of_it.waiting} waiting."
        )
    ctx.exit(1 if came_of_it.failed or came_of_it.dead else 0)


@verbs.command(epilog=_RETRY_EXAMPLES)
@click.argument("number", type=WholeNumber(), required=False, metavar="[NO.]", help="Its number in the list.")
@click.option("--dead", is_flag=True, help="All that were given up.")
@click.pass_context
def retry(ctx: click.Context, number: int | None, dead: bool) -> None:
    """Let an event be sent again.

    Also one that was given up or delivered.
    """
    from containerstacks_billing.cli import render
    from containerstacks_billing.config.target import target
    from containerstacks_billing.database.connection import connect
    from containerstacks_billing.errors import WorkFailed
    from containerstacks_billing.notifications import outbox as events
    from containerstacks_billing.schema.diagnose import diagnosed
    from containerstacks_billing.text import counted

    if (number is None) is not dead:
        raise click.BadParameter("give the number of an event, or --dead.")
    conninfo = target(configured(ctx).settings).conninfo
    with diagnosed(conninfo), connect(conninfo, purpose="billing") as connection:
        if number is None:
            count = events.revive_dead(connection)
        elif events.revive(connection, number):
            count = 1
        else:
            raise WorkFailed(
                f"There is no event {number}.", hint="containerstacks-billing events lists them."
            )
    render.stdout().print(f"{counted(count, 'event')} {'is' if count == 1 else 'are'} due again.")


@verbs.command("test", epilog=_TEST_EXAMPLES)
@json_option
@click.pass_context
def send_test(ctx: click.Context, as_json: bool) -> None:
    """Send a signed event of the kind test, which is not stored.

    Exits 1 unless it is accepted.
    """
    import time
    from uuid import uuid4

    from containerstacks_billing.cli import render
    from containerstacks_billing.clock import Clock
    from containerstacks_billing.notifications.delivery import send
    from containerstacks_billing.notifications.http_post import PostFailed
    from containerstacks_billing.notifications.model import DeliveryOutcome, Event, Kind, delivery_outcome

    endpoint = _endpoint(ctx)
    # Nothing is read from a database: this has to work before there is one.
    event = Event(0, uuid4(), Kind.TEST, None, None, None, Clock().host_time(), {"message": "a test"})
    began = time.monotonic()
    status, error = None, None
    try:
        status = send(endpoint, event)
    except PostFailed as failure:
        error = str(failure)
    took = round((time.monotonic() - began) * 1000)
    accepted = status is not None and delivery_outcome(status) is DeliveryOutcome.DELIVERED
    if as_json:
        document = {"accepted": accepted, "status": status, "error": error, "milliseconds": took}
        render.emit_json({"id": event.event_id, **document})
    elif accepted:
        render.stdout().print(f"Accepted with {status} after {took} ms.")
    else:
        render.stdout().print(f"Not accepted: {error or f'the receiver answered {status}'}.")
    ctx.exit(0 if accepted else 1)


def _endpoint(ctx: click.Context) -> Endpoint:
    from containerstacks_billing.errors import ConfigurationError
    from containerstacks_billing.notifications.delivery import endpoint_of

    endpoint = endpoint_of(configured(ctx).settings)
    if endpoint is None:
        raise ConfigurationError(
            "WEBHOOK_URL is not set, so there is nowhere to send to.",
            hint="Set WEBHOOK_URL and WEBHOOK_SECRET in the host application's .env.",
        )
    return endpoint


def _about(row: dict[str, Any]) -> str:
    """Say in a few words what an event is about, for the list."""
    from containerstacks_billing.cli.render import shortened
    from containerstacks_billing.text import counted

    payload = row["payload"]
    who = ""
    if row["organization_id"]:
        who = f"{shortened(row['organization'] or str(row['organization_id'])[:8])}: "
    if "hoursLeft" in payload:
        left = float(payload["hoursLeft"])
        return f"{who}{f'{left:.1f} h left' if left > 0 else 'empty'}"
    if "pastDue" in payload:
        return f"{who}owes {payload['pastDue']}"
    if "instances" in payload:
        return f"{who}{counted(payload['instances'], 'instance')} quarantined or held"
    return who + str(payload.get("reason", ""))


def _state(row: dict[str, Any]) -> str:
    if row["state"] != "waiting" or not row["attempts"]:
        return f"{row['state']}: {row['last_error']}" if row["state"] == "dead" else row["state"]
    return f"attempt {row['attempts']} failed: {row['last_error']}" if row["last_error"] else "being sent"
