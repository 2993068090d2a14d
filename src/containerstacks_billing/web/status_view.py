"""What the status page reads, once for everybody who looks, and when it has changed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from containerstacks_billing.errors import BillingError, DatabaseUnavailable, LoginRefused
from containerstacks_billing.status.details import Details
from containerstacks_billing.status.model import (
    Biller,
    Health,
    Limits,
    biller,
    is_stopped,
    limits_of,
    silent_for,
)
from containerstacks_billing.status.read_details import ask_details
from containerstacks_billing.status.verdict import (
    Judgement,
    Notice,
    Tone,
    is_running,
    judge,
    next_run,
    successor,
    without_heartbeat,
)
from containerstacks_billing.web.cache import CachedValue
from containerstacks_billing.web.context import Context

DETAILS_SECONDS = 2.0
_NO_TIME = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class StatusView:
    """One look: `health` is None when the database could not be read."""

    now: datetime
    judgement: Judgement
    limits: Limits
    currency: str
    health: Health | None = None
    details: Details = field(default_factory=Details)
    biller: Biller | None = None
    running: bool = False
    silent: bool = False
    next_run: datetime | None = None
    successor: str = ""
    without_heartbeat: str = ""
    built_in: str | None = None

    @property
    def at_present(self) -> str:
        """Who bills, in words; nobody while a daemon that should is silent or stopped."""
        stopped = self.health is not None and is_stopped(self.health)
        if self.biller is Biller.DAEMON:
            return "nobody" if self.silent or (stopped and not self.running) else "the daemon"
        return {Biller.BUILT_IN: "built-in billing", Biller.HOST: "the host application"}.get(
            self.biller or Biller.NOBODY, "nobody"
        )

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
            self.silent,
            self.next_run,
            self.successor,
            self.without_heartbeat,
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
        self._details = CachedValue(self._read_details, DETAILS_SECONDS)

    def now(self) -> StatusView:
        """Look; never raises BillingError."""
        settings = self._context.settings
        limits = limits_of(settings)
        try:
            health = self._context.readings.health()
            details = self._details.get()
        except BillingError as error:
            said = _unreadable(error)
            return StatusView(datetime.now(UTC), said, limits, settings.currency)
        built_in = self._context.built_in
        look = built_in.last_look if built_in else None
        who = biller(health, limits.failover_after)
        return StatusView(
            now=health.now,
            judgement=judge(health, limits),
            limits=limits,
            currency=settings.currency,
            health=health,
            details=details,
            biller=who,
            running=is_running(health),
            silent=silent_for(health, limits) is not None,
            successor=successor(health, settings.built_in_billing),
            without_heartbeat=without_heartbeat(health, who, settings.built_in_billing),
            next_run=next_run(health, who, limits.interval),
            built_in=look.verdict.sentence if look else None,
        )

    def _read_details(self) -> Details:
        with self._context.pool.reading() as connection:
            answers = ask_details(connection)
        return answers()
