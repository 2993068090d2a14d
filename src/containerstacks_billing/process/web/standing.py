"""What the status page reads, once for everybody who looks, and when it has changed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from containerstacks_billing.billing.errors import BillingError, DatabaseUnavailable, LoginRefused
from containerstacks_billing.billing.health import Biller, Health, biller
from containerstacks_billing.billing.standing import (
    Details,
    Judgement,
    Notice,
    Tone,
    is_running,
    judge,
    next_run,
    successor,
)
from containerstacks_billing.postgres.standing import ask_details
from containerstacks_billing.process.web.context import Context
from containerstacks_billing.process.web.reading import Shared

DETAILS_SECONDS = 2.0
_NO_TIME = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Standing:
    """One look: `health` is None when the database could not be read."""

    now: datetime
    judgement: Judgement
    failover_after: timedelta
    interval: timedelta
    currency: str
    health: Health | None = None
    details: Details = field(default_factory=Details)
    biller: Biller | None = None
    running: bool = False
    next_run: datetime | None = None
    successor: str = ""
    built_in: str | None = None

    @property
    def essence(self) -> object:
        """What makes one look differ from another, apart from the time that passes anyway."""
        health = self.health
        if health is not None:
            timeless = replace(health.failover, now=_NO_TIME)
            holder = replace(health.lease, seconds_left=0.0)
            health = replace(health, failover=timeless, lease=holder)
        return (
            health,
            self.details,
            self.judgement,
            self.biller,
            self.running,
            self.next_run,
            self.successor,
            self.built_in,
        )


def _unreadable(error: BillingError) -> Judgement:
    """Say that nothing can be said, and not why: the answers of a database name what is nobody's business."""
    away = isinstance(error, (DatabaseUnavailable, LoginRefused))
    title = "The database does not answer" if away else "The database could not be read"
    what = "This page looks again by itself. The daemon goes on as soon as it can, and no hour is lost."
    return Judgement(
        Tone.BAD,
        "Billing cannot be seen",
        f"{title}, so nobody can say who bills.",
        (Notice(Tone.BAD, title, what, "containerstacks-billing doctor"),),
    )


class Look:
    """Looks at the tables for every page and stream of one application."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._details = Shared(self._read_details, DETAILS_SECONDS)

    def now(self) -> Standing:
        """Look; never raises BillingError."""
        settings = self._context.settings
        failover_after = timedelta(minutes=settings.failover_after_minutes)
        interval = timedelta(minutes=settings.billing_interval_minutes)
        try:
            health = self._context.readings.health()
            details = self._details.get()
        except BillingError as error:
            said = _unreadable(error)
            return Standing(datetime.now(UTC), said, failover_after, interval, settings.currency)
        built_in = self._context.built_in
        look = built_in.last_look if built_in else None
        who = biller(health, failover_after)
        return Standing(
            now=health.now,
            judgement=judge(health, failover_after),
            failover_after=failover_after,
            interval=interval,
            currency=settings.currency,
            health=health,
            details=details,
            biller=who,
            running=is_running(health),
            successor=successor(health, settings.built_in_billing),
            next_run=next_run(health, who, interval),
            built_in=look.verdict.sentence if look else None,
        )

    def _read_details(self) -> Details:
        with self._context.pool.reading() as connection:
            answers = ask_details(connection)
        return answers()
