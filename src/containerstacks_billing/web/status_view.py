"""The view of the status page: read once for all viewers, with what makes one view differ from the next."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from containerstacks_billing.clock import Clock
from containerstacks_billing.errors import BillingError, DatabaseUnavailable, LoginRefused
from containerstacks_billing.status.model import Details, Health, Limits, limits_of
from containerstacks_billing.status.read import ask_details
from containerstacks_billing.status.sentences import headline_of, present_of, takeover_of
from containerstacks_billing.status.verdict import Problem, Tone, Verdict, verdict_of
from containerstacks_billing.web.cache import CachedValue
from containerstacks_billing.web.context import Context

DETAILS_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class StatusView:
    """What the page shows at one instant; `health` and `verdict` are None when the database could not be read."""

    now: datetime
    limits: Limits
    currency: str
    tone: Tone
    headline: str
    text: str
    problems: tuple[Problem, ...]
    health: Health | None = None
    verdict: Verdict | None = None
    details: Details = field(default_factory=Details)
    built_in: str | None = None

    @property
    def present(self) -> str:
        """The biller in words; empty when it is not known."""
        return present_of(self.verdict) if self.verdict else ""

    @property
    def takeover(self) -> str:
        """What takes over when the daemon is silent, without the time; empty when it is not known."""
        return takeover_of(self.verdict) if self.verdict else ""

    @property
    def essence(self) -> object:
        """The view without the time that passes: two views with equal essence look alike."""
        health, verdict = self.health, self.verdict
        if health is None or verdict is None:
            return self.headline, self.text, self.problems
        sides = tuple(replace(side, looked_at=_NO_TIME) for side in health.failover.application_sides)
        timeless = replace(health.failover, now=_NO_TIME, application_sides=sides)
        health = replace(health, failover=timeless, lease=replace(health.lease, seconds_left=0.0))
        return health, replace(verdict, now=_NO_TIME), self.details, self.built_in


_NO_TIME = datetime.min.replace(tzinfo=UTC)


class StatusReader:
    """Reads the tables for every page and stream of one application."""

    def __init__(self, context: Context) -> None:
        self._context, self._clock = context, Clock()
        self._details = CachedValue(self._read_details, DETAILS_SECONDS)

    def now(self) -> StatusView:
        """Return the view; never raises BillingError."""
        settings = self._context.settings
        try:
            health = self._context.readings.health()
            details = self._details.get()
        except BillingError as error:
            return self._unreadable(error)
        verdict = verdict_of(health, settings)
        tone, headline, text = headline_of(verdict)
        built_in = self._context.built_in
        look = built_in.last_check if built_in else None
        return StatusView(
            health.now, verdict.limits, settings.currency, tone, headline, text, verdict.problems,
            health=health, verdict=verdict, details=details, built_in=look.decision.sentence if look else None,
        )  # fmt: skip

    def _unreadable(self, error: BillingError) -> StatusView:
        """Return the view without a database; error details stay in the log, since anyone may see the page."""
        away = isinstance(error, (DatabaseUnavailable, LoginRefused))
        title = "The database does not answer" if away else "The database could not be read"
        text = "This page looks again by itself. The daemon goes on as soon as it can, and no hour is lost."
        problem = Problem(Tone.BAD, title, text, "containerstacks-billing doctor")
        settings = self._context.settings
        return StatusView(
            self._clock.host_time(), limits_of(settings), settings.currency, Tone.BAD,
            "Billing cannot be seen", f"{title}, so it is not known who bills.", (problem,),
        )  # fmt: skip

    def _read_details(self) -> Details:
        with self._context.pool.reading() as connection:
            answers = ask_details(connection)
        return answers()
