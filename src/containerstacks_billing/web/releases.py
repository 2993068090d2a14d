"""Releases over HTTP: of the run that is held, and of held hours. Pages and API share them.

They write with the rights of this application's role and under the lease of a run, as the command does.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import Field, StringConstraints, model_validator

from containerstacks_billing.charging.dry_run import dry_run
from containerstacks_billing.charging.fleet_reading import latest_hold, release_hold
from containerstacks_billing.charging.forecast import DryRunResult, Limits
from containerstacks_billing.charging.run import RunOrder, terms_of
from containerstacks_billing.database.connection import connect
from containerstacks_billing.document import Document
from containerstacks_billing.errors import BillingError
from containerstacks_billing.holds.model import EVERY_HOUR, Decision, ReleaseDecision, ReleaseResult
from containerstacks_billing.holds.release import release
from containerstacks_billing.identity import process_name
from containerstacks_billing.schema.diagnose import diagnosed
from containerstacks_billing.web.context import Context

# A request does not wait as long for the lease as the command does; a run takes seconds.
LEASE_WAIT_SECONDS = 10.0
Reason = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=1000, pattern=r"^[^\x00]+$"),
    Field(description="Why; it is kept with the decision"),
]


class ReleaseRefused(BillingError):
    """A release that could not be done, in a sentence for the person who wanted it."""


class Order(Document):
    """A decision about held hours: of one instance, of an organization, or of all instances that are held."""

    decision: Decision
    hours: int | None = Field(
        None, ge=0, le=EVERY_HOUR, description="With cap: the most recent hours to keep"
    )
    instance: UUID | None = None
    organization: UUID | None = None
    reason: Reason
    step: Literal["preview", "decide"] = Field("preview", description="preview changes nothing")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.decision is Decision.CAP) != (self.hours is not None):
            raise ValueError("hours belong to cap, and cap needs them")
        if self.instance is not None and self.organization is not None:
            raise ValueError("give an instance or an organization, not both")
        return self


class HeldRunOrder(Document):
    """The release of a held run."""

    reason: Reason
    step: Literal["preview", "decide"] = Field("preview", description="preview changes nothing")


def order_of(order: Order, decided_by: str, *, dry_run: bool) -> ReleaseDecision:
    """Return the decision that an order stands for."""
    kept = {Decision.CHARGE: EVERY_HOUR, Decision.WAIVE: 0}.get(order.decision, order.hours or 0)
    return ReleaseDecision(
        order.decision, decided_by[:255], order.reason, kept, order.organization, order.instance, dry_run
    )


def release_instances(context: Context, order: ReleaseDecision) -> ReleaseResult:
    """Apply a decision about held hours, or show its effect; raises ReleaseRefused."""
    holder = f"release on {process_name()}"
    try:
        return release(context.conninfo, terms_of(context.settings), order, holder, LEASE_WAIT_SECONDS)
    except BillingError as error:
        raise _refused(error) from error


def preview_run(context: Context) -> DryRunResult:
    """Return what the next run would charge if none were held; raises ReleaseRefused."""
    settings = context.settings
    order = RunOrder(
        conninfo=context.conninfo,
        terms=terms_of(settings),
        trigger="manual",
        holder=process_name(),
        workers=settings.billing_workers,
        batch_size=settings.billing_batch_size,
    )
    try:
        return dry_run(order, Limits(0, 0, 0))
    except BillingError as error:
        raise _refused(error) from error


def release_run(context: Context, run_id: int, decided_by: str, reason: str) -> None:
    """Release the run that is held, provided that it is the one that was looked at; raises ReleaseRefused."""
    try:
        with diagnosed(context.conninfo), connect(context.conninfo, purpose="billing") as connection:
            hold = latest_hold(connection)
            released = (
                hold is not None
                and not hold.is_released
                and hold.run_id == run_id
                and release_hold(connection, hold, decided_by[:255], reason[:1000])
            )
    except BillingError as error:
        raise _refused(error) from error
    if not released:
        raise ReleaseRefused(f"Run {run_id} is not held any more. Look at what is held now.")


def _refused(error: BillingError) -> ReleaseRefused:
    # An admin sees the sentence and what to do; neither names a password.
    return ReleaseRefused(f"It was not decided: {error}", error.hint)
