"""Metrics for Prometheus, read from the tables at each scrape: right even when the daemon is dead.

No metric names an organization, an instance or a process. Off loopback a token is wanted all the same: how much is
billed is confidential.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import PlainTextResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from containerstacks_billing.errors import BillingError
from containerstacks_billing.status.failover import Decision
from containerstacks_billing.status.model import Health
from containerstacks_billing.status.read import last_leaks
from containerstacks_billing.status.verdict import Biller, Condition, host_debits_beside, verdict_of
from containerstacks_billing.version import __version__
from containerstacks_billing.web.auth import address_of, require_admin
from containerstacks_billing.web.context import Context, InContext
from containerstacks_billing.web.money_metrics import (
    PREFIX,
    backlog_metrics,
    gauge,
    one_of,
    run_metrics,
    total_metrics,
)
from containerstacks_billing.web.problems import documented

router = APIRouter(tags=["metrics"])
_bearer = HTTPBearer(auto_error=False, scheme_name="adminToken")


def is_loopback(address: str) -> bool:
    """Whether a request came from this machine."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return (mapped or parsed).is_loopback


def _names_loopback(host: str) -> bool:
    """Whether the name that a request was sent to is one of this machine's own."""
    return host == "localhost" or is_loopback(host.strip("[]"))


def from_here_or_admin(
    request: Request,
    context: InContext,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> None:
    """Allow unauthenticated access from loopback only, under a name of loopback.

    A page elsewhere can have its own name lead to this address, in a browser on this machine (DNS rebinding).
    """
    is_here = is_loopback(address_of(request)) and _names_loopback(request.url.hostname or "")
    if credentials is not None or not is_here:
        require_admin(request, context, credentials)


@router.get(
    "/metrics",
    summary="Figures for Prometheus",
    response_class=PlainTextResponse,
    responses=documented(401, 403, 429),
    dependencies=[Depends(from_here_or_admin)],
)
def metrics(context: InContext) -> Response:
    """Give the metrics in Prometheus' text format; without the database `database_up` is 0 and the rest is missing."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Tables(context))
    return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


class _Tables(Collector):
    """What the tables say, as metrics."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def describe(self) -> list[Metric]:
        """Describe nothing: the tables are read by `collect` alone."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Read the tables."""
        yield InfoMetricFamily(f"{PREFIX}build", "The version of this software", {"version": __version__})
        yield from self._process()
        try:
            health = self._context.readings.health()
            difference = self._context.readings.clock_difference()
        except BillingError:
            yield gauge("database_up", "Whether the database answers", 0)
            return
        yield gauge("database_up", "Whether the database answers", 1)
        yield gauge(
            "clock_difference_seconds",
            "By how much the database's clock, which counts the hours, is ahead of this host's",
            difference.total_seconds(),
        )
        yield from self._schema()
        yield from self._who(health)
        yield from run_metrics(health)
        yield from backlog_metrics(health)
        yield from self._leaks()
        yield from self._totals(health)

    def _totals(self, health: Health) -> Iterator[Metric]:
        try:
            totals = self._context.readings.totals()
        except BillingError:
            return
        yield from total_metrics(totals, health.now, self._context.settings.currency)

    def _process(self) -> Iterator[Metric]:
        built_in = self._context.built_in
        look = built_in.last_check if built_in else None
        running = built_in is not None and built_in.is_alive
        yield gauge("built_in_running", "Whether this process looks after built-in billing", running)
        blind = look is not None and look.decision.decision is Decision.CANNOT_TELL
        yield gauge(
            "built_in_blind", "Whether built-in billing cannot tell who bills, or could not bill", blind
        )

    def _schema(self) -> Iterator[Metric]:
        try:
            fits = self._context.readings.schema_problem() is None
        except BillingError:
            fits = False
        yield gauge("schema_ok", "Whether the database has the schema of this version", fits)

    def _leaks(self) -> Iterator[Metric]:
        """Give the sums of the last report of leaks; nothing before the first."""
        with self._context.pool.reading() as connection:
            found = last_leaks(connection)
        if found is None:
            return
        monthly = GaugeMetricFamily(
            f"{PREFIX}leaks_monthly_amount",
            "Money a month that is not billed, or billed for nothing, by reason",
            labels=["reason"],
        )
        number = GaugeMetricFamily(f"{PREFIX}leaks", "Instances and volumes that leak", labels=["reason"])
        for one in found.reasons:
            monthly.add_metric([one.reason], float(one.monthly))
            number.add_metric([one.reason], one.leaks)
        yield monthly
        yield number
        yield gauge(
            "last_leaks_timestamp_seconds", "When leaks were last looked for", found.read_at.timestamp()
        )

    def _who(self, health: Health) -> Iterator[Metric]:
        verdict = verdict_of(health, self._context.settings)
        limits = verdict.limits
        yield one_of("biller", "What bills at present: 1 for one of them", "biller", Biller, verdict.biller)
        yield gauge(
            "built_in_active", "Whether built-in billing has taken over", verdict.biller is Biller.BUILT_IN
        )
        yield gauge(
            "daemon_active",
            "Whether the newest heartbeat is younger than the failover threshold",
            not verdict.is_stale,
        )
        yield gauge(
            "host_bills_beside",
            "Whether the host's own scheduler debited a wallet within two hours, while the daemon was alive",
            verdict.condition in {Condition.RUNNING, Condition.ERROR} and host_debits_beside(health),
        )
        yield one_of(
            "failover_target",
            "What takes over when the daemon is silent: 1 for one of them",
            "target",
            ("built-in", "host", "both", "nobody"),
            verdict.failover.who,
        )
        yield gauge(
            "failover_after_seconds",
            "The age of a heartbeat at which built-in billing takes over",
            limits.failover_after.total_seconds(),
        )
        yield gauge(
            "silent_after_seconds",
            "The age of a heartbeat at which a person should look",
            limits.silent_after.total_seconds(),
        )
        yield gauge(
            "late_after_seconds",
            "The time without a completed run at which a person should look",
            limits.late_after.total_seconds(),
        )
        if health.failover.heartbeat_at is not None:
            age = (health.now - health.failover.heartbeat_at).total_seconds()
            yield gauge("heartbeat_age_seconds", "The age of the newest heartbeat of any daemon", age)
        if health.daemon is not None:
            states = ("running", "stopped", "error")
            yield one_of(
                "daemon_status", "What the daemon says it is", "status", states, health.daemon.status
            )
            states = ("running", "stopped", "error")
            yield one_of(
                "daemon_status", "What the daemon says it is", "status", states, health.daemon.status
            )
        yield gauge("lease_held", "Whether the lease is held", health.lease.holder is not None)
        yield gauge("lease_seconds_left", "How long the lease still holds", health.lease.seconds_left)
