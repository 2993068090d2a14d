"""The application side, put together: routers by subject, one context, one set of bounds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.concurrency import run_in_threadpool

from containerstacks_billing.daemon.built_in import BuiltInBilling
from containerstacks_billing.database.pool import ReadingPool
from containerstacks_billing.settings import Settings
from containerstacks_billing.version import __version__
from containerstacks_billing.web import (
    admission,
    customers,
    decisions,
    explanations,
    health,
    metrics,
    operations,
    page,
    problems,
    runs,
)
from containerstacks_billing.web import docs as documentation
from containerstacks_billing.web.cache import Readings
from containerstacks_billing.web.context import Context
from containerstacks_billing.web.middleware import Bounds
from containerstacks_billing.web.representation import Representation

VERSION = "/api/v1"
# Paths of before the API had versions; they stay as they are.
UNVERSIONED = "/api/billing"

ROUTERS: tuple[tuple[str, APIRouter], ...] = (
    ("", health.router),
    (UNVERSIONED, runs.router),
    (UNVERSIONED, runs.summary_router),
    (UNVERSIONED, explanations.router),
    (UNVERSIONED, admission.router),
    (VERSION, runs.summary_router),
    (VERSION, operations.router),
    (VERSION, decisions.router),
    (VERSION, decisions.release_router),
    (VERSION, admission.router),
    (VERSION, customers.router),
    (VERSION, explanations.router),
    ("", metrics.router),
    ("", documentation.router),
)


def create_application(
    settings: Settings,
    conninfo: str,
    built_in: BuiltInBilling | None = None,
    routers: Iterable[tuple[str, APIRouter]] = ROUTERS,
) -> FastAPI:
    """Make the ASGI application; it opens its connections, and starts `built_in`, with its lifespan.

    A host that mounts it runs that lifespan inside its own: see web/embed.py.
    """
    pool = ReadingPool(conninfo)
    app = FastAPI(
        title="ContainerStacks Billing",
        version=__version__,
        summary="Who bills, what was billed, and whether all is well.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        # A redirect would repeat the Host header of the request.
        redirect_slashes=False,
    )
    app.state.context = Context(
        settings=settings, conninfo=conninfo, pool=pool, readings=Readings(pool), built_in=built_in
    )
    app.add_middleware(Representation)
    app.add_middleware(Bounds)
    problems.install(app)
    for prefix, router in routers:
        app.include_router(router, prefix=prefix)
    page.install(app, app.state.context)
    app.openapi = lambda: openapi(app)  # type: ignore[method-assign]
    return app


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open and close the connection pool, and run built-in billing, for the lifespan of the application."""
    context: Context = app.state.context
    context.pool.open()
    if context.built_in is not None:
        context.built_in.start()
    try:
        yield
    finally:
        if context.built_in is not None:
            await run_in_threadpool(context.built_in.stop)
        await run_in_threadpool(context.pool.close)


def openapi(app: FastAPI) -> dict[str, Any]:
    """Describe the API; errors are problems, in one schema."""
    if app.openapi_schema is None:
        document = FastAPI.openapi(app)
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schemas["Problem"] = problems.Problem.model_json_schema()
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        app.openapi_schema = document
    return app.openapi_schema
