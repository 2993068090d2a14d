"""The command line: one module per verb or family of verbs."""

from __future__ import annotations

from containerstacks_billing.cli import (
    config,
    daemon,
    db,
    doctor,
    drill,
    events,
    grants,
    migrate,
    prices,
    quarantine,
    release,
    run,
    runs,
    runways,
    serve,
    service,
    status,
    token,
    up,
    verify,
    why,
)
from containerstacks_billing.cli.main import app, main

__all__ = [
    "app",
    "config",
    "daemon",
    "db",
    "doctor",
    "drill",
    "events",
    "grants",
    "main",
    "migrate",
    "prices",
    "quarantine",
    "release",
    "run",
    "runs",
    "runways",
    "serve",
    "service",
    "status",
    "token",
    "up",
    "verify",
    "why",
]
