"""Embedding of the application side in a host's ASGI application, such as FastAPI or Starlette.

    from containerstacks_billing.web.embed import embed

    embed(app)

That mounts health, metrics and pages under /billing and lets built-in billing live and end with the host's lifespan.
Any other Python process takes `BuiltInBilling` itself: `start` and `stop`, or `run` in a thread of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette

from containerstacks_billing.config import load as configuration
from containerstacks_billing.config.target import target
from containerstacks_billing.daemon.built_in import BuiltInBilling
from containerstacks_billing.settings import Settings
from containerstacks_billing.web.app import create_application, lifespan

__all__ = ["BuiltInBilling", "embed"]


def embed(app: Starlette, path: str = "/billing", settings: Settings | None = None) -> BuiltInBilling:
    """Mount the application side in a host's application; return its built-in billing.

    Settings come from the environment and the `.env` of the working directory unless they are given. Raises
    ConfigurationError when they are wrong; the database need not be reachable. Call it before the application starts.
    """
    settings = settings or configuration.load({}, of_service=False).settings
    conninfo = target(settings, embedded_allowed=False).conninfo
    built_in = BuiltInBilling(settings, conninfo)
    side = create_application(settings, conninfo, built_in)
    app.mount(path, side)
    before = app.router.lifespan_context

    @asynccontextmanager
    async def both(host: Any) -> AsyncIterator[Any]:
        # A mounted application has no lifespan of its own: the server speaks to the outermost one alone.
        async with lifespan(side), before(host) as state:
            yield state

    app.router.lifespan_context = both
    return built_in
