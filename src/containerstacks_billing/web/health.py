"""Health: of this process, of its database, and of billing."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from containerstacks_billing.errors import BillingError
from containerstacks_billing.status.model import Health
from containerstacks_billing.status.schemas import Run
from containerstacks_billing.status.sentences import takeover_of
from containerstacks_billing.status.verdict import Verdict, verdict_of
from containerstacks_billing.web.auth import AsAdmin
from containerstacks_billing.web.context import Context, InContext
from containerstacks_billing.web.problems import Refused, documented
from containerstacks_billing.web.schemas import ApiHealth, BuiltIn, Daemon, DaemonHealth, State, Takeover

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="Whether the process is alive")
async def healthz() -> State:
    """Say that the process answers. Reads nothing."""
    return State(status="ok")


@router.get("/readyz", summary="Whether it can work", responses=documented(503))
def readyz(context: InContext) -> State:
    """Say whether the database answers and has the schema of this version."""
    if context.readings.schema_problem():
        raise Refused(503, "Billing cannot run on this schema; `containerstacks-billing doctor` says why.")
    context.readings.health()
    return State(status="ready")


@router.get("/api/health", summary="Whether the application side works", responses=documented(503))
def api_health(context: InContext, response: Response) -> ApiHealth:
    """Say whether the application side works."""
    works = True
    try:
        context.readings.health()
    except BillingError:
        works = False
        response.status_code = 503
    return ApiHealth(
        success=works,
        timestamp=context.clock.host_time(),
        status="ok" if works else "degraded",
        database="ok" if works else "unavailable",
    )


@router.get(
    "/api/health/billing-daemon",
    summary="The daemon, and who bills",
    responses=documented(401, 403, 429, 503),
    response_model_exclude_unset=True,
)
def billing_daemon(context: InContext, _admin: AsAdmin) -> DaemonHealth:
    """Return the state of the billing daemon, the current biller, and what takes over."""
    health = context.readings.health()
    return DaemonHealth(success=True, timestamp=health.now, daemon=_daemon(context, health))


def _daemon(context: Context, health: Health) -> Daemon:
    verdict = verdict_of(health, context.settings)
    heartbeat_at = verdict.heartbeat_at
    last = health.last_finished
    row = health.daemon
    facts: dict[str, Any] = {"error_message": row.error_message} if row and row.error_message else {}
    return Daemon(
        status=row.status if row else "stopped",
        last_run=row.last_run_at if row else None,
        last_run_success=row.last_run_success if row else None,
        instances_billed=row.instances_billed if row else 0,
        total_amount=float(row.total_amount) if row else 0.0,
        total_hours=float(row.total_hours) if row else 0.0,
        next_scheduled_run=None if verdict.is_stale else verdict.next_run,
        uptime_minutes=_uptime_minutes(health, verdict),
        is_stale=verdict.is_stale,
        warning_threshold_exceeded=verdict.run_is_late,
        daemon_instance_id=row.daemon_instance_id if row else None,
        heartbeat_at=heartbeat_at,
        heartbeat_age_seconds=(health.now - heartbeat_at).total_seconds() if heartbeat_at else None,
        biller=verdict.biller,
        since=verdict.since,
        takeover=Takeover(
            by=verdict.failover.who,
            at=verdict.takeover_at,
            sentence=takeover_of(verdict),
            reason=verdict.failover.reason,
        ),
        built_in=built_in_of(context),
        last_successful_run=Run.of(health.last_successful) if health.last_successful else None,
        run_in_progress=Run.of(health.in_progress) if health.in_progress else None,
        past_due_instances=last.past_due_instances if last else 0,
        quarantined_instances=health.quarantined_instances,
        held_instances=health.held_instances,
        **facts,
    )


def _uptime_minutes(health: Health, verdict: Verdict) -> int | None:
    row = health.daemon
    if verdict.is_stale or row is None or row.started_at is None or row.status == "stopped":
        return None
    return max(int((health.now - row.started_at).total_seconds() // 60), 0)


def built_in_of(context: Context) -> BuiltIn:
    """Show the built-in billing of this process."""
    built_in = context.built_in
    look = built_in.last_check if built_in else None
    return BuiltIn(
        setting=context.settings.built_in_billing,
        running=built_in is not None and built_in.is_alive,
        decision=look.decision.decision.value if look else None,
        explanation=look.decision.sentence if look else None,
        looked_at=look.at if look else None,
        host_bills=look.host_bills if look else None,
    )
